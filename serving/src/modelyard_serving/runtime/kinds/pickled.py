"""A pickle: loading it runs whatever it says. Only for a model whose manifest says so; approval names it as such."""

import pickle

from modelyard_serving.runtime.kinds.ask import Ask, methods_of

FILE = "model.pkl"
MAX_BYTES = 4 * 2**30


def load(content: bytes) -> Ask:
    """The object in a pickle, one that was verified and that its project declared."""
    return methods_of(pickle.loads(content))  # noqa: S301 - the manifest says so, see `runtime/model.py`
