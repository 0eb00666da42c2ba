"""What `yard sweep tumor` searches; each name is one of train.py's configuration entries."""

from hyperopt import hp


def space():
    return {
        "C": hp.loguniform("C", -6, 4),
        "components": hp.quniform("components", 2, 30, 1),
        "scaler": hp.choice("scaler", ["standard", "robust"]),
    }
