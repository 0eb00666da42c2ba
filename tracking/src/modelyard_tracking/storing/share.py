"""Share: a store that several machines use, whole things at a time.

A model is several objects. Its `SHA256SUMS` is written last and removed first: where that lies, all of it does. What
comes from there is checked before it has a place on this disk, and no name in it is followed out of its folder.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from modelyard_tracking.digests import (
    INDEX,
    MAX_FILES,
    MAX_INDEX_BYTES,
    check_folder,
    file_sha256,
    read_index,
    text_sha256,
)
from modelyard_tracking.errors import NotFound, Refused, Unavailable
from modelyard_tracking.storing.disk import INCOMING, move_in, scratch
from modelyard_tracking.storing.frames import read_frame
from modelyard_tracking.storing.names import Kind, is_digest, name_of
from modelyard_tracking.storing.objects import Address, Objects

MAX_BYTES: dict[Kind, int] = {"model": 64 * 2**30, "frame": 64 * 2**30, "file": 2**30, "lock": 16 * 2**20}
REFRESHED_AFTER = timedelta(days=1)  # so that what is in use looks young to `yard gc`, which spares what is young
OWNERS = "owners"


@dataclass(frozen=True, slots=True)
class Share:
    """What lies at an address, by kind and digest."""

    address: Address

    @property
    def objects(self) -> Objects:
        return self.address.open()

    def put(self, kind: Kind, digest: str, source: Path) -> None:
        """Bring a model's folder, or a file, and see that it arrived. Doing it again costs a question per file.

        Raises:
            Refused: `source` is not what the digest was taken of.
            Unavailable: the store does not answer, refuses the login, or does not keep what it is given.
        """
        name = name_of(kind, digest)
        if kind != "model":
            self._put(name, source, lambda: _check_file(kind, digest, source))
            return
        check_folder(source, digest)
        for file in (*sorted(read_index((source / INDEX).read_bytes(), str(source))), INDEX):
            self._put(f"{name}/{file}", source / file)

    def fetch(self, kind: Kind, digest: str, place: Path, root: Path) -> bool:
        """Bring a thing to its place on this disk; False if the store does not have it.

        Raises:
            Refused: what lies there is not what the digest was taken of; nothing of it was used.
            Unavailable: the store does not answer, or there is no room here.
        """
        if not is_digest(digest):
            return False
        name = name_of(kind, digest)
        with scratch(root) as made:
            try:
                if kind == "model":
                    self._fetch_model(digest, name, made)
                else:
                    self._fetch_file(kind, digest, name, made)
            except NotFound:
                return False
            move_in(made, place)
        return True

    def remove(self, kind: Kind, digest: str) -> None:
        """Remove a thing; what is cut off in the middle is no model any more."""
        name = name_of(kind, digest)
        if kind != "model":
            self.objects.remove(name)
            return
        self.objects.remove(f"{name}/{INDEX}")
        for stored in list(self.objects.list(f"{name}/")):
            self.objects.remove(stored.name)

    def probe(self) -> None:
        """Write, read and remove a few bytes.

        Raises:
            Unavailable: one of these cannot be done.
        """
        name = f"{INCOMING}/probe-{secrets.token_hex(8)}"
        with tempfile.TemporaryDirectory() as folder:
            sent, back = Path(folder, "sent"), Path(folder, "back")
            sent.write_bytes(secrets.token_bytes(64))
            self.objects.put(name, sent)
            try:
                self.objects.get(name, back, 64)
            finally:
                self.objects.remove(name)
            if sent.read_bytes() != back.read_bytes():
                raise Unavailable(f"The shared store {self.address} does not give back what it was given.")

    def own(self, owner: str, root: Path) -> None:
        """Leave the name of a database whose runs refer to what lies here."""
        name = f"{OWNERS}/{owner}"
        if self.objects.find(name) is None:
            with scratch(root) as made:
                made.write_text(f"{owner}\n")
                self.objects.put(name, made)

    def _put(self, name: str, source: Path, check: Callable[[], object] = lambda: None) -> None:
        found = self.objects.find(name)
        fresh = found is not None and datetime.now(UTC) - found.modified_at < REFRESHED_AFTER
        if not (fresh and self.objects.holds(name, source)):
            check()
            self.objects.put(name, source)

    def _fetch_model(self, digest: str, name: str, made: Path) -> None:
        made.mkdir()
        what = f"model {digest[:12]} in {self.address}"
        self.objects.get(f"{name}/{INDEX}", made / INDEX, MAX_INDEX_BYTES)
        content = (made / INDEX).read_bytes()
        if text_sha256(content) != digest:
            raise _tampered(what, INDEX)
        files = read_index(content, what)
        listed = islice(self.objects.list(f"{name}/"), 2 * MAX_FILES)
        sizes = {stored.name.removeprefix(f"{name}/"): stored.bytes for stored in listed}
        missing = sorted(files.keys() - sizes.keys())
        if missing:
            raise Refused(f"The {what} lacks {', '.join(missing[:3])}. Nothing of it was used.\n{_MEND}")
        _check_room(sum(sizes[file] for file in files), MAX_BYTES["model"], what, made)
        for file, sha256 in files.items():
            target = made / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.objects.get(f"{name}/{file}", target, sizes[file]) != sha256:
                raise _tampered(what, file)

    def _fetch_file(self, kind: Kind, digest: str, name: str, made: Path) -> None:
        what = f"{kind} {digest[:12]} in {self.address}"
        found = self.objects.find(name)
        if found is None:
            raise NotFound(f"There is no {what}.")
        _check_room(found.bytes, MAX_BYTES[kind], what, made.parent)
        sha256 = self.objects.get(name, made, found.bytes)
        if kind == "frame":
            try:
                read_frame(made, digest)
            except Refused as error:
                raise _tampered(what, "its content") from error
        elif sha256 != digest:
            raise _tampered(what, "its content")


_MEND = "Bring it again from a machine that has it:  yard request RUN      or train again."


def _check_file(kind: Kind, digest: str, source: Path) -> None:
    if kind == "frame":
        read_frame(source, digest)
    elif file_sha256(source) != digest:
        raise Refused(f"{source} does not hold what it is named for, so it is not shared.")


def _tampered(what: str, part: str) -> Refused:
    return Refused(f"The {what} was changed: {part} is not what was recorded. Nothing of it was used.\n{_MEND}")


def _check_room(needed: int, limit: int, what: str, here: Path) -> None:
    if needed > limit:
        raise Refused(f"The {what} has {needed} bytes; {limit} are the most. Nothing of it was used.")
    free = shutil.disk_usage(here).free
    if needed > free:
        raise Unavailable(f"The {what} has {needed} bytes, and {here} has room for {free}. Free some space.")
