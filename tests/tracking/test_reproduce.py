"""Reproducing runs of small real projects, each in a git repository of its own, on a real MongoDB."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard_build.environment import make_training_environment
from modelyard_serving.runtime.model import TRUSTED_TYPES
from modelyard_tracking.errors import NotFound, Refused, TrackingError
from modelyard_tracking.experiment import load_experiment
from modelyard_tracking.reproducing.deviation import Cause, Verdict, deviation
from modelyard_tracking.reproducing.outcome import read_weights
from modelyard_tracking.reproducing.reproduce import Reproduction, reproduce
from modelyard_tracking.reproducing.worktree import worktree
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.saving import write_model
from modelyard_tracking.store import Home
from places import TUMOR

SCRIPT = """
    import os
    from pathlib import Path
    import numpy as np
    from modelyard import Experiment

    ex = Experiment("small")
    HERE = Path(__file__).parent

    @ex.config
    def config():
        lr = 0.1

    @ex.automain
    def main(_run, _config, lr, seed):
        random = np.random.default_rng(seed)
        for step in range(20):
            _run.log_scalar("loss", float(np.exp(-lr * step) + 0.01 * random.normal()), step)
        {more}
        return {{"loss": float(random.normal())}}
"""


def script(more: str = "pass") -> str:
    return textwrap.dedent(SCRIPT).format(more=more)


def git(folder: Path, *args: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *args]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Make a project with a train.py in a repository, committed."""

    def make(train: str, **files: bytes) -> Path:
        folder = tmp_path / "repository" / "projects" / "small"
        folder.mkdir(parents=True)
        (folder / "train.py").write_text(train)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        git(folder, "init", "-q", str(folder.parents[1]))
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "x")
        return folder

    return make


@pytest.fixture
def train(home: Home, db) -> Callable[..., Run]:
    """Train a project here; the run as MongoDB has it. A failure of the training is part of the run."""

    def run(folder: Path, **config) -> Run:
        experiment = load_experiment(folder)
        experiment._home = lambda: home
        with suppress(ZeroDivisionError):
            experiment.run(config_updates=config, options={"--capture": "sys"})
        return RunStore(db).get(experiment.current_run._id)

    return run


@pytest.fixture
def again(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reproduction]:
    """Reproduce a run; also sees to it that the user's checkout is as it was, and no worktree is left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def no_environment(lock: Path) -> Path:
        raise AssertionError(f"{lock} fits this environment; none should be made")

    def run(run_id: int, make=no_environment, **options) -> Reproduction:
        repository = tmp_path / "repository"
        state = partial(git, repository, "status", "--porcelain=v2", "--ignored", "--branch", "--show-stash")
        before = state()
        try:
            return reproduce(home, run_id, repository / "projects", make, **options)
        finally:
            assert state() == before
            assert len(git(repository, "worktree", "list").splitlines()) == 1
            assert not list(scratch.glob("yard-*"))

    return run


def test_a_run_is_made_again_and_is_identical(project, train, again, db) -> None:
    run = train(project(script()), lr=0.25)
    done = again(run.id)
    assert (done.verdict, done.explanation, done.run) == (Verdict.IDENTICAL, None, run.id)
    assert {item.what for item in done.compared} == {"status", "result loss", "metric loss"}
    assert "no lock" in done.environment
    made = RunStore(db).get(done.reproductions[0])
    assert made.recorded["reproduces"] == run.recorded["uuid"]
    assert made.config == run.config
    assert made.recorded["commit"] == run.recorded["commit"]
    assert made.recorded["dirty"] is False


def test_the_example_project_gives_the_same_weights_in_the_environment_of_its_lock(
    home: Home, train, again, tmp_path: Path, db
) -> None:
    folder = tmp_path / "repository" / "projects" / "tumor"
    shutil.copytree(TUMOR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "-q", str(folder.parents[1]))
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")
    run = train(folder, C=0.5)
    done = again(run.id)
    assert done.verdict is Verdict.IDENTICAL
    assert "this one, which is that of the lock" in done.environment
    assert {"data train", "result val_auc", "metric val_auc", "golden answers of predict_proba", "model weights",
            "result holdout", "evaluation holdout"} <= {item.what for item in done.compared}  # fmt: skip
    made = RunStore(db).get(done.reproductions[0])
    assert made.model_sha256 != run.model_sha256, "MLflow's files hold a time; that is why weights are compared"

    shutil.rmtree(home.files.model(run.model_sha256))
    done = again(run.id)
    assert "model weights" not in {item.what for item in done.compared}
    assert "are not in the store" in done.notes[0]


def test_answers_that_moved_are_said_by_how_far(project, train, again) -> None:
    more = (
        "import pandas as pd; ex.dataset('rows', pd.DataFrame({'x': [1.0, 2.0]})); "
        "ex.evaluation('rows', truth=[0, 1], prediction=[0.5, 0.75 + 1e-12 * os.getpid()], positive=1)"
    )
    done = again(train(project(script(more))).id)
    [answers] = [item for item in done.compared if item.what == "evaluation rows"]
    assert (done.verdict, answers.verdict) == (Verdict.WITHIN, Verdict.WITHIN)
    assert 0 < answers.deviation < 1e-6


def test_a_number_that_moved_a_little_is_within_tolerance(project, train, again, db) -> None:
    run = train(project(script()))
    db.runs.update_one({"_id": run.id}, {"$set": {"result.loss": run.result["loss"] * (1 + 1e-9)}})
    done = again(run.id)
    assert done.verdict is Verdict.WITHIN
    assert done.explanation is None
    [moved] = [item for item in done.compared if item.deviation]
    assert moved.what == "result loss"
    assert again(run.id, tolerance=1e-12).verdict is Verdict.DIFFERENT


def test_data_that_has_changed_is_named_with_its_rows(project, train, again, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    pd.DataFrame({"a": [1.0, 2.0, 3.0]}).to_csv(data, index=False)
    more = (
        f"import pandas as pd; data = ex.dataset('train', pd.read_csv({str(data)!r})); _run.log_scalar('n', len(data))"
    )
    run = train(project(script(more)))
    with data.open("a") as file:
        file.write("4.0\n")
    done = again(run.id)
    assert done.verdict is Verdict.DIFFERENT
    assert done.explanation is not None
    assert done.explanation.cause is Cause.DATA
    assert "(3 rows), and is" in done.explanation.because[0]
    assert "(4 rows)" in done.explanation.because[0]


def test_a_file_of_data_that_no_commit_has_is_brought_along_as_it_was(project, train, again) -> None:
    folder = project(script("_run.log_scalar('n', len(Path(ex.dataset('d', HERE / 'd.bin')).read_bytes()))"))
    (folder.parents[1] / ".gitignore").write_text("*.bin\n")
    git(folder, "add", "-A", "../..")
    git(folder, "commit", "-qm", "ignore data")
    (folder / "d.bin").write_bytes(b"\0" * 1000)
    run = train(folder)
    assert run.recorded["dirty"] is False
    (folder / "d.bin").write_bytes(b"\0" * 2000)
    assert again(run.id).verdict is Verdict.IDENTICAL, "the store has the file as it was"


def test_changes_and_new_files_that_were_never_committed_are_there_again(project, train, again, db) -> None:
    folder = project(script("import late; _run.log_scalar('late', late.VALUE)"), removed=b"x\n")
    (folder / "train.py").write_text(script("import late; _run.log_scalar('late', late.VALUE + 1)"))
    (folder / "late.py").write_text("VALUE = 41\n")
    (folder / "removed").unlink()
    run = train(folder)
    assert run.recorded["dirty"] is True
    git(folder, "stash", "--include-untracked")
    done = again(run.id)
    assert done.verdict is Verdict.IDENTICAL
    made = RunStore(db).get(done.reproductions[0])
    assert made.recorded["patch_sha256"] == run.recorded["patch_sha256"]


def test_a_file_that_could_not_be_kept_makes_the_code_the_cause(project, train, again) -> None:
    more = "_run.log_scalar('n', (HERE / 'w.bin').stat().st_size if (HERE / 'w.bin').exists() else 0)"
    folder = project(script(more))
    (folder / "w.bin").write_bytes(b"\0" * 10)
    run = train(folder)
    done = again(run.id)
    assert done.verdict is Verdict.DIFFERENT
    assert done.explanation is not None
    assert done.explanation.cause is Cause.CODE
    assert "projects/small/w.bin was there and in no commit" in done.explanation.because[0]
    assert len(done.reproductions) == 1


def test_a_program_that_is_not_deterministic_is_proven_so_by_a_second_run(project, train, again, db) -> None:
    run = train(project(script("_run.log_scalar('noise', float(int.from_bytes(os.urandom(4))))")))
    done = again(run.id)
    assert done.explanation is not None
    assert done.explanation.cause is Cause.NONDETERMINISM
    assert "metric noise" in done.explanation.because[0]
    assert len(done.reproductions) == 2
    assert db.runs.count_documents({"info.modelyard.reproduces": run.recorded["uuid"]}) == 2


def test_what_only_the_surroundings_explain_is_not_called_nondeterminism(
    project, train, again, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(script("_run.log_scalar('hidden', float(os.environ.get('SOMETHING', 0)))"))
    monkeypatch.setenv("SOMETHING", "1")
    run = train(folder)
    monkeypatch.delenv("SOMETHING")
    done = again(run.id)
    assert done.explanation is not None
    assert done.explanation.cause is Cause.ENVIRONMENT
    assert "are identical" in done.explanation.because[0]
    assert "environment variables" in done.explanation.because[1]


def test_a_run_that_failed_fails_again_in_the_same_way(project, train, again) -> None:
    done = again(train(project(script("1 / 0"))).id)
    assert done.verdict is Verdict.IDENTICAL
    assert done.compared[0].now == "FAILED: ZeroDivisionError: division by zero"


def test_a_reproduction_that_fails_says_where(project, train, again, tmp_path: Path) -> None:
    gone = tmp_path / "settings.txt"
    gone.write_text("x")
    run = train(project(script(f"Path({str(gone)!r}).read_text()")))
    gone.unlink()
    done = again(run.id)
    assert done.explanation is not None
    assert done.explanation.cause is Cause.ENVIRONMENT
    assert "FAILED: FileNotFoundError" in done.explanation.because[0]


def test_a_program_that_cannot_be_started_any_more_shows_its_last_words(
    project, train, again, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project("import os\nassert 'SOMETHING' in os.environ\n" + script())
    monkeypatch.setenv("SOMETHING", "1")
    run = train(folder)
    monkeypatch.delenv("SOMETHING")
    with pytest.raises(TrackingError, match=r"cannot be started again(?s:.*)AssertionError"):
        again(run.id)


def test_redacted_entries_are_asked_for_and_taken(project, train, again, db) -> None:
    text = script("_run.log_scalar('n', len(_config['db']['password']))").replace(
        "lr = 0.1", "lr = 0.1; db = {'password': 'hunter22'}"
    )
    run = train(project(text))
    with pytest.raises(Refused, match=r"yard reproduce 1 db\.password=@FILE"):
        again(run.id)
    with pytest.raises(Refused, match=r"lr was not redacted(?s:.*)yard train small lr="):
        again(run.id, given={"db.password": "hunter22", "lr": 2})
    assert again(run.id, given={"db.password": "hunter22"}).verdict is Verdict.IDENTICAL
    assert "hunter22" not in str(list(db.runs.find()))


def test_what_cannot_be_made_again_is_refused_in_a_sentence(project, train, again, db) -> None:
    folder = project(script())
    (folder / "train.py").write_text(script("_run.log_scalar('x', 1)"))
    run = train(folder)
    patch = next(entry["file_id"] for entry in run.raw["artifacts"] if entry["name"] == "changes.patch")

    def with_(message: str, **changes) -> None:
        db.runs.replace_one({"_id": run.id}, {**run.raw})
        db.runs.update_one({"_id": run.id}, {"$set": {k.replace("__", "."): v for k, v in changes.items()}})
        with pytest.raises(Refused, match=message):
            again(run.id)

    with_("is RUNNING", status="RUNNING")
    with_("was cut off", status="INTERRUPTED")
    with_("git -C .* fetch --all", info__modelyard__commit="0123456789" * 4)
    with_("outside a git repository", info__modelyard__commit=None)
    with_("a plain Sacred script", info={})
    with_("notebook", experiment__mainfile=None)
    with_("not inside its repository", info__modelyard__folder="../..")
    with_(r"\(changes.patch\) are gone", artifacts=[])
    with_("are not those it was made from", info__modelyard__patch_sha256="0" * 64)
    with_("The lock 0000", info__modelyard__lock_sha256="0" * 64)
    db.runs.replace_one({"_id": run.id}, {**run.raw})
    git(folder, "stash")
    (folder / "train.py").write_text("# all new\n")
    git(folder, "commit", "-qam", "y")
    with_("git cannot apply", info__modelyard__commit=git(folder, "rev-parse", "HEAD").strip())
    db.fs.chunks.delete_many({"files_id": patch})
    db.fs.files.delete_one({"_id": patch})
    with pytest.raises(NotFound, match="no run 99"):
        again(99)
    assert db.runs.count_documents({}) == 1, "nothing was run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_training_and_removes_the_worktree(project, train, again, db, number: int) -> None:
    run = train(project(script("import time; time.sleep(float(os.environ.get('SLOW', 0)))")))
    os.environ["SLOW"] = "60"

    def interrupt() -> None:
        ends = time.monotonic() + 60
        while time.monotonic() < ends and db.runs.count_documents({"status": "RUNNING"}) == 0:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            again(run.id)
    finally:
        thread.join()
        del os.environ["SLOW"]
    assert _eventually(lambda: db.runs.count_documents({"status": "INTERRUPTED"}) == 1)


def test_a_worktree_that_is_broken_is_removed_all_the_same(project) -> None:
    folder = project(script())
    commit = git(folder, "rev-parse", "HEAD").strip()
    with worktree(folder, commit, b"") as broken:
        shutil.rmtree(broken)
    with worktree(folder, commit, b"") as broken:
        (broken / ".git").write_text("nonsense")
    assert not broken.parent.exists()
    assert len(git(folder, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    "model",
    [make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier(n_estimators=3, random_state=1)],
    ids=["pipeline", "forest"],
)
def test_weights_of_two_equal_trainings_are_equal_and_of_two_others_are_not(tmp_path: Path, model) -> None:
    x = pd.DataFrame(np.random.default_rng(7).normal(size=(80, 3)), columns=list("abc"))

    def saved(name: str, y: "pd.Series[bool]") -> Path:
        (tmp_path / name).mkdir()
        write_model(tmp_path / name, model.fit(x, y), x.head(3), TRUSTED_TYPES)
        return tmp_path / name / "mlflow" / "model.skops"

    one, same, other = saved("one", x["a"] > 0), saved("same", x["a"] > 0), saved("other", x["b"] > 0)
    assert one.read_bytes() != same.read_bytes()
    assert deviation(read_weights(one), read_weights(same)) == 0
    assert deviation(read_weights(one), read_weights(other)) > 0


@pytest.mark.system
def test_the_environment_of_another_lock_is_made_again(project, again, home: Home, tmp_path: Path, db) -> None:
    """The project's result is the version of a package; its lock wants another one than is installed here."""
    import colorama
    import uv

    other = "0.4.5"
    assert colorama.__version__ != other
    folder = project(script("import colorama; _run.info['colorama'] = colorama.__version__").replace(
        "return {", "return {'version': colorama.__version__, "))  # fmt: skip
    lock = subprocess.run(
        [uv.find_uv_bin(), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-emit-index-url", "-"],
        input=f"colorama=={other}\n", capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    (folder / "requirements.lock").write_text(lock)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "lock")
    make = partial(make_training_environment, root=tmp_path / "environments")
    python = make(folder / "requirements.lock")
    env = {
        **os.environ, "YARD_MONGO_URL": home.mongo_url, "YARD_DATABASE": home.database,
        "YARD_ARTIFACTS": str(home.artifacts), "YARD_SPOOL": str(home.spool_root),
    }  # fmt: skip
    subprocess.run([python, "train.py"], cwd=folder, env=env, check=True, capture_output=True, timeout=120)
    assert f"{sys.prefix}" not in str(python)
    [run] = RunStore(db).latest()
    assert run.result["version"] == other
    done = again(run.id, make)
    assert done.verdict is Verdict.IDENTICAL
    assert "made from the lock" in done.environment
    assert RunStore(db).get(done.reproductions[0]).result["version"] == other


def _eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    ends = time.monotonic() + seconds
    while not holds() and time.monotonic() < ends:
        time.sleep(0.1)
    return holds()
