"""An ONNX graph: operators and numbers, no code. onnxruntime computes it on the CPU.

Its outputs are named after methods. Its input is one tensor (rows, columns), the columns in their order, or there
is one input for each column, of its name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelyard_serving.errors import Refused
from modelyard_serving.runtime.kinds import onnx_file
from modelyard_serving.runtime.kinds.ask import Ask

if TYPE_CHECKING:
    import pandas as pd

FILE = "model.onnx"
MAX_BYTES = 2**31 - 1  # what protobuf itself can hold

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


def load(content: bytes) -> Ask:
    """The graph in an ONNX file.

    Raises:
        Refused: it wants another file, is not made of standard operators, or takes what no table can give.
    """
    onnx_file.check(content)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # sums come out the same on every machine
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not onnxruntime's own, nobody looked at it
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    for each in inputs:
        if each.type not in _TYPES:
            raise Refused(f"its input {each.name!r} is a {each.type}, which rows cannot give")

    def ask(table: "pd.DataFrame", methods: Sequence[str]) -> list[Any]:
        values = session.run(list(methods), _feed(table, inputs))
        return [_settled(method, value) for method, value in zip(methods, values, strict=True)]

    return ask


def _feed(table: "pd.DataFrame", inputs: Sequence[Any]) -> dict[str, Any]:
    if len(inputs) == 1 and len(inputs[0].shape) == 2:
        return {inputs[0].name: table.to_numpy(dtype=_TYPES[inputs[0].type])}
    feed = {}
    for each in inputs:
        column = table[each.name].to_numpy(dtype=_TYPES[each.type])
        feed[each.name] = column.reshape(-1, 1) if len(each.shape) == 2 else column
    return feed


def _settled(method: str, value: Any) -> Any:
    """Converters give a regressor's answer as a column: (rows, 1)."""
    array = np.asarray(value)
    return array.reshape(-1) if method == "predict" and array.ndim == 2 and array.shape[1] == 1 else array
