"""Ledger: who asked for what, who said yes, and what was put into use, in one chain that can only grow.

Each entry holds the hash of the one before, and its number is its key in MongoDB: two writers at once cannot both have
the same number, so the chain never forks, and one who decided on an older state decides again. Entries are facts by
digest; what they lead to (which version is approved, where an alias points, what is live) is read from them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from pymongo import WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from modelyard_tracking.digests import text_sha256
from modelyard_tracking.errors import Unavailable

KINDS = (
    "request", "approve", "reject", "withdraw", "promote", "build", "push", "deploy", "split", "shadow", "rollback",
    "retire",
)  # fmt: skip
START = "0" * 64  # what the first entry names as the one before
TRIES = 200  # against other writers


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of the chain at some time: whoever knows it finds out if the chain before it is changed."""

    number: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done."""

    number: int  # from 1, without gaps
    at: datetime  # to the millisecond; never before the entry before it
    kind: str
    subject: str  # a version (tumor:3), an alias (tumor@champion) or an endpoint (tumor)
    by: str
    reason: str
    facts: Mapping[str, Any]  # plain values
    previous: str  # the sha256 of the entry before
    sha256: str

    @property
    def head(self) -> Head:
        return Head(self.number, self.sha256)

    @property
    def is_intact(self) -> bool:
        return self.sha256 == _sha256(_document(self))


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in the chain; without faults it is as it was written."""

    entries: int
    head: Head | None
    faults: tuple[str, ...]


class Stands(Exception):
    """Raised by a decision: what was to be entered holds already."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Reads and extends the collection `ledger`."""

    db: "Database[dict[str, Any]]" = field(repr=False)

    @property
    def _entries(self) -> "Collection[dict[str, Any]]":
        return self.db.ledger.with_options(write_concern=WriteConcern(w="majority", j=True))

    def append(
        self, kind: str, subject: str, by: str, decide: Callable[[], Mapping[str, Any]], reason: str = ""
    ) -> Entry:
        """Add an entry.

        Args:
            decide: gives the entry's facts from what it reads; may refuse, or raise Stands. It is called again when
                another writer was first, so what it has read still holds when the entry is there.

        Raises:
            Unavailable: others wrote all the time.
        """
        for _ in range(TRIES):
            last = self.last()
            entry = _next(last, kind, subject, by, reason, decide())
            try:
                self._entries.insert_one({"_id": entry.number, **_document(entry), "sha256": entry.sha256})
            except DuplicateKeyError:
                continue
            return entry
        raise Unavailable(f"The ledger is written to by others all the time; {kind} of {subject} was not. Try again.")

    def last(self, *kinds: str, subject: str | None = None, until: datetime | None = None) -> Entry | None:
        """The newest entry, of these kinds and of this subject, at a time."""
        return next(self.entries(kinds, subject, until, newest_first=True, limit=1), None)

    def entries(
        self,
        kinds: Iterable[str] = (),
        subject: str | None = None,
        until: datetime | None = None,
        *,
        newest_first: bool = False,
        limit: int = 0,
    ) -> Iterator[Entry]:
        """Entries in their order; all of them by default.

        Args:
            until: none after this time.
        """
        query: dict[str, Any] = {"subject": subject} if subject is not None else {}
        if kinds := tuple(kinds):
            query["kind"] = {"$in": list(kinds)}
        if until is not None:
            query["at"] = {"$lte": until}
        found = self._entries.find(query).sort("_id", -1 if newest_first else 1).limit(limit)
        return (_entry(document) for document in found)

    def verify(self, known: Mapping[str, Head] | None = None) -> Verification:
        """Compute every hash anew.

        Args:
            known: heads that were noted elsewhere, by the place: a chain that was cut off or written anew differs.
        """
        faults: list[str] = []
        hashes: dict[int, str] = {}
        previous = Head(0, START)
        for entry in self.entries():
            if entry.number != previous.number + 1:
                faults.append(f"between entry {previous.number} and entry {entry.number} entries are missing")
            elif entry.previous != previous.sha256:
                faults.append(f"entry {entry.number} does not follow on entry {previous.number}: one was replaced")
            if not entry.is_intact:
                faults.append(f"entry {entry.number}, {entry.kind} of {entry.subject}, was changed")
            previous = entry.head
            hashes[entry.number] = entry.sha256
        for place, head in (known or {}).items():
            if head.number > previous.number:
                faults.append(f"{place} knows entry {head.number}, and the chain ends at entry {previous.number}")
            elif hashes.get(head.number) != head.sha256:
                faults.append(f"{place} knows another entry {head.number} than the chain has")
        return Verification(len(hashes), previous if hashes else None, tuple(faults))


def head_of(text: str) -> Head | None:
    """What `str(head)` wrote, if it did."""
    number, _, sha256 = text.strip().partition(":")
    return Head(int(number), sha256) if number.isdigit() and len(sha256) == 64 else None


def _next(last: Entry | None, kind: str, subject: str, by: str, reason: str, facts: Mapping[str, Any]) -> Entry:
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # MongoDB keeps no more
    at = max(now, last.at) if last is not None else now
    number, previous = (last.number + 1, last.sha256) if last is not None else (1, START)
    plain = orjson.loads(orjson.dumps(dict(facts)))  # as it will be read back
    entry = Entry(number, at, kind, subject, by, reason, plain, previous, "")
    return Entry(number, at, kind, subject, by, reason, plain, previous, _sha256(_document(entry)))


def _document(entry: Entry) -> dict[str, Any]:
    names = ("at", "kind", "subject", "by", "reason", "previous")
    return {name: getattr(entry, name) for name in names} | {"facts": dict(entry.facts), "number": entry.number}


def _sha256(document: Mapping[str, Any]) -> str:
    at = document["at"].astimezone(UTC).isoformat(timespec="milliseconds")
    return text_sha256(orjson.dumps({**document, "at": at}, option=orjson.OPT_SORT_KEYS))


def _entry(document: Mapping[str, Any]) -> Entry:
    fields = {name: document.get(name) for name in Entry.__dataclass_fields__}
    return Entry(**{**fields, "number": document["_id"]})  # the key, whatever the field beside it says
