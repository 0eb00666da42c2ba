"""An ONNX graph, operators and numbers without code: the way of all that is no scikit-learn estimator, PyTorch first.

Inputs: one tensor (rows, columns) that is made of the columns in their order, or one input for each column, of its
name, (rows) or (rows, 1). Outputs: `predict`, or `label` as skl2onnx calls it, or the only one there is; and beside it
`predict_proba` or `probabilities`. In the file that is written they are called after the methods, and what exporters
note down of the machine they ran on (paths, stack traces) is left out.
"""

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard_tracking.errors import Refused
from modelyard_tracking.kinds.servable import METHODS, classes_of, methods_of

OUTPUTS = {"predict": "predict", "label": "predict", "predict_proba": "predict_proba", "probabilities": "predict_proba"}
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
# ONNX's element type -> the column's dtype, and the columns' dtypes that can be given to it without loss of kind
_TYPES = {
    1: ("float32", {"float32", "float64", "int64", "bool"}),
    11: ("float64", {"float32", "float64", "int64", "bool"}),
    7: ("int64", {"int64", "bool"}),
    9: ("bool", {"bool"}),
    8: ("str", {"str"}),
}


def is_graph(model: Any) -> bool:
    """Is it an ONNX model: a ModelProto, the bytes or the path of one, or what torch.onnx.export gives?"""
    model = getattr(model, "model_proto", model)
    return isinstance(model, bytes | str | Path) or type(model).__name__ == "ModelProto"


def read_graph(model: Any, trained: Any = None) -> "Graph":
    """The graph, checked and with outputs named after methods.

    Raises:
        Refused: it is none, or cannot be served as it is.
    """
    try:
        import onnx
    except ImportError as error:
        raise Refused(
            "An ONNX model wants the package onnx here: add onnx and onnxruntime to requirements.in."
        ) from error
    from google.protobuf.message import DecodeError

    model = getattr(model, "model_proto", model)
    try:
        if isinstance(model, bytes):
            proto = onnx.load_model_from_string(model)
        elif isinstance(model, str | Path):
            proto = onnx.load_model(str(model))  # tensors that lie in other files are taken in
        else:
            proto = onnx.ModelProto()
            proto.CopyFrom(model)
        onnx.checker.check_model(proto)
    except (DecodeError, OSError, onnx.checker.ValidationError, ValueError) as error:
        raise Refused(f"This is no valid ONNX model: {str(error).strip()[:500]}") from error
    _refuse_what_is_not_loaded(proto)
    _name_outputs(proto)
    _forget_the_machine(proto.graph)
    return Graph(proto, trained)


def read_weights(file: Path) -> Any:
    """What an ONNX file holds, tensors as arrays, for comparing two trainings."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_model(str(file), load_external_data=False)
    nodes = [(node.op_type, list(node.input), list(node.output)) for node in proto.graph.node]
    return {"nodes": nodes, **{tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}}


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that can be served."""

    proto: Any
    trained: Any = None  # what the graph was made from; it gives the golden answers and names the classes
    kind: str = "onnx"
    _session: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def methods(self) -> tuple[str, ...]:
        there = {output.name for output in self.proto.graph.output}
        return tuple(method for method in METHODS if method in there)

    @property
    def classes(self) -> list[Any]:
        return classes_of(self.trained) if "predict_proba" in self.methods else []

    def fitted(self, inputs: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        graph = self.proto.graph
        constants = {tensor.name for tensor in graph.initializer}
        wanted = {each.name: each.type.tensor_type for each in graph.input if each.name not in constants}
        names = [column["name"] for column in inputs]
        for name, tensor in wanted.items():
            if tensor.elem_type not in _TYPES or len(tensor.shape.dim) not in (1, 2):
                raise Refused(
                    f"The graph's input {name!r} is not one that rows can give: it must be a tensor of one or two "
                    "dimensions, of float, double, int64, bool or string."
                )
            if tensor.shape.dim[0].HasField("dim_value"):
                raise Refused(
                    f"The graph's input {name!r} takes {tensor.shape.dim[0].dim_value} rows, no more and no fewer: "
                    "export it with a first dimension that is left open (dynamic_shapes, dynamic_axes)."
                )
        if len(wanted) == 1 and len(next(iter(wanted.values())).shape.dim) == 2:
            [(name, tensor)] = wanted.items()
            width = tensor.shape.dim[1].dim_value or len(inputs)
            if width != len(inputs):
                raise Refused(f"The graph's input {name!r} has {width} columns, the examples have {len(inputs)}.")
            return [_narrowed(column, tensor.elem_type) for column in inputs]
        if set(wanted) != set(names):
            raise Refused(
                f"The graph's inputs are {', '.join(sorted(wanted))}, the columns {', '.join(sorted(names))}: "
                "they must have the same names, unless there is one input (rows, columns)."
            )
        wide = [
            name for name, tensor in wanted.items() if len(tensor.shape.dim) == 2 and tensor.shape.dim[1].dim_value > 1
        ]
        if wide:
            raise Refused(f"The graph's input {wide[0]!r} has several columns; give it one, or make one input of all.")
        return [_narrowed(column, wanted[column["name"]].elem_type) for column in inputs]

    def answer(self, examples: Any, method: str) -> Any:
        if self.trained is not None:
            if method not in methods_of(self.trained):
                raise Refused(f"trained= has no {method}(), and the graph's {method} must be held to something.")
            return getattr(self.trained, method)(examples)
        return self._ask(examples, method)

    def _ask(self, examples: Any, method: str) -> Any:
        import numpy as np
        import onnxruntime

        if not self._session:
            content = self.proto.SerializeToString()
            self._session.append(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]))
        [session] = self._session
        inputs = session.get_inputs()
        if len(inputs) == 1 and len(inputs[0].shape) == 2:
            feed = {inputs[0].name: examples.to_numpy(dtype=_NUMPY[inputs[0].type])}
        else:
            columns = {each.name: examples[each.name].to_numpy(dtype=_NUMPY[each.type]) for each in inputs}
            feed = {each.name: columns[each.name].reshape((-1, 1) if len(each.shape) == 2 else -1) for each in inputs}
        [value] = session.run([method], feed)
        array = np.asarray(value)
        return array.reshape(-1) if method == "predict" and array.ndim == 2 and array.shape[1] == 1 else array

    def write(self, folder: Path, signature: Any) -> None:
        import mlflow.onnx

        packages = ("onnx", "onnxruntime")
        mlflow.onnx.save_model(
            self.proto,
            str(folder),
            signature=signature,
            save_as_external_data=False,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in packages],
        )


_NUMPY = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


def _narrowed(column: dict[str, str], elem_type: int) -> dict[str, str]:
    """The column with the dtype that callers are held to."""
    dtype, takes = _TYPES[elem_type]
    if column["dtype"] not in takes:
        raise Refused(f"The graph takes {dtype} where the column {column['name']!r} is {column['dtype']}.")
    # A whole number stays one, also where the graph computes with it as a float.
    return column if column["dtype"] in ("int64", "bool") else {**column, "dtype": dtype}


def _refuse_what_is_not_loaded(proto: Any) -> None:
    if proto.functions:
        raise Refused("The model has functions of its own; inline them: onnx.inliner.inline_local_functions(model).")
    for graph in _graphs(proto.graph):
        for tensor in graph.initializer:
            if tensor.data_location or tensor.external_data:
                raise Refused(
                    f"The tensor {tensor.name!r} lies in another file; give save_model the path of the model."
                )
        for node in graph.node:
            if node.domain not in DOMAINS:
                raise Refused(
                    f"The operator {node.domain}.{node.op_type} is not of ONNX's standard, so the runtime would not "
                    "load it: export the model with standard operators."
                )


def _name_outputs(proto: Any) -> None:
    outputs = list(proto.graph.output)
    names = {output.name: OUTPUTS.get(output.name) for output in outputs}
    if len(outputs) == 1:
        names = {outputs[0].name: "predict"}
    methods = sorted(method for method in names.values() if method)
    if len(set(methods)) != len(outputs) or "predict" not in methods:
        raise Refused(
            f"The graph's outputs are {', '.join(names)}. Call one predict, and another predict_proba if there is one "
            "(skl2onnx's label and probabilities will do, with options={'zipmap': False}); leave others out."
        )
    for output in outputs:
        if not output.type.HasField("tensor_type"):
            raise Refused(
                f"The graph's output {output.name!r} is no tensor; with skl2onnx: options={{'zipmap': False}}."
            )
        _rename(proto.graph, output.name, str(names[output.name]))


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value of the graph, in the graphs within it, too."""
    if old == new:
        return
    for each in _graphs(graph):
        values = [*each.input, *each.output, *each.value_info, *each.initializer]
        if new in {value.name for value in values} | {name for node in each.node for name in node.output}:
            raise Refused(f"Something in the graph is called {new!r}, which is kept for an output; export it anew.")
    for each in _graphs(graph):
        for value in (*each.input, *each.output, *each.value_info, *each.initializer):
            value.name = new if value.name == old else value.name
        for node in each.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]


def _forget_the_machine(graph: Any) -> None:
    for each in _graphs(graph):
        each.doc_string = ""
        del each.metadata_props[:]
        for part in (*each.node, *each.input, *each.output, *each.value_info, *each.initializer):
            part.doc_string = ""
            del part.metadata_props[:]


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph, and those within its operators, as in If and Loop."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)
