"""Archive: one file that holds many, with an index of their digests; the same content is the same bytes.

A tar, sorted and without times or owners, in gzip. Its first member, `index.json`, says size and sha256 of every other
one; the sha256 of the index is the archive's digest. Unpacking checks everything and follows no name: what comes out
lies under numbers in a folder of the caller's.
"""

import gzip
import hashlib
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_tracking.digests import file_sha256, text_sha256
from modelyard_tracking.errors import Refused

INDEX = "index.json"
MAX_INDEX_BYTES = 64 * 2**20
_BLOCK = tarfile.BLOCKSIZE
MAX_TAIL_BYTES = 2**20  # of zeros behind the last member
_GZIP_HEADER = (
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # no name, no time; fast, since most of it is hard to compress
)

OnMember = Callable[[int, int], object]  # members done, of how many


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that was unpacked and whose every digest holds."""

    digest: str
    members: Mapping[str, Path]
    sha256: Mapping[str, str]  # of each member


def write_archive(target: Path, kind: str, members: Mapping[str, Path], on_member: OnMember = lambda *_: None) -> str:
    """Write files under names to `target`, in one step; gives the archive's digest.

    Args:
        kind: what is in there and in which version of the format; readers ask for it.
    """
    sizes = {name: path.stat().st_size for name, path in members.items()}
    facts = {name: {"sha256": file_sha256(path), "bytes": sizes[name]} for name, path in members.items()}
    index = json.dumps({"format": kind, "members": facts}, sort_keys=True, indent=1).encode()
    temporary = target.with_name(f".{target.name}.part")
    try:
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
        ):
            (path := temporary.with_suffix(".index")).write_bytes(index)
            try:
                _add(tar, INDEX, path, len(index))
            finally:
                path.unlink()
            for number, name in enumerate(sorted(members), 1):
                _add(tar, name, members[name], sizes[name])
                on_member(number, len(members))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return text_sha256(index)


def unpack_archive(file: Path, kind: str, into: Path, on_member: OnMember = lambda *_: None) -> Archive:
    """Unpack `file` below `into` and check all of it.

    Raises:
        Refused: it is no such archive, or is damaged, cut off or changed; nothing of it is to be used.
    """
    with file.open("rb") as raw:
        if raw.read(len(_GZIP_HEADER)) != _GZIP_HEADER:
            raise Refused(f"{file} is not a bundle of runs. Make one:  yard runs export RUN -o FILE")
        raw.seek(0)
        try:
            with gzip.GzipFile(fileobj=raw) as packed:
                return _unpack(packed, kind, into, on_member)
        except (Refused, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
            why = str(error) or "it ends too early"
            raise Refused(f"{file} is damaged or was changed: {why}. Nothing was imported; get it anew.") from error


def _unpack(packed: gzip.GzipFile, kind: str, into: Path, on_member: OnMember) -> Archive:
    size = _header(packed, INDEX)
    if size > MAX_INDEX_BYTES:
        raise Refused(f"its {INDEX} has {size} bytes")
    index = _exactly(packed, size)
    _exactly(packed, -size % _BLOCK)
    facts = _facts(index, kind)
    free = shutil.disk_usage(into).free
    if (needed := sum(fact["bytes"] for fact in facts.values())) > free:
        raise Refused(f"it says it holds {needed / 2**20:.0f} MB, and {free / 2**20:.0f} MB are free in {into.parent}")
    members: dict[str, Path] = {}
    for number, name in enumerate(sorted(facts), 1):
        size = facts[name]["bytes"]
        if _header(packed, name) != size:
            raise Refused(f"{name} has another size than its index says")
        members[name] = into / str(number)
        if _copy(packed, members[name], size) != facts[name]["sha256"]:
            raise Refused(f"{name} is not what its index says; its sha256 differs")
        _exactly(packed, -size % _BLOCK)
        on_member(number, len(facts))
    tail = packed.read(MAX_TAIL_BYTES + 1)  # to its end, where the checksum of all of it stands
    if tail.strip(b"\0") or len(tail) > MAX_TAIL_BYTES:
        raise Refused("it holds more than its index says")
    return Archive(text_sha256(index), members, {name: fact["sha256"] for name, fact in facts.items()})


def _header(packed: gzip.GzipFile, name: str) -> int:
    """The size of the next member, which must be the file `name`.

    Read here and not by `tarfile.open`, which follows extensions of the format and holds them in memory at any size.
    """
    info = tarfile.TarInfo.frombuf(_exactly(packed, _BLOCK), "utf-8", "strict")
    if info.name != name or info.type != tarfile.REGTYPE:
        raise Refused(f"where its index has {name}, it has {info.name!r}")
    return info.size


def _exactly(packed: gzip.GzipFile, size: int) -> bytes:
    content = packed.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _facts(index: bytes, kind: str) -> dict[str, dict[str, Any]]:
    """The index's entries, checked for their form."""
    try:
        read = json.loads(index)
        found, facts = read["format"], read["members"]
        sound = all(
            isinstance(fact["bytes"], int) and fact["bytes"] >= 0 and isinstance(fact["sha256"], str)
            for fact in facts.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"its {INDEX} cannot be read") from error
    if found != kind:
        raise Refused(f"its format is {found!r}, and this Modelyard reads {kind!r}")
    if not sound:
        raise Refused(f"its {INDEX} cannot be read")
    checked: dict[str, dict[str, Any]] = facts
    return checked


def _add(tar: tarfile.TarFile, name: str, path: Path, size: int) -> None:
    info = tarfile.TarInfo(name)  # time 0, no owner
    info.size, info.mode = size, 0o644
    with path.open("rb") as file:
        tar.addfile(info, file)


def _copy(packed: gzip.GzipFile, target: Path, size: int) -> str:
    digest = hashlib.sha256()
    with target.open("xb") as file:
        while size:
            block = _exactly(packed, min(size, 2**20))
            size -= len(block)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
