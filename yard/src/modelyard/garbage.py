"""Garbage: what nothing refers to any more, in the stores, among builds and worktrees; and its removal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from modelyard_build import leftovers
from modelyard_tracking.errors import TrackingError
from modelyard_tracking.reproducing.worktree import leftover_worktrees, remove_worktree
from modelyard_tracking.storing import sweeper
from modelyard_tracking.storing.sweeper import Item, Verdict

if TYPE_CHECKING:
    from modelyard.yard import Yard


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was found."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]  # what was not looked at, and why

    @property
    def going(self) -> list[Item]:
        return [verdict.item for verdict in self.verdicts if verdict.goes]


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed."""

    removed: tuple[Item, ...]
    failed: tuple[tuple[Item, str], ...]

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.removed)


def find_garbage(yard: "Yard", older_than: timedelta, now: datetime | None = None) -> Garbage:
    """Look at everything, and decide; nothing is removed.

    Raises:
        Refused: `older_than` is too short.
        Unavailable: MongoDB or the shared store does not answer, so nobody knows what is referred to.
    """
    settings, notes = yard.settings, []
    items = [*leftovers.items(settings.home), *_worktrees(settings.root)]
    files = settings.tracking_home.files
    others = sweeper.other_owners(sweeper.owners_here(files.root), files.owner)
    if others:
        notes.append(_not_ours(str(files.root), others))
    else:
        items += sweeper.items_here(files.root)
    if files.share is not None:
        others = sweeper.other_owners(sweeper.owners_there(files.share), files.owner)
        if others:
            notes.append(_not_ours(str(files.share.address), others))
        else:
            items += sweeper.items_there(files.share)
    wanted = {
        **sweeper.reachable(yard.db, yard.registry.versions(), settings.spool),
        **leftovers.wanted(yard.db),
    }
    return Garbage(tuple(sweeper.judge(items, wanted, now or datetime.now(UTC), older_than)), tuple(notes))


def sweep(items: Sequence[Item], on_item: Callable[[Item], object] = lambda _: None) -> Swept:
    """Remove them; what cannot be removed is told, and keeps none of the others."""
    removed, failed = [], []
    for item in items:
        on_item(item)
        try:
            item.remove()
            removed.append(item)
        except (OSError, TrackingError) as error:
            failed.append((item, str(error).partition("\n")[0]))
    return Swept(tuple(removed), tuple(failed))


def _worktrees(root: Path) -> Iterator[Item]:
    used = {str(process.info["cwd"]) for process in psutil.process_iter(["cwd"])}
    for folder in leftover_worktrees(root):
        size, changed = sweeper.size_and_time(folder) if folder.exists() else (0, datetime.fromtimestamp(0, UTC))
        live = "a process works in it" if any(Path(cwd).is_relative_to(folder) for cwd in used) else ""
        remove = partial(remove_worktree, root, folder)
        yield Item(str(root), "worktree", str(folder), size, changed, "a reproduction that was killed", live, remove)


def _not_ours(place: str, others: Sequence[str]) -> str:
    return (
        f"{place} is also used by {', '.join(others)}, whose runs are in another database, so nothing there is judged. "
        "If such a database is gone, remove its name from owners/ there."
    )
