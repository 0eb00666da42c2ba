"""An ONNX file, looked through before onnxruntime parses it: it must hold all of itself, and standard operators only.

Refused are tensors that lie in another file (a path of the model's choice would be read), operators beyond the
standard, functions of the model's own, and training graphs. The image has no package `onnx`, but onnxruntime brings
protobuf, which parses by the excerpt of `onnx.proto` below as onnxruntime does, and bounds how deep messages nest.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from modelyard_serving.errors import Refused

DOMAINS = (b"", b"ai.onnx", b"ai.onnx.ml")

# Message -> field -> (its number, what is in it); the numbers are onnx.proto's. Nothing else is looked at.
_EXCERPT = {
    "Model": {"graph": (7, "Graph"), "training_info": (20, "bytes"), "functions": (25, "bytes")},
    "Graph": {"node": (1, "Node"), "initializer": (5, "Tensor"), "sparse_initializer": (15, "SparseTensor")},
    "Node": {"attribute": (5, "Attribute"), "domain": (7, "bytes")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "Tensor"),
        "graphs": (11, "Graph"),
        "sparse_tensor": (22, "SparseTensor"),
        "sparse_tensors": (23, "SparseTensor"),
    },
    "SparseTensor": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"external_data": (13, "bytes"), "data_location": (14, "int64")},
}
_REFUSED = {
    "training_info": "a training graph; export the model for inference",
    "functions": "functions of its own; inline them before saving (onnx.inliner.inline_local_functions)",
    "external_data": "a tensor that lies in another file; save the model as one file",
    "data_location": "a tensor that lies in another file; save the model as one file",
}


def check(content: bytes) -> None:
    """Stop unless the file holds all of itself and uses standard operators only.

    Raises:
        Refused: says what it holds that is not loaded, or that it is no ONNX file.
    """
    from google.protobuf.message import DecodeError

    try:
        model = _model_class().FromString(content)
    except DecodeError as error:
        raise Refused("it is no ONNX file, or not a whole one") from error
    if not model.graph:
        raise Refused("it is no ONNX file: there is no graph in it")
    for name, value in _fields(model):
        if name in _REFUSED and value != 0:
            raise Refused(f"it holds {_REFUSED[name]}")
        if name == "domain" and value not in DOMAINS:
            shown = value[:100].decode(errors="replace")
            raise Refused(f"it uses operators of {shown!r}, which are not standard; export it with standard ones")


def _fields(message: Any) -> Iterator[tuple[str, Any]]:
    """Every field that is set, in this message and those within it."""
    for field, values in message.ListFields():
        for value in values:
            if field.message_type is None:
                yield field.name, value
            else:
                yield from _fields(value)


@cache
def _model_class() -> Any:
    """The class of the excerpt's Model. Every field is repeated: one that is given twice is looked at twice."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="excerpt.proto", package="excerpt", syntax="proto2")
    for name, fields in _EXCERPT.items():
        message = file.message_type.add(name=name)
        for field, (number, what) in fields.items():
            made = message.field.add(name=field, number=number, label=kinds.LABEL_REPEATED)
            if what in _EXCERPT:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".excerpt.{what}"
            else:
                made.type = {"bytes": kinds.TYPE_BYTES, "int64": kinds.TYPE_INT64}[what]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("excerpt.Model"))
