"""Each kind of model, trained, saved, loaded by the real runtime and asked over HTTP for its golden rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import narwhals
import numpy as np
import onnx
import orjson
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from starlette.applications import Starlette

from modelyard_build.checks.golden import first_difference
from modelyard_serving.errors import Refused
from modelyard_serving.manifest import METHODS
from modelyard_serving.runtime.app import create_app, start
from modelyard_serving.runtime.model import Model
from modelyard_tracking.errors import Refused as NotSaved
from modelyard_tracking.layout import check_layout
from modelyard_tracking.saving import Golden
from packed import pack

RNG = np.random.default_rng(7)
ROWS = 60
NUMBERS = pd.DataFrame(RNG.normal(size=(ROWS, 3)), columns=["a", "b", "c"])
MIXED = pd.DataFrame(
    {
        "height": RNG.normal(size=ROWS),
        "weight": RNG.normal(size=ROWS).astype("float32"),
        "visits": RNG.integers(0, 9, ROWS),
        "smoker": RNG.integers(0, 2, ROWS).astype(bool),
        "town": RNG.choice(["Köln", "Bonn", ""], ROWS),
    }
)
TRUTH = np.where(NUMBERS["a"] > 0, "yes", "no")


class Own(ClassifierMixin, BaseEstimator):
    """A class that skops does not load."""

    def fit(self, x: pd.DataFrame, y: Any) -> "Own":  # noqa: ARG002
        self.classes_ = np.array(["no", "yes"])
        return self

    def predict(self, x: pd.DataFrame) -> Any:
        return np.where(x.select_dtypes("number").sum(axis=1) > 0, "yes", "no")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.fixture
def asked(serve_app: Callable[[Starlette], int], folder: Path) -> Callable[[list[Any]], httpx.Response]:
    """Ask the model in `folder` over HTTP; it is loaded at the first question."""
    urls: list[str] = []

    def ask(rows: list[Any]) -> httpx.Response:
        if not urls:
            app = create_app(folder)
            start(app)
            urls.append(f"http://127.0.0.1:{serve_app(app)}/predict")
        return httpx.post(urls[0], content=orjson.dumps({"rows": rows}), timeout=30)

    return ask


def _pipeline() -> Any:
    numbers, texts = ["height", "weight", "visits", "smoker"], ["town"]
    table = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), texts))
    return make_pipeline(table, LogisticRegression())


def _float32(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(dict.fromkeys(frame.select_dtypes("float64"), "float32"))


def _estimator(frame: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    return (_pipeline() if "town" in frame else LogisticRegression()).fit(frame, TRUTH), {}


def _graph_of_one_table(frame: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame.to_numpy(), TRUTH)
    trained = _OfArrays(model)
    return to_onnx(model, frame.to_numpy("float32")[:1], options={"zipmap": False}), {"trained": trained}


def _graph_of_columns(frame: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    model = _pipeline().fit(_float32(frame), TRUTH)
    sample = _float32(frame).astype({"visits": "float32", "smoker": "float32"})[:1]
    return to_onnx(model, sample, options={"zipmap": False}).SerializeToString(), {"trained": model}


def _pickle(frame: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    return Own().fit(frame, TRUTH), {"pickled_for": Path(__file__).parent}


class _OfArrays:
    def __init__(self, model: Any) -> None:
        self.model, self.classes_ = model, model.classes_

    def predict(self, x: pd.DataFrame) -> Any:
        return self.model.predict(x.to_numpy())

    def predict_proba(self, x: pd.DataFrame) -> Any:
        return self.model.predict_proba(x.to_numpy())


@pytest.mark.parametrize(
    ("make", "frame", "kind", "tolerance"),
    [
        (_estimator, NUMBERS, "sklearn", 1e-12),
        (_estimator, NUMBERS.astype("float32"), "sklearn", 1e-12),
        (_estimator, MIXED, "sklearn", 1e-12),
        (_graph_of_one_table, NUMBERS, "onnx", 1e-5),
        (_graph_of_columns, MIXED, "onnx", 1e-5),
        (_pickle, MIXED, "pickle", 0),
    ],
    ids=["sklearn", "sklearn float32", "sklearn mixed", "onnx one table", "onnx columns", "pickle"],
)
def test_over_http_the_runtime_answers_the_golden_rows_as_training_did(
    folder, asked, make, frame, kind: str, tolerance: float
) -> None:
    model, more = make(frame)
    manifest = pack(folder, model, frame.head(12), tolerance=tolerance, **more)
    assert manifest.kind == kind
    check_layout(folder / "model", kind)
    golden = Golden.read(folder / "model")
    assert manifest.classes == ("no", "yes")
    assert [column.name for column in manifest.inputs] == list(frame.columns)
    for batch in (slice(None), slice(3, 4)):
        answer = asked(golden.rows[batch])
        assert answer.status_code == 200, answer.text
        for method in manifest.methods:
            wanted = golden.answers[method][batch]
            assert first_difference(wanted, answer.json()[METHODS[method]], tolerance) is None, method


def test_a_regressor_as_a_graph_answers_one_number_for_each_row(folder, asked) -> None:
    model = RandomForestRegressor(n_estimators=5, random_state=0).fit(NUMBERS.to_numpy(), NUMBERS["a"])
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(model, NUMBERS.to_numpy("float32")[:1]).SerializeToString())
    pack(folder, path, NUMBERS.head(4))
    answer = asked(Golden.read(folder / "model").rows).json()
    assert answer["predictions"] == pytest.approx(model.predict(NUMBERS.head(4).to_numpy()), rel=1e-5)


def test_a_number_that_float32_cannot_hold_is_a_fault_of_the_row_and_not_an_infinity(folder, asked) -> None:
    model, more = _graph_of_one_table(NUMBERS)
    pack(folder, model, NUMBERS.head(2), tolerance=1e-5, **more)
    answer = asked([{"a": 1e39, "b": 0, "c": 0.5}])
    assert answer.status_code == 400
    assert answer.json()["faults"] == ["rows[0].a: expected a number between -3.402823e+38 and 3.402823e+38, got 1e+39"]


def test_a_graph_that_answers_otherwise_than_what_it_was_made_from_does_not_start(folder) -> None:
    wrong, right = LogisticRegression().fit(NUMBERS, TRUTH[::-1]), LogisticRegression().fit(NUMBERS, TRUTH)
    graph = to_onnx(wrong, NUMBERS.to_numpy("float32")[:1], options={"zipmap": False})
    pack(folder, graph, NUMBERS.head(20), trained=right)
    golden = Golden.read(folder / "model")
    assert golden.answers["predict"] == right.predict(NUMBERS.head(20)).tolist()
    with pytest.raises(Refused, match="answers golden row 4 with predict no, and in training it was yes"):
        start(create_app(folder))


def test_a_manifest_from_before_there_were_kinds_is_of_scikit_learn(folder, asked) -> None:
    model, _ = _estimator(NUMBERS)
    manifest = orjson.loads(pack(folder, model, NUMBERS.head(2)).to_json())
    del manifest["kind"]
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest))
    assert asked(Golden.read(folder / "model").rows).status_code == 200


def test_a_kind_that_the_runtime_does_not_know_is_refused(folder) -> None:
    manifest = orjson.loads(pack(folder, _estimator(NUMBERS)[0], NUMBERS.head(2)).to_json())
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest | {"kind": "keras"}))
    with pytest.raises(Refused, match="no model of the kind 'keras'"):
        Model.load(folder)


def test_a_pickle_is_made_only_where_the_project_allows_it(folder) -> None:
    with pytest.raises(NotSaved, match="allow_pickle = true"):
        pack(folder, Own().fit(NUMBERS, TRUTH), NUMBERS.head(2))
    assert not list((folder / "model").rglob("*.pkl"))


def test_what_skops_can_hold_is_no_pickle_even_where_pickles_are_allowed(folder) -> None:
    assert pack(folder, _estimator(NUMBERS)[0], NUMBERS.head(2), pickled_for=folder).kind == "sklearn"


def test_a_pickle_brings_the_modules_of_its_project_along(folder, tmp_path: Path, monkeypatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "only_here.py").write_text(
        "class Sign:\n    def predict(self, x):\n        return [positive(v) for v in x['a']]\n\n"
        "def positive(v):\n    return v > 0\n"
    )
    monkeypatch.syspath_prepend(project)
    import only_here

    pack(folder, only_here.Sign(), NUMBERS.head(3), pickled_for=project)
    monkeypatch.delitem(__import__("sys").modules, "only_here")
    (project / "only_here.py").unlink()
    model = Model.load(folder)
    rows = model.schema.read(NUMBERS.head(3).to_dict("records"))
    assert model.answer(rows, ["predict"]) == {"predict": (NUMBERS["a"].head(3) > 0).tolist()}


def _onnx(inputs: list[Any], outputs: list[str], *, node: Any = None, outputs_type: int = TensorProto.FLOAT) -> Any:
    nodes = [node or helper.make_node("Neg", [inputs[0].name], [name]) for name in outputs]
    made = [helper.make_tensor_value_info(name, outputs_type, ("n", 3)) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _input(name: str = "x", shape: tuple[Any, ...] = ("n", 3), kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        (lambda: _onnx([_input(shape=(1, 3))], ["predict"]), "takes 1 rows, no more and no fewer"),
        (lambda: _onnx([_input(shape=("n", 4))], ["predict"]), "has 4 columns, the examples have 3"),
        (lambda: _onnx([_input(shape=("n", 3, 2))], ["predict"]), "not one that rows can give"),
        (lambda: _onnx([_input(kind=TensorProto.FLOAT16)], ["predict"]), "not one that rows can give"),
        (lambda: _onnx([_input("a", ("n",)), _input("z", ("n",))], ["predict"]), "must have the same names"),
        (lambda: _onnx([_input()], ["this", "that"]), "Call one predict"),
        (lambda: _onnx([_input()], ["predict_proba", "probabilities"]), "Call one predict"),
        (lambda: _onnx([_input(kind=TensorProto.INT64)], ["p"], outputs_type=TensorProto.INT64), "takes int64 where"),
        (lambda: b"no graph at all", "no valid ONNX model"),
        (lambda: "/no/such/file.onnx", "no valid ONNX model"),
    ],
)
def test_a_graph_that_rows_cannot_be_given_to_is_refused_with_what_to_change(folder, graph, fault: str) -> None:
    with pytest.raises(NotSaved, match=fault):
        pack(folder, graph(), NUMBERS.head(3))


def test_what_an_exporter_noted_of_its_machine_is_not_in_the_file(folder) -> None:
    model = _onnx([_input(shape=("n", 3))], ["y"])
    model.graph.node[0].doc_string = "File /home/somebody/secret.py"
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/somebody/train.py")
    model.graph.doc_string = "made by somebody"
    pack(folder, model, NUMBERS.head(3))
    content = (folder / "model" / "mlflow" / "model.onnx").read_bytes()
    assert b"secret.py" not in content
    assert b"somebody" not in content
    assert [output.name for output in onnx.load_model_from_string(content).graph.output] == ["predict"]


def test_nobody_looks_whether_an_array_is_a_frame_and_of_a_frame_the_names_are_looked_at(folder, monkeypatch) -> None:
    looked: list[Any] = []
    looks = narwhals.dependencies._is_native_dataframe
    monkeypatch.setattr(
        "narwhals.stable.v2.dependencies._is_native_dataframe", lambda it: looked.append(it) or looks(it)
    )
    pack(folder, make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS, TRUTH), NUMBERS.head(8))
    ask = Model.load(folder).ask
    looked.clear()
    [from_array] = ask(NUMBERS.to_numpy(), ["predict"])
    assert not looked
    assert list(from_array) == list(ask(NUMBERS, ["predict"])[0])
    assert looked
    with pytest.raises(ValueError, match="feature names"):
        ask(NUMBERS.rename(columns={"a": "d"}), ["predict"])
