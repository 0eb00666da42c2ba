"""Tensors of the Open Inference Protocol: flat lists of values, as JSON or as Triton's bytes.

The bytes are little-endian; a BYTES element is its length in four bytes, and then the text in UTF-8.
"""

import struct
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from modelyard_serving.runtime.rows import BadRequest

DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "str": "BYTES"}
_NUMPY = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


def flat(data: Any, shape: Sequence[int]) -> list[Any]:
    """The values of a tensor of one or two dimensions, row by row, whether its data is nested or flat already.

    Raises:
        BadRequest: there are more or fewer values than the shape says.
    """
    if not isinstance(data, list):
        raise BadRequest("data must be a list")
    values = data
    if len(shape) == 2 and len(data) == shape[0] and all(isinstance(row, list) for row in data):
        if wrong := [row for row in data if len(row) != shape[1]]:
            raise BadRequest(f"data has a row of {len(wrong[0])} values, and the shape is {list(shape)}")
        values = list(chain.from_iterable(data))
    if len(values) != prod(shape):
        raise BadRequest(f"data has {len(values)} values, and the shape is {list(shape)}")
    return values


def from_bytes(raw: bytes, datatype: str, count: int) -> list[Any]:
    """`count` values of one of DATATYPES.

    Raises:
        BadRequest: the bytes are more or fewer, or no text.
    """
    if datatype == "BYTES":
        return _texts(raw, count)
    values = np.frombuffer(raw, np.uint8)
    dtype = np.dtype(_NUMPY[datatype])
    if len(raw) != count * dtype.itemsize:
        raise BadRequest(f"{len(raw)} bytes, and {count} values of {datatype} are {count * dtype.itemsize}")
    if datatype == "BOOL" and (values > 1).any():
        raise BadRequest("a byte is neither 0 nor 1, so it is no BOOL")
    numbers: list[Any] = values.view(dtype).tolist()
    return numbers


def to_bytes(values: Sequence[Any], datatype: str) -> bytes:
    """The other way round."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(values, _NUMPY[datatype]).tobytes()


def _texts(raw: bytes, count: int) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(raw) and len(texts) < count:
        end = at + 4 + (struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else len(raw))
        if end > len(raw):
            raise BadRequest(f"the bytes end within the text number {len(texts)}")
        try:
            texts.append(raw[at + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise BadRequest(f"the text number {len(texts)} is no UTF-8") from error
        at = end
    if len(texts) != count or at != len(raw):
        raise BadRequest(f"the {len(raw)} bytes do not hold {count} texts")
    return texts
