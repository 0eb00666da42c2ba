"""Evaluations: what a run records of answers on rows whose truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.evaluation import MISSING, Evaluation, keep_evaluation, read_evaluations
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import ArtifactStore, Home

ROWS = pd.DataFrame({"x": [1.0, 2.0, 3.0], "label": ["a", "b", "a"]})


@pytest.fixture
def files(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def keep(files: ArtifactStore):
    """Record an evaluation on three rows; gives what the run records, and what is read back."""
    datasets = {"holdout": {"sha256": files.keep_frame(ROWS), "rows": 3}}

    def keep(**parts: Any) -> tuple[dict[str, Any], Evaluation]:
        parts = {"truth": ROWS["label"], "prediction": [0.9, 0.2, 0.6], **parts}
        name = parts.pop("name", "holdout")
        said = keep_evaluation(files, name, parts.pop("datasets", datasets), **parts)
        return said, read_evaluations(files, {"evaluations": {name: said}})[name]

    return keep


def test_probabilities_come_back_with_their_truth_and_their_slices(keep) -> None:
    said, read = keep(positive="a", slices=pd.DataFrame({"age group": ["old", None, "young"]}))
    assert (said["rows"], said["data"], said["positive"], said["slices"]) == (3, "holdout", "a", ["age group"])
    assert read.truth.tolist() == ["a", "b", "a"]
    assert read.prediction.tolist() == [0.9, 0.2, 0.6]
    assert read.slices["age group"].tolist() == ["old", MISSING, "young"]


class Tensor:
    """As PyTorch's, on a graphics card."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def detach(self) -> "Tensor":
        return self

    cpu = detach

    def numpy(self) -> np.ndarray:
        return self.values


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3], np.array([1, 2, 3], np.int8), pd.Series([1, 2, 3], index=[7, 8, 9]), pd.array([1, 2, 3], "Int64"),
        (1.0, 2.0, 3.0), np.array([1, 2, 3], np.float32), Tensor(np.array([1, 2, 3])),
        pd.Series([1, 2, 3], dtype="UInt8"),
    ],
)  # fmt: skip
def test_numbers_of_every_kind_come_back(keep, values: Any) -> None:
    _, read = keep(truth=values, prediction=values)
    assert read.truth.tolist() == read.prediction.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "values",
    [["a", "b", "c"], np.array(["a", "b", "c"]), pd.Series(["a", "b", "c"]).astype("category"),
     np.array(["a", "b", "c"], dtype=object), pd.array(["a", "b", "c"], "string")],
)  # fmt: skip
def test_texts_of_every_kind_come_back(keep, values: Any) -> None:
    _, read = keep(truth=values, prediction=values)
    assert read.truth.tolist() == read.prediction.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("values", [[None, "a", np.nan], [None, None, None], pd.array([1, None, 3], "Int64")])
def test_what_is_missing_is_kept_as_missing_and_loses_no_run(keep, values: Any) -> None:
    _, read = keep(truth=values, prediction=values)
    assert sum(value is None or value != value for value in read.truth) == sum(pd.isna(values))


def test_no_rows_are_kept_as_none(keep) -> None:
    datasets = {"holdout": {"sha256": "d" * 64, "rows": 0}}
    said, read = keep(datasets=datasets, truth=[], prediction=[], slices=pd.DataFrame({"a": []}))
    assert (said["rows"], len(read), len(read.slices["a"])) == (0, 0, 0)


def test_the_same_rows_are_known_by_data_and_truth_or_by_their_keys(keep, files: ArtifactStore) -> None:
    first = keep(prediction=[0.1, 0.2, 0.3])[0]["rows_sha256"]
    assert keep(prediction=[0.3, 0.2, 0.1])[0]["rows_sha256"] == first
    assert keep(truth=["a", "a", "a"])[0]["rows_sha256"] != first
    wider = {"holdout": {"sha256": files.keep_frame(ROWS.assign(y=0)), "rows": 3}}
    assert keep(datasets=wider)[0]["rows_sha256"] != first
    keys = [7, 8, 9]
    assert keep(datasets=wider, keys=keys)[0]["rows_sha256"] == keep(keys=keys)[0]["rows_sha256"] != first
    assert keep(keys=[9, 8, 7])[0]["rows_sha256"] != keep(keys=keys)[0]["rows_sha256"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"name": "hold.out"}, "use letters, digits, _ and -"),
        ({"data": "test"}, r"no data set 'test'. Say first which rows these are:  ex\.dataset\('test', rows\)"),
        ({"truth": ["a"]}, "one value a row is wanted, and holdout has 3 rows: truth 1, prediction 3"),
        ({"slices": pd.DataFrame({"age": ["old"]})}, "slice age 1"),
        ({"keys": [1, 2]}, "keys 2"),
        ({"prediction": np.zeros((3, 2))}, "of predict_proba, give the column of the class"),
        ({"prediction": 0.5}, r"prediction has the shape \(\)"),
        ({"prediction": ["a", "b", "a"], "positive": "a"}, "predictions are its probabilities, 0 to 1"),
        ({"slices": ["old", "old", "young"]}, "slices= is a DataFrame"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused_in_a_sentence(keep, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        keep(**parts)


def test_an_evaluation_that_was_changed_or_is_gone_is_said(keep, files: ArtifactStore) -> None:
    said, _ = keep()
    file = files.frame_file(said["sha256"])
    pd.DataFrame({"truth": ["a"], "prediction": [1.0]}).to_parquet(file)
    with pytest.raises(Refused, match="does not hold the data"):
        read_evaluations(files, {"evaluations": {"holdout": said}})
    file.unlink()
    with pytest.raises(NotFound, match=said["sha256"][:12]):
        read_evaluations(files, {"evaluations": {"holdout": said}})
    assert read_evaluations(files, {"evaluations": {"holdout": said}}, {"other"}) == {}


@pytest.fixture
def experiment(home: Home) -> Experiment:
    ex = Experiment("evaluated", home=lambda: home)

    @ex.holdout
    def holdout(model):
        ex.dataset("holdout", ROWS)
        ex.evaluation("holdout", truth=ROWS["label"], prediction=[model] * 3, positive="a")
        return model

    @ex.command(unobserved=False)
    def look():
        return 7

    @ex.main
    def main():
        ex.hand_over(0.5)
        return {"loss": 1.0}

    return ex


def test_a_run_scores_the_holdout_and_records_its_answers(experiment: Experiment, home: Home, db) -> None:
    run = RunStore(db).get(experiment.run(options={"--loglevel": "ERROR"})._id)
    assert run.result == {"loss": 1.0, "holdout": 0.5}
    [evaluation] = read_evaluations(home.files, run.recorded).values()
    assert evaluation.prediction.tolist() == [0.5, 0.5, 0.5]


def test_another_command_than_main_is_not_scored(experiment: Experiment, db) -> None:
    run = RunStore(db).get(experiment.run("look", options={"--loglevel": "ERROR"})._id)
    assert (run.status, run.result, run.recorded["evaluations"]) == ("COMPLETED", {"result": 7}, {})


def test_an_evaluation_outside_a_run_is_refused(experiment: Experiment) -> None:
    with pytest.raises(Refused, match="inside a run"):
        experiment.evaluation("holdout", truth=[], prediction=[])
