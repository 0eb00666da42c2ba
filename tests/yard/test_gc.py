"""yard gc, as a person types it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard_tracking.reproducing.worktree import leftover_worktrees
from modelyard_tracking.store import Home

YARD = str(Path(sys.executable).parent / "yard")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all: MLflow takes seconds to make it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def gc(home: Home, registry_uri: str, tmp_path: Path) -> Run:
    (tmp_path / "share").mkdir()
    env = {
        **os.environ,
        "YARD_HOME": str(tmp_path),
        "YARD_MONGO_URL": home.mongo_url,
        "YARD_DATABASE": home.database,
        "YARD_SPOOL": str(home.spool_root),
        "YARD_ARTIFACTS": str(home.artifacts),
        "YARD_REGISTRY_URI": registry_uri,
        "YARD_ARTIFACTS_URL": f"file://{tmp_path}/share",
    }

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        command = [YARD, "gc", *args]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


def aged(*places: Path) -> None:
    for place in places:
        for path in (place, *place.rglob("*")):
            os.utime(path, (0, 0), follow_symlinks=False)


@pytest.fixture
def kept(home: Home, db, tmp_path: Path) -> dict[str, str]:
    """Two locks from long ago, one of a run; a leftover; an environment and a bento of a build, and others of none."""
    digests = {}
    for name in ("used", "unused"):
        (tmp_path / "lock").write_text(name)
        digests[name] = home.files.keep_lock(tmp_path / "lock")
    db.runs.insert_one({"_id": 1, "info": {"modelyard": {"lock_sha256": digests["used"]}}})
    (home.artifacts / "incoming" / "left").write_bytes(b"x" * 100)
    for name in ("0a", "0b", "training-0c"):
        (tmp_path / "environments" / name).mkdir(parents=True)
    for name in ("1-a", "1-b"):
        (tmp_path / "bentoml" / "bentos" / "tumor" / name).mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    for name in ("tumor-1.json", "tumor-1-image.xml", "tumor-2.json"):
        (tmp_path / "reports" / name).write_text("{}")
    build = {
        "_id": "b" * 64,
        "ref": "tumor:1",
        "report": {},
        "environment": str(tmp_path / "environments" / "0a"),
        "bento_path": str(tmp_path / "bentoml" / "bentos" / "tumor" / "1-a"),
    }
    db.builds.insert_one(build)
    aged(*(tmp_path / name for name in ("artifacts", "environments", "bentoml", "reports")))
    return digests


def names(done: "subprocess.CompletedProcess[str]", *, goes: bool = True) -> set[str]:
    return {Path(entry["name"]).name for entry in json.loads(done.stdout)["found"] if entry["goes"] is goes}


GOING = {"left", "0b", "training-0c", "1-b", "tumor-2.json"}


def test_a_dry_run_says_what_would_go_and_why_and_removes_nothing(gc: Run, kept: dict[str, str]) -> None:
    for _ in range(2):
        done = gc("--dry-run", "--json")
        assert done.returncode == 0, done.stderr
        assert names(done) == GOING | {kept["unused"]}
        assert names(done, goes=False) == {"0a", "1-a", "tumor-1.json", "tumor-1-image.xml", kept["used"]}
        why = {Path(entry["name"]).name: entry["why"] for entry in json.loads(done.stdout)["found"]}
        assert why[kept["used"]] == "run 1 refers to it"
        assert why["0a"] == "build tumor:1 refers to it"
        assert json.loads(done.stdout)["freed_bytes"] == 0


def test_what_nothing_refers_to_is_removed_and_what_is_young_stays(gc: Run, kept: dict[str, str], home: Home) -> None:
    (home.artifacts / "incoming" / "just-now").write_bytes(b"x")
    done = gc("--yes")
    assert done.returncode == 0, done.stderr
    assert "6 things removed" in done.stderr
    assert names(gc("--json", "--dry-run")) == set()
    assert home.files.lock(kept["used"]).is_file()
    assert not home.files.lock(kept["unused"]).exists()
    assert (home.artifacts / "incoming" / "just-now").exists()


def test_nothing_goes_without_a_yes(gc: Run, kept: dict[str, str], home: Home) -> None:
    done = gc()
    assert done.returncode == 2
    assert "add --yes" in done.stderr
    assert home.files.lock(kept["unused"]).is_file()


def test_a_threshold_below_a_day_is_refused(gc: Run, kept: dict[str, str], home: Home) -> None:
    done = gc("--yes", "--older-than", "1h")
    assert done.returncode == 4
    assert "must be 1d or more" in done.stderr
    assert gc("--older-than", "soon").returncode == 2
    assert home.files.lock(kept["unused"]).is_file()


def test_a_store_that_another_database_uses_too_is_left_alone(gc: Run, kept: dict[str, str], home: Home) -> None:
    (home.artifacts / "owners" / "theirs-12345678").touch()
    done = gc("--yes")
    assert done.returncode == 0, done.stderr
    assert "also used by theirs-12345678" in done.stderr
    assert home.files.lock(kept["unused"]).is_file()


def test_a_worktree_that_a_killed_reproduction_left_goes(gc: Run, tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    left, own = tmp_path / "elsewhere" / "yard-1a2b" / "yard-1a2b", tmp_path / "elsewhere" / "mine"
    for folder in (left, own):
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(folder)], cwd=tmp_path, check=True)
    aged(left, own)
    with subprocess.Popen(["sleep", "60"], cwd=left) as worker:
        assert names(gc("--dry-run", "--json"), goes=False) == {"yard-1a2b"}
        worker.kill()
    assert gc("--yes").returncode == 0
    assert not left.parent.exists()
    assert own.is_dir()
    assert leftover_worktrees(tmp_path) == []
