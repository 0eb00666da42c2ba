"""Plain values: what a configuration, a result or `info` becomes before it is stored. Pure, and it never fails.

MongoDB knows numbers of 64 bits, text, time, lists and documents. What it knows is kept; the rest becomes the
nearest thing a person can read: a set a sorted list, a NumPy scalar its number, a whole number beyond 64 bits its
digits, an array or tensor its list or, when it is large, a line about it, anything else its `repr`.
"""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any

MAX_ELEMENTS = 10_000  # of an array; larger ones belong into an artifact
MAX_DEPTH = 60  # MongoDB allows 100 levels
_INT64 = 2**63


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as MongoDB and people can read it."""
    try:
        return _plain(value, depth)
    except Exception as error:  # a foreign object's own methods may raise anything, and a run must not be lost for it
        return f"<{type(value).__name__}, not storable: {error!r}>"


def plain_key(key: Any) -> str:
    """A name that every reader of MongoDB can use: Sacred's own replacement of dots and dollars."""
    text = str(key).replace(".", ",").replace("\0", "")
    return "@" + text[1:] if text.startswith("$") else text


def plain_number(value: Any) -> Any:
    """A metric's value: a number of 64 bits where it is one at all."""
    value = plain(value)
    if isinstance(value, str):
        try:
            return float(value)  # an int beyond 64 bits: as a point of a curve its size counts, not its digits
        except ValueError:
            return value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()  # lone surrogates are no text
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(int(value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, datetime | bytes):
        return value
    if isinstance(value, date | PurePath | complex):
        return str(value)
    if depth >= MAX_DEPTH:
        return repr(value)[:1000]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), depth)
    if isinstance(value, Mapping):
        return {plain_key(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item, depth + 1) for item in value), key=lambda item: (str(type(item)), str(item)))
    if isinstance(value, list | tuple) or type(value).__name__ in ("range", "deque"):
        return [plain(item, depth + 1) for item in value]
    return _from_library(value, depth)


def _from_library(value: Any, depth: int) -> Any:
    """NumPy, PyTorch, pandas and their like, by what they can do: none of them is imported here."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor, perhaps on a GPU
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):
            value = value.float()
    shape = getattr(value, "shape", None)
    if hasattr(value, "to_dict") and isinstance(shape, tuple) and value.size <= MAX_ELEMENTS:  # a pandas object
        return plain(value.to_dict(), depth + 1)
    if shape is not None and hasattr(value, "tolist"):
        elements = 1
        for length in shape:
            elements *= int(length)
        if elements > MAX_ELEMENTS:
            kind = f"{type(value).__name__} {getattr(value, 'dtype', '')}"
            return f"<{kind}, shape {tuple(shape)}: save it as an artifact>"
        return plain(value.tolist(), depth + 1)
    if hasattr(value, "item") and callable(value.item):  # a NumPy scalar
        return plain(value.item(), depth + 1)
    return repr(value)[:1000]
