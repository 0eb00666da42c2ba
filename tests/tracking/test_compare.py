"""How runs differ: configuration, numbers, code, environment, data."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from modelyard_tracking.compare import MISSING, Comparison, Difference, compare
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import Home

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train.py").write_text("x = 1\n")
    (folder / "requirements.lock").write_text("numpy==2.0.0\npandas==2.3.0\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def run(home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a run in the repository; gives its number."""
    monkeypatch.setattr("modelyard_tracking.origin.check_environment", lambda _: None)  # the locks here are made up

    def make(rows: int = 2, **config) -> int:
        def main(_run, lr):
            experiment.dataset("train", pd.DataFrame({"a": range(rows)}))
            for step in range(3):
                _run.log_scalar("val.auc", lr + step)
            return {"auc": lr}

        experiment = Experiment("churn", home=lambda: home)
        experiment.base_dir = str(repository)
        experiment.add_config({"lr": 0.1, "net": {"depth": 1}, "seed": 1})
        experiment.main(main)
        return experiment.run(config_updates=config, options={"--loglevel": "ERROR"})._id

    return make


@pytest.fixture
def compared(db, home: Home, repository: Path):
    return lambda *ids: compare(RunStore(db), home.files, repository, ids)


def changed(comparison: Comparison, part: str) -> dict:
    return {d.name: d.values for d in dict(comparison.parts())[part] if not d.same}


def test_two_runs_of_the_same_are_the_same(run, compared) -> None:
    comparison = compared(run(), run())
    assert {part: changed(comparison, part) for part, _ in comparison.parts()} == {
        "config": {}, "metrics": {}, "code": {}, "environment": {}, "data": {},
    }  # fmt: skip
    assert (comparison.diff, comparison.diff_note) == ("", "")


def test_configuration_and_numbers_are_put_side_by_side_by_dotted_names(run, compared) -> None:
    comparison = compared(run(), run(lr=0.3, net={"depth": 2}))
    assert changed(comparison, "config") == {"lr": (0.1, 0.3), "net.depth": (1, 2)}
    assert changed(comparison, "metrics") == {"val.auc": (2.1, 2.3), "auc": (0.1, 0.3)}
    assert next(d for d in comparison.config if d.name == "lr").change == pytest.approx(0.2)


def test_data_that_changed_is_named_with_its_rows(run, compared) -> None:
    [(before, after)] = changed(compared(run(), run(rows=3)), "data").values()
    assert before.endswith(", 2 rows")
    assert after.endswith(", 3 rows")


def test_code_that_changed_between_commits_is_shown_as_a_diff(run, compared, repository: Path) -> None:
    first = run()
    (repository / "train.py").write_text("x = 2\n")
    subprocess.run([*GIT, "commit", "-qam", "y"], cwd=repository, check=True)
    comparison = compared(first, run())
    assert set(changed(comparison, "code")) == {"commit"}
    assert "-x = 1\n+x = 2" in comparison.diff


def test_code_that_changed_after_the_commit_is_shown_too(run, compared, repository: Path) -> None:
    first = run()
    (repository / "train.py").write_text("x = 3\n")
    comparison = compared(first, run())
    assert set(changed(comparison, "code")) == {"changes since", "changes' digest"}
    assert "the other has none" in comparison.diff
    assert "+x = 3" in comparison.diff
    (repository / "train.py").write_text("x = 4\n")
    assert "-+x = 3\n++x = 4" in compared(2, run()).diff


def test_packages_that_changed_are_named_with_both_versions(run, compared, repository: Path) -> None:
    first = run()
    (repository / "requirements.lock").write_text("numpy==2.1.0\nscipy==1.0.0\npandas==2.3.0\n")
    environment = changed(compared(first, run()), "environment")
    assert environment["numpy"] == ("2.0.0", "2.1.0")
    assert environment["scipy"] == (MISSING, "1.0.0")
    assert "pandas" not in environment


def test_a_commit_that_is_not_here_is_said(run, compared, repository: Path) -> None:
    first = run()
    shutil.rmtree(repository / ".git")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "another"]):
        subprocess.run([*GIT, *command], cwd=repository, check=True)
    assert "git fetch" in compared(first, run()).diff_note


def test_three_runs_are_compared_to_the_first(run, compared) -> None:
    assert changed(compared(run(), run(), run(lr=0.2)), "config") == {"lr": (0.1, 0.1, 0.2)}


def test_plain_sacred_runs_are_compared_as_far_as_they_go(run, db, compared) -> None:
    first = run()
    db.runs.insert_one({"_id": 99, "experiment": {"name": "plain"}, "config": {"lr": 0.2}, "result": 0.5})
    db.metrics.insert_one({"run_id": 99, "name": "val.auc", "steps": [0], "values": [0.6], "timestamps": []})
    comparison = compared(first, 99)
    assert changed(comparison, "metrics")["val.auc"] == (2.1, 0.6)
    assert comparison.diff_note == "a run recorded no commit"


@pytest.mark.parametrize(
    ("values", "same", "change"),
    [
        ((1, 1), True, 0),
        ((float("nan"), float("nan")), True, None),
        ((1.0, 1.5), False, 0.5),
        (("a", 1), False, None),
        ((True, False), False, None),
        ((1.0, float("inf")), False, None),
    ],
)
def test_a_difference_knows_whether_it_is_one(values, same: bool, change) -> None:
    difference = Difference("x", values)
    assert (difference.same, difference.change) == (same, change)


def test_a_comparison_can_be_printed_as_json(run, compared) -> None:
    comparison = compared(run(), run(lr=0.3))
    described = comparison.as_dict()
    assert described["config"] == {"lr": [0.1, 0.3]}
    assert "net.depth" in described["same"]["config"]
