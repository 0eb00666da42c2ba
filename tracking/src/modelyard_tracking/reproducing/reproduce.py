"""Reproduce: a recorded run once more, from its commit, changes, lock and configuration; then both are compared.

The reproduction is itself a recorded run; its `info.modelyard.reproduces` is the name (uuid) of the first one. Where
the two differ and their records do not tell why, a second reproduction does: two that differ from each other prove
that the program is not deterministic.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from bson import json_util

from modelyard_tracking import origin
from modelyard_tracking.digests import file_sha256
from modelyard_tracking.errors import Refused, TrackingError, Unavailable
from modelyard_tracking.project import LOCK
from modelyard_tracking.recording.spool import RunFolder
from modelyard_tracking.reproducing.deviation import (
    Compared,
    Explanation,
    Verdict,
    compare,
    explain,
    overall,
    tell_apart,
)
from modelyard_tracking.reproducing.outcome import read_outcome
from modelyard_tracking.reproducing.recipe import JSON, Recipe, patch_of, recipe_of
from modelyard_tracking.reproducing.worktree import worktree
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.store import ArtifactStore, Home

TOLERANCE = 1e-6  # relative
ARRIVAL_S = 60.0  # how long a reproduction that is over may take to reach MongoDB

MakeEnvironment = Callable[[Path], Path]  # a lock becomes an environment; gives its Python
Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What became of it."""

    run: int
    reproductions: tuple[int, ...]  # one run; two, where the second was needed to name the cause
    verdict: Verdict
    explanation: Explanation | None  # of a verdict "different"
    environment: str
    tolerance: float
    compared: tuple[Compared, ...]
    notes: tuple[str, ...]


def reproduce(
    home: Home,
    run_id: int,
    repository: Path,
    make_environment: MakeEnvironment,
    *,
    given: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    say: Say = lambda _: None,
) -> Reproduction:
    """Run a recorded run again, and compare.

    Args:
        repository: a folder inside the repository that knows the run's commit; it is only read.
        make_environment: used where this environment is not the one of the run's lock.
        given: values of the configuration entries that were redacted, by dotted name.
        tolerance: relative; see `deviation`.

    Raises:
        NotFound: there is no such run, or a part of it is gone.
        Refused: what was recorded does not suffice; the text says what is missing and what to do.
        TrackingError: the program cannot be started any more; the text has its last words.
    """
    with home.connected() as db:
        store = RunStore(db)
        run = store.get(run_id)
        recipe = recipe_of(run, given or {})
        if not origin.has_commit(repository, recipe.commit):
            raise Refused(
                f"Run {run.id} was made from commit {recipe.commit[:12]} of {run.recorded.get('repository')}, "
                f"which is not in the repository around {repository}.\nFetch it:  git -C {repository} fetch --all"
            )
        patch = patch_of(run, store)
        model = run.model_sha256 is None or home.files.model(run.model_sha256).is_dir()
        read = partial(read_outcome, store, home.files, model=model)
        old = read(run)
        again = partial(_again, home, store, run, recipe, repository, patch, make_environment, say)
        first, environment = again()
        new = read(first)
        compared = compare(old, new, tolerance)
        ids: tuple[int, ...] = (first.id,)
        verdict, explanation = overall(compared), None
        if verdict is Verdict.DIFFERENT and (explanation := explain(old, new)) is None:
            say("it differs, and its records do not say why: running it a second time")
            second, _ = again()
            explanation, ids = tell_apart(old, new, read(second)), (first.id, second.id)
    gone = f"The files of the model of run {run.id} are not in the store, so weights and golden rows were not compared."
    return Reproduction(run.id, ids, verdict, explanation, environment, tolerance, compared, () if model else (gone,))


def _again(
    home: Home,
    store: RunStore,
    run: Run,
    recipe: Recipe,
    repository: Path,
    patch: bytes,
    make_environment: MakeEnvironment,
    say: Say,
) -> tuple[Run, str]:
    """One reproduction, in a worktree of its own; gives its run, and a word on the environment."""
    say(f"checking out {recipe.commit[:12]}{' with its changes' if patch else ''}")
    with worktree(repository, recipe.commit, patch) as root:
        folder = root / recipe.folder
        python, environment = _environment(home.files, run, folder, make_environment, say)
        _bring_data(home.files, run, root)
        order = {
            "folder": str(folder),
            "file": recipe.file,
            "command": recipe.command,
            "config": recipe.config,
            "home": home.to_json(),
            "reproduces": run.recorded["uuid"],
            "trial": run.is_trial,
        }
        took = f" (run {run.id} took {run.duration_s:.0f} s)" if run.duration_s else ""
        say(f"running it{took}")
        name = _execute(python, folder, json_util.dumps(order, json_options=JSON).encode())
    return _arrived(home, store, name), environment


def _environment(files: ArtifactStore, run: Run, folder: Path, make: MakeEnvironment, say: Say) -> tuple[str, str]:
    """The Python to run with, and what it is."""
    digest = run.recorded.get("lock_sha256")
    if not digest:
        return sys.executable, "this one; the run recorded no lock"
    lock = folder / LOCK
    if not lock.is_file() or file_sha256(lock) != digest:
        kept = files.lock(digest)
        if not kept.is_file() or file_sha256(kept) != digest:
            raise Refused(
                f"The lock {digest[:12]} of run {run.id} is neither in {kept.parent} nor in its commit, "
                "so its environment cannot be made again."
            )
        shutil.copyfile(kept, lock)
    if run.recorded.get("python") != origin.python_version():
        raise Refused(
            f"Run {run.id} was made with Python {run.recorded.get('python')}; this is {origin.python_version()}.\n"
            f"Reproduce it from an installation with that Python:  make setup PYTHON=python{run.recorded.get('python')}"
        )
    try:
        origin.check_environment(lock)
    except Refused:
        say(f"making the environment of the lock {digest[:12]}")
        return str(make(lock)), f"made from the lock {digest[:12]}"
    return sys.executable, f"this one, which is that of the lock {digest[:12]}"


def _bring_data(files: ArtifactStore, run: Run, root: Path) -> None:
    """Files of data that lay in the repository's folder and in no commit, to their place in the worktree."""
    base = Path(run.raw["experiment"].get("base_dir") or "/nowhere")
    before = (
        base.parents[len(PurePosixPath(run.recorded["folder"]).parts) - 1] if run.recorded["folder"] != "." else base
    )
    for facts in (run.recorded.get("datasets") or {}).values():
        path = Path(facts.get("path") or "/nowhere")
        if not path.is_relative_to(before) or ".." in path.parts or (place := root / path.relative_to(before)).exists():
            continue
        source = next((file for file in (files.data_file(facts["sha256"]), path) if file.is_file()), None)
        if source is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def _execute(python: str, folder: Path, order: bytes) -> str:
    """Run it in a process of its own; gives the run's number, or its uuid where it has no number yet."""
    with tempfile.TemporaryDirectory() as scratch:
        answer, output = Path(scratch, "answer"), Path(scratch, "output")
        command = [python, "-P", "-m", "modelyard_tracking.reproducing.rerun", str(answer)]
        with (
            output.open("wb") as out,
            # A session of its own: Ctrl-C reaches it once, from here, and it can end its run in peace.
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=folder, start_new_session=True
            ) as process,
        ):
            try:
                process.communicate(order)
            except BaseException:
                _end(process)
                raise
        if not answer.exists():
            last = output.read_text(errors="replace").strip()[-2000:]
            raise TrackingError(f"The run's program cannot be started again. It says:\n{last}")
        return answer.read_text()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _arrived(home: Home, store: RunStore, name: str) -> Run:
    """The reproduction as MongoDB has it, once all of it is there."""
    by = {"_id": int(name)} if name.isdigit() else {"info.modelyard.uuid": name}
    ends = time.monotonic() + ARRIVAL_S
    while time.monotonic() < ends:
        found = store.db.runs.find_one(by, {"info.modelyard.uuid": 1})
        if found and not RunFolder(home.spool / found["info"]["modelyard"]["uuid"]).exists:
            return store.get(found["_id"])
        time.sleep(0.1)
    raise Unavailable(
        f"The reproduction is over, but not all of it is in MongoDB yet (run {name}).\nBring it up:  yard runs push"
    )
