"""An ONNX file, looked through before onnxruntime parses it: it must hold all of itself, and standard operators only.

Refused are tensors that lie in another file (a path of the model's choice would be read), operators beyond the
standard, functions of the model's own, and training graphs. This walks the protobuf's wire format, since the image
has no package `onnx`; the numbers are those of `onnx.proto`. Every occurrence of a field is looked at, whichever one a
parser would use.
"""

from collections.abc import Iterator

from modelyard_serving.errors import Refused

DOMAINS = (b"", b"ai.onnx", b"ai.onnx.ml")
MAX_DEPTH = 100  # messages within messages, as protobuf itself has it

# Message -> field -> the message in it, as far as a tensor, a node or a graph can be found that way.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_REFUSED = {
    ("model", 20): "a training graph; export the model for inference",
    ("model", 25): "functions of its own; inline them before saving (onnx.inliner.inline_local_functions)",
    ("tensor", 13): "a tensor that lies in another file; save the model as one file",
}
_DATA_LOCATION = ("tensor", 14)
_DOMAIN = ("node", 7)

Value = int | memoryview


def check(content: bytes) -> None:
    """Stop unless the file holds all of itself and uses standard operators only.

    Raises:
        Refused: says what it holds that is not loaded, or that it is no ONNX file.
    """
    fields = {field for field, _ in _fields(memoryview(content))}
    if 7 not in fields:
        raise Refused("it is no ONNX file: there is no graph in it")
    _check("model", memoryview(content), 0)


def _check(message: str, content: memoryview, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Refused(f"its messages are nested deeper than {MAX_DEPTH}")
    for field, value in _fields(content):
        here = (message, field)
        if here in _REFUSED:
            raise Refused(f"it holds {_REFUSED[here]}")
        if here == _DATA_LOCATION and value != 0:
            raise Refused(f"it holds {_REFUSED['tensor', 13]}")
        if here == _DOMAIN and (isinstance(value, int) or bytes(value[:100]) not in DOMAINS):
            name = value if isinstance(value, int) else bytes(value[:100]).decode(errors="replace")
            raise Refused(f"it uses operators of {name!r}, which are not standard; export it with standard ones")
        inner = _MESSAGES[message].get(field)
        if inner is not None:
            if isinstance(value, int):
                raise Refused("it is no ONNX file: a message is missing")
            _check(inner, value, depth + 1)


def _fields(content: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of a message; a fixed-width number is given as 0."""
    place, end = 0, len(content)
    while place < end:
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(content, place)
            yield key >> 3, value
        elif kind == 2:
            size, place = _varint(content, place)
            if size > end - place:
                raise Refused("it is no ONNX file, or not a whole one")
            yield key >> 3, content[place : place + size]
            place += size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
            yield key >> 3, 0
        else:
            raise Refused("it is no ONNX file")
    if place != end:
        raise Refused("it is no ONNX file, or not a whole one")


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            break
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise Refused("it is no ONNX file, or not a whole one")
