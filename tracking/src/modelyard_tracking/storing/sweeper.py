"""Sweeper: everything that lies in the stores, what is referred to, and what may therefore go.

The decision is pure (`judge`). Two things make it safe beside trainings and uploads: what is young is spared, since a
run may be about to refer to it; and references are read after the stores were listed, so that nothing new is missed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pymongo.database import Database

from modelyard_tracking.digests import INDEX
from modelyard_tracking.errors import Refused
from modelyard_tracking.recording.spool import EVENTS
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.storing import disk
from modelyard_tracking.storing.names import kind_and_digest
from modelyard_tracking.storing.objects import Stored
from modelyard_tracking.storing.share import OWNERS, Share

LEAST_AGE = timedelta(
    days=1
)  # what a run keeps is in its document within seconds; trainings without MongoDB take longer

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Item:
    """Something that takes room, and can be removed as a whole."""

    where: str  # a folder of this machine, or the shared store's URL
    kind: str  # model, frame, file, lock; leftover: what a crash left; and what other modules add
    name: str  # the digest, or what it is called in its place
    bytes: int
    modified_at: datetime
    leftover: str = ""  # why it is of no use to anybody, whatever refers to it
    live: str = ""  # why it is in use, whatever its age
    remove: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an item, and why."""

    item: Item
    goes: bool
    why: str


def judge(items: Iterable[Item], wanted: Mapping[str, str], now: datetime, older_than: timedelta) -> list[Verdict]:
    """Decide on each item.

    Args:
        wanted: what is referred to, by name, and by whom.

    Raises:
        Refused: `older_than` is so short that a training could lose what it has just kept.
    """
    if older_than < LEAST_AGE:
        raise Refused(
            f"--older-than must be {LEAST_AGE.days}d or more: a run that has just kept a file may not refer to it yet."
        )
    verdicts = []
    for item in items:
        age = now - item.modified_at
        if item.live:
            verdicts.append(Verdict(item, goes=False, why=item.live))
        elif not item.leftover and item.name in wanted:
            verdicts.append(Verdict(item, goes=False, why=f"{wanted[item.name]} refers to it"))
        elif age < older_than:
            verdicts.append(Verdict(item, goes=False, why=f"only {max(age.days, 0)} days old"))
        else:
            verdicts.append(Verdict(item, goes=True, why=item.leftover or "nothing refers to it"))
    return verdicts


def reachable(db: "Database[dict[str, Any]]", versions: Iterable[ModelVersion], spools: Path) -> dict[str, str]:
    """Every digest that something refers to, and what does.

    Any text of 64 hexadecimal digits counts, wherever in a document it stands: a field that is added later must not
    cost anybody a model.

    Args:
        spools: runs that are not in MongoDB yet, of any database.
    """
    wanted: dict[str, str] = {}
    for file in spools.glob(f"*/*/{EVENTS}"):
        for digest in _digests_of_file(file):
            wanted.setdefault(digest, f"run {file.parent.name}, in the spool,")
    for document in db.runs.find({}, {"info.modelyard": 1}):
        for digest in _digests_in(document):
            wanted.setdefault(digest, f"run {document['_id']}")
    for name in ("builds", "approvals", "deployments"):
        for document in db[name].find():
            for digest in _digests_in(document):
                wanted[digest] = f"{name.removesuffix('s')} {document.get('ref') or document['_id']}"
    for version in versions:
        for digest in (*_digests_in(dict(version.tags)), version.model_sha256):
            wanted[digest] = f"version {version.ref}"
    for document in db.sweeps.find({}, {"_id": 1}):
        wanted[f"sweep {document['_id']}"] = f"sweep {document['_id']}"
    return wanted


def other_owners(names: Iterable[str], owner: str) -> list[str]:
    """The databases whose runs refer to a store, without this one."""
    return sorted(set(names) - {owner})


def owners_here(root: Path) -> list[str]:
    return [path.name for path in (root / OWNERS).glob("*")]


def owners_there(share: Share) -> list[str]:
    return [stored.name.removeprefix(f"{OWNERS}/") for stored in share.objects.list(f"{OWNERS}/")]


def items_here(root: Path) -> Iterator[Item]:
    """Everything in the store on this disk."""
    for path in sorted(path for place in ("models", "data", "locks") for path in (root / place).glob("*")):
        name = path.relative_to(root).as_posix()
        found = kind_and_digest(name)
        if found is None:
            yield _item_here(root, "leftover", name, path, "not named by a digest")
        else:
            whole = found[0] != "model" or (path / INDEX).is_file()
            yield _item_here(root, *found, path, "" if whole else f"a model without its {INDEX}")
    for path in sorted((root / disk.INCOMING).glob("*")):
        yield _item_here(root, "leftover", f"{disk.INCOMING}/{path.name}", path, "a process died while it wrote")
    for path in sorted((root / "sweeps").glob("*")):
        yield _item_here(root, "checkpoints", f"sweep {path.name}", path)


def items_there(share: Share) -> Iterator[Item]:
    """Everything of ours in a shared store; what else lies in its bucket or folder is not looked at."""
    where, objects = share.address.url, share.objects
    models: dict[str, list[Stored]] = {}
    for place in ("models/", "data/", "locks/"):
        for stored in objects.list(place):
            found = kind_and_digest(stored.name)
            if found is None:
                continue
            kind, digest = found
            if kind == "model":
                models.setdefault(digest, []).append(stored)
            else:
                yield Item(
                    where, kind, digest, stored.bytes, stored.modified_at, remove=partial(share.remove, kind, digest)
                )
    for digest, files in models.items():
        whole = any(stored.name == f"models/{digest}/{INDEX}" for stored in files)
        yield Item(
            where,
            "model",
            digest,
            sum(stored.bytes for stored in files),
            max(stored.modified_at for stored in files),
            "" if whole else f"a model without its {INDEX}",
            remove=partial(share.remove, "model", digest),
        )
    for stored in objects.list(f"{disk.INCOMING}/"):
        yield Item(
            where, "leftover", stored.name, stored.bytes, stored.modified_at, "what a probe left",
            remove=partial(objects.remove, stored.name),
        )  # fmt: skip
    for stored in objects.unfinished():
        if stored.name.startswith(f"{disk.INCOMING}/") or kind_and_digest(stored.name) is not None:
            yield Item(
                where, "leftover", stored.name, stored.bytes, stored.modified_at, "an upload that was not finished",
                remove=partial(objects.abort, stored),
            )  # fmt: skip


def size_and_time(path: Path) -> tuple[int, datetime]:
    """Bytes below a path, and when something there changed last."""
    parts = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    total, newest = 0, 0.0
    for part in parts:
        try:
            status = part.lstat()
        except FileNotFoundError:  # it goes while we look
            continue
        total += status.st_size if not part.is_dir() or part.is_symlink() else 0
        newest = max(newest, status.st_mtime)
    return total, datetime.fromtimestamp(newest, UTC)


def _item_here(root: Path, kind: str, name: str, path: Path, leftover: str = "") -> Item:
    size, changed = size_and_time(path)
    return Item(str(root), kind, name, size, changed, leftover, remove=partial(disk.remove, path, root))


def _digests_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _DIGEST.findall(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _digests_in(key)
            yield from _digests_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _digests_in(inner)


def _digests_of_file(file: Path) -> set[str]:
    found: set[str] = set()
    try:
        with file.open("rb") as content:
            kept = b""
            while block := content.read(2**20):
                found |= {match.decode() for match in re.findall(rb"[0-9a-f]{64}", kept + block)}
                kept = block[-63:]
    except FileNotFoundError:  # it was uploaded while we looked; the run is in MongoDB then, which is read afterwards
        pass
    return found
