"""Runs as they are looked at in a notebook, over a real database."""

import shutil
from pathlib import Path

import matplotlib as mpl
import pytest

import modelyard
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.store import Home
from places import PROJECTS

mpl.use("Agg")


@pytest.fixture
def runs(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name, value in (("MONGO_URL", home.mongo_url), ("DATABASE", home.database), ("HOME", str(tmp_path))):
        monkeypatch.setenv(f"YARD_{name}", value)
    experiment = Experiment("churn", home=lambda: home)
    experiment.base_dir = str(tmp_path)
    experiment.add_config({"lr": 0.1, "net": {"depth": 1}, "auc": "clash"})

    @experiment.main
    def main(_run, lr):
        for step in range(5):
            _run.log_scalar("val.auc", lr * step)
        _run.log_scalar("once", 1.0)
        _run.add_artifact(__file__, name="code.py")
        return {"auc": lr, "note": "<b>bold</b>"}

    for lr in (0.1, 0.3, 0.2):
        experiment.run(config_updates={"lr": lr}, options={"--loglevel": "ERROR"})
    yield
    for yard in modelyard._yards.values():
        yard.close()
    modelyard._yards.clear()


pytestmark = pytest.mark.usefixtures("runs")


def test_runs_are_a_table_with_configuration_and_result() -> None:
    table = modelyard.runs("churn", sort="val.auc").table()
    assert list(table.index) == [2, 3, 1]
    assert list(table["lr"]) == [0.3, 0.2, 0.1]
    assert list(table["net.depth"]) == [1, 1, 1]
    assert list(table["result.auc"]) == [0.3, 0.2, 0.1]  # the name is one of the configuration, too
    assert (table["status"] == "COMPLETED").all()


def test_no_runs_are_an_empty_table() -> None:
    assert len(modelyard.runs("nothing").table()) == 0


def test_runs_can_be_filtered_and_picked() -> None:
    found = modelyard.runs("churn", where=["lr>0.15"])
    assert [run.id for run in found] == [3, 2]
    assert found[0].result["auc"] == 0.2
    assert repr(found) == "<2 runs; look at them with .table()>"
    assert found[0].artifact("code.py").startswith(b'"""Runs as they are looked at')


def test_a_runs_curve_is_a_frame_and_a_plot() -> None:
    run = modelyard.run(2)
    assert list(run.curve("val.auc")["value"]) == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.2])
    axes = run.plot("val.auc")
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.2])
    everything = run.plot()
    assert [line.get_label() for line in everything.lines] == ["once", "val.auc"]
    assert everything.lines[0].get_marker() == "o"
    both = modelyard.run(1).plot("val.auc", axes=axes)
    assert len(both.lines) == 2


def test_a_metric_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(KeyError, match=r"no metric 'val_auc'. It has: once, val\.auc"):
        modelyard.run(1).plot("val_auc")


def test_a_comparison_is_shown_as_html_with_what_differs_and_nothing_is_run_as_html() -> None:
    html = modelyard.compare(1, 2)._repr_html_()
    assert "<b>lr</b></td><td>0.1</td><td>0.3</td><td>+0.2" in html
    assert "<b>bold</b>" not in modelyard.run(1)._repr_html_()
    assert "run 1 of churn" in modelyard.run(1)._repr_html_()
    assert "differences" in repr(modelyard.compare(1, 2))


def test_a_project_is_checked_in_one_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(PROJECTS / "tumor", tmp_path / "projects" / "tumor")
    monkeypatch.setenv("YARD_PROJECTS", str(tmp_path / "projects"))
    assert modelyard.check("tumor").passed
    file = tmp_path / "projects" / "tumor" / "project.toml"
    file.write_text(file.read_text().replace("Cytology group <cytology@example.org>", ""))
    found = modelyard.check("tumor")
    assert not found.passed
    assert "leaves owner blank\n    Fill it in:" in repr(found)
    assert "tumor is not ready to be trained" in found._repr_html_()
    assert list(found.table().query("not passed and severity == 'error'")["check"]) == ["card"]
