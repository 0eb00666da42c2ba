"""What `yard sweep tumor` searches; each name is one of train.py's configuration entries."""

from math import log

from hyperopt import hp


def space():
    return {
        "C": hp.loguniform("C", log(1e-8), log(1e4)),
        "components": hp.quniform("components", 2, 30, 1),
        "scaler": hp.choice("scaler", ["standard", "robust"]),
    }
