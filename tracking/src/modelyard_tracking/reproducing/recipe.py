"""Recipe: what it takes to run a recorded run again, or what is missing for that."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bson import json_util

from modelyard_tracking.digests import text_sha256
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.origin import PATCH_ARTIFACT
from modelyard_tracking.runs import Run, RunStore

JSON = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What it takes to run a run again; all of it recorded, but for what was redacted."""

    commit: str
    folder: PurePosixPath  # below the repository's root
    file: str  # defines the experiment
    command: str
    config: Mapping[str, Any]


def recipe_of(run: Run, given: Mapping[str, Any]) -> Recipe:
    """What it takes to run `run` again.

    Raises:
        Refused: something of it was not recorded, or redacted and not given.
    """
    recorded, experiment = run.recorded, run.raw["experiment"]
    if run.status in ("RUNNING", "QUEUED"):
        raise Refused(
            f"Run {run.id} is {run.status}: there is nothing to compare with yet.\nLook at it:  yard show {run.id}"
        )
    if "commit" not in recorded:
        raise Refused(
            f"Run {run.id} is of a plain Sacred script, which records no commit to rely on, no lock and no data.\n"
            "Runs can be reproduced whose script says:  from modelyard import Experiment"
        )
    if run.status not in ("COMPLETED", "FAILED"):
        raise Refused(f"Run {run.id} is {run.status}: it was cut off, so there is no end to compare with.")
    if not recorded.get("commit"):
        raise Refused(
            f"Run {run.id} was made outside a git repository, or in one without a commit, so its code is not known.\n"
            "Commit the project, and train again:  git init && git add -A && git commit"
        )
    if not experiment.get("mainfile"):
        raise Refused(f"Run {run.id} was started in a notebook or at a prompt; there is no file to run again.")
    folder = PurePosixPath(recorded["folder"])
    file = PurePosixPath(experiment["mainfile"])
    if any(path.is_absolute() or ".." in path.parts for path in (folder, file)):
        raise Refused(f"Run {run.id} says that its program is {folder / file}, which is not inside its repository.")
    return Recipe(recorded["commit"], folder, str(file), run.raw["command"], _config(run, given))


def _config(run: Run, given: Mapping[str, Any]) -> Mapping[str, Any]:
    redacted = list(run.recorded.get("redacted") or ())
    if strange := sorted(given.keys() - set(redacted)):
        raise Refused(
            f"{', '.join(strange)} was not redacted in run {run.id}: a reproduction takes the recorded configuration.\n"
            f"To try another one, train:  yard train {run.experiment} {strange[0]}=..."
        )
    if missing := [name for name in redacted if name not in given]:
        raise Refused(
            f"Run {run.id} was stored without its secrets. Give them:\n"
            f"  yard reproduce {run.id} {' '.join(f'{name}=@FILE' for name in missing)}\n"
            "@FILE stands for the content of a file; a value can be given as it is, too."
        )
    config: dict[str, Any] = json_util.loads(json_util.dumps(run.config, json_options=JSON))
    for name, value in given.items():
        *path, last = name.split(".")
        place: Any = config
        for step in path:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[int(last) if isinstance(place, list) else last] = value
    return config


def patch_of(run: Run, store: RunStore) -> bytes:
    """What makes the commit into what ran; empty where nothing was changed.

    Raises:
        Refused: it is gone, or is not what was recorded.
    """
    digest = run.recorded.get("patch_sha256")
    if not digest:
        return b""
    try:
        patch = store.artifact(run, PATCH_ARTIFACT)
    except NotFound as error:
        raise Refused(
            f"Run {run.id} was made from changed code, and the changes ({PATCH_ARTIFACT}) are gone from the database."
        ) from error
    if text_sha256(patch) != digest:
        raise Refused(
            f"The changes ({PATCH_ARTIFACT}) of run {run.id} in the database are not those it was made from: "
            f"their sha256 is {text_sha256(patch)[:12]}, recorded is {digest[:12]}."
        )
    return patch
