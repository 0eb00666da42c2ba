"""Leftovers: what builds keep on this disk, for `yard gc` to weigh: environments, bentos, reports."""

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from pymongo.database import Database

from modelyard_build.builds import report_names
from modelyard_tracking.storing.sweeper import Item, size_and_time


def items(home: Path) -> Iterator[Item]:
    """Everything that builds made below `home`; what a process runs from is live."""
    running = _paths_of_processes()
    for folder in sorted((home / "environments").glob("*/")):
        kind = "training environment" if folder.name.startswith("training-") else "environment"
        yield _item(home, kind, folder, running, partial(_remove_environment, folder))
    for folder in sorted((home / "bentoml" / "bentos").glob("*/*/")):
        yield _item(home, "bento", folder, running, partial(shutil.rmtree, folder))
    for file in sorted((home / "reports").glob("*")):
        yield _item(home, "report", file, running, file.unlink)


def wanted(db: "Database[dict[str, Any]]") -> Mapping[str, str]:
    """The path of everything here that a build or a deployment refers to, and which."""
    found = {}
    for name in ("builds", "deployments"):
        for document in db[name].find():
            by = f"{name.removesuffix('s')} {document.get('ref') or document['_id']}"
            for key in ("environment", "bento_path"):
                found[str(document.get(key))] = by
            if "report" in document:
                found |= dict.fromkeys(report_names(str(document["ref"])), by)
    return found


def _item(home: Path, kind: str, path: Path, running: set[str], remove: Any) -> Item:
    size, changed = size_and_time(path)
    live = next((f"a process runs from it: {used}" for used in sorted(running) if used.startswith(f"{path}/")), "")
    name = path.name if kind == "report" else str(path)
    return Item(str(home), kind, name, size, changed, live=live, remove=remove)


def _remove_environment(folder: Path) -> None:
    with folder.with_suffix(".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is being made
        (folder / "complete").unlink(missing_ok=True)
        shutil.rmtree(folder)


def _paths_of_processes() -> set[str]:
    found: set[str] = set()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        found |= {part for part in process.info["cmdline"] or () if part.startswith("/")}
        found.add(f"{process.info['cwd']}/")
    return found
