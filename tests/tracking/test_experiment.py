"""A run on a real MongoDB, in Sacred's own schema."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard_serving.local_stage import free_port
from modelyard_serving.runtime.model import TRUSTED_TYPES
from modelyard_tracking.digests import text_sha256
from modelyard_tracking.errors import Refused
from modelyard_tracking.experiment import Experiment, load_experiment
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.store import Home
from places import TUMOR


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example project in a git repository of its own."""
    folder = tmp_path / "repository" / "projects" / "tumor"
    shutil.copytree(TUMOR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder.parents[1], check=True)
    return folder


@pytest.fixture
def experiment(project: Path, home: Home) -> Experiment:
    loaded = load_experiment(project)
    loaded._home = lambda: home  # instead of the settings'
    loaded._trusted_types = TRUSTED_TYPES
    return loaded


def _run(experiment: Experiment, db, **config) -> Run:
    finished = experiment.run(config_updates=config, options={"--capture": "sys"})
    return RunStore(db).get(finished._id)


def test_a_run_is_a_document_that_omniboard_reads(experiment: Experiment, db) -> None:
    run = _run(experiment, db, C=0.5)
    raw = run.raw
    assert raw["format"].startswith("MongoObserver")
    assert set(raw) >= {
        "_id", "experiment", "command", "host", "start_time", "stop_time", "config", "meta", "status", "resources",
        "artifacts", "captured_out", "info", "heartbeat", "result",
    }  # fmt: skip
    assert raw["experiment"]["mainfile"] == "train.py"
    assert {name for name, _ in raw["experiment"]["sources"]} == {"train.py", "dataset.py", "search_space.py"}
    assert raw["experiment"]["repositories"] == [
        {"url": run.recorded["repository"], "commit": run.recorded["commit"], "dirty": False}
    ]
    assert run.config["C"] == 0.5
    assert run.status == "COMPLETED"
    assert "val_auc" in raw["captured_out"]
    metric = db.metrics.find_one({"run_id": run.id, "name": "val_auc"})
    assert metric["values"] == [run.result["val_auc"]]
    assert {"id": str(metric["_id"]), "name": "val_auc"} in [
        {"id": str(entry["id"]), "name": entry["name"]} for entry in raw["info"]["metrics"]
    ]


def test_a_run_records_commit_lock_data_and_model(experiment: Experiment, project: Path, home: Home, db) -> None:
    run = _run(experiment, db)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True)
    assert run.recorded["commit"] == commit.stdout.strip()
    assert run.recorded["dirty"] is False
    assert home.files.lock(run.recorded["lock_sha256"]).read_bytes() == (project / "requirements.lock").read_bytes()
    assert len(home.files.frame(run.recorded["datasets"]["train"]["sha256"])) == 180
    assert (home.files.model(run.model_sha256) / "mlflow" / "MLmodel").is_file()


def test_code_that_was_changed_after_its_commit_is_recorded_with_its_diff(experiment, project: Path, db) -> None:
    with (project / "train.py").open("a") as file:
        file.write("# changed\n")
    run = _run(experiment, db)
    assert run.recorded["dirty"] is True
    assert run.recorded["changes"] == [" M projects/tumor/train.py"]
    patch = RunStore(db).artifact(run, "changes.patch")
    assert b"+# changed" in patch
    assert text_sha256(patch) == run.recorded["patch_sha256"]


def test_run_numbers_are_small_and_rise(experiment: Experiment, db) -> None:
    assert [_run(experiment, db).id for _ in range(3)] == [1, 2, 3]


def test_the_same_seed_gives_the_same_result(experiment: Experiment, db) -> None:
    assert _run(experiment, db, seed=7).result == _run(experiment, db, seed=7).result


def test_a_run_that_raises_is_kept_as_failed_with_its_traceback(experiment: Experiment, db) -> None:
    with pytest.raises(KeyError):
        _run(experiment, db, scaler="none")
    [run] = RunStore(db).latest()
    failed = RunStore(db).get(run.id)
    assert failed.status == "FAILED"
    assert "KeyError: 'none'" in failed.fail_trace


def test_an_environment_that_is_not_the_locked_one_is_refused_before_training(experiment, project: Path, db) -> None:
    lock = project / "requirements.lock"
    text = lock.read_text()
    version = text.split("scikit-learn==")[1].split()[0]
    lock.write_text(text.replace(f"scikit-learn=={version}", "scikit-learn==0.1"))
    with pytest.raises(Refused, match=f"scikit-learn: the lock has 0.1, this environment {version}"):
        _run(experiment, db)
    assert db.runs.count_documents({}) == 0


@pytest.fixture
def plainly(project: Path, mongo_url: str):
    """Run `python train.py ARGS` in the project, with a database or without."""

    def run(*args: str, database: bool = True) -> "subprocess.CompletedProcess[str]":
        nowhere = f"mongodb://127.0.0.1:{free_port()}/"
        env = {**os.environ, "YARD_MONGO_URL": mongo_url if database else nowhere}
        command = [sys.executable, "train.py", *args]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_plain_script_without_a_database_trains_and_says_where_the_run_is_kept(plainly) -> None:
    done = plainly(database=False)
    assert done.returncode == 0, done.stderr
    assert "val_auc" in done.stdout
    assert "yard runs push" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plain_script_in_another_environment_than_the_locked_one_says_so_in_a_sentence(plainly, project) -> None:
    lock = project / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^pandas==\S+", "pandas==0.1", lock.read_text()))
    done = plainly()
    assert done.returncode == 1
    assert "pandas: the lock has 0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_sacreds_own_commands_need_no_database(plainly) -> None:
    done = plainly("print_config", "with", "C=0.25", database=False)
    assert done.returncode == 0, done.stderr
    assert "C = 0.25" in done.stdout


def test_a_plain_script_that_fails_shows_where(plainly) -> None:
    done = plainly("with", "scaler=none")
    assert done.returncode == 1
    assert "KeyError: 'none'" in done.stderr


def test_saving_outside_a_run_is_refused(experiment: Experiment) -> None:
    with pytest.raises(Refused, match="inside a run"):
        experiment.save_model(None, examples=None)


def test_two_projects_with_modules_of_one_name_do_not_meet(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other)
    (other / "dataset.py").write_text("MARK = 'other'\n")
    (other / "train.py").write_text("import dataset\nfrom modelyard import Experiment\nex = Experiment(dataset.MARK)\n")
    assert load_experiment(project).path == "tumor"
    assert load_experiment(other).path == "other"
    assert load_experiment(project).path == "tumor"


def test_a_project_without_an_experiment_is_told_how_to_define_one(project: Path) -> None:
    (project / "train.py").write_text("x = 1\n")
    with pytest.raises(Refused, match="defines no experiment"):
        load_experiment(project)
