"""The zip that a skops file is, looked through before skops opens it: skops itself bounds nothing.

What it would unpack is known from the archive's directory, and Python's zipfile reads no member beyond the size that
stands there. Counted is what skops would hold in memory: a member once for each time that the schema names it.
"""

import io
import json
import stat
import zipfile
from collections import Counter

from modelyard_serving.errors import Refused

SCHEMA = "schema.json"
MAX_MEMBERS = 100_000
MAX_UNPACKED_BYTES = 4 * 2**30
MAX_SCHEMA_BYTES = 128 * 2**20
FREE_BYTES = 16 * 2**20  # a file that unpacks to no more than this may be packed as tightly as it likes
MAX_RATIO = 100  # skops does not compress; numbers that are, were seen at 2 to 10, a bomb is at 1000
_BLOCK = 2**20


def check(content: bytes) -> None:
    """Stop unless `content` is a zip of plain members, each whole, that together unpack to a bearable size.

    Raises:
        Refused: says which bound is broken, or which member is not plain.
    """
    with _opened(content) as archive:
        infos = archive.infolist()
        sizes = {info.filename: info.file_size for info in infos}
        if SCHEMA not in sizes:
            raise Refused(f"it has no {SCHEMA}, so skops did not write it")
        if sizes[SCHEMA] > MAX_SCHEMA_BYTES:
            raise Refused(f"its {SCHEMA} has {sizes[SCHEMA]} bytes; more than {MAX_SCHEMA_BYTES} are not read")
        _check_directory(infos, len(content))
        for info in infos:
            sizes[info.filename] += _inside(archive, info)
        named = _named_files(archive.read(SCHEMA))
    _check_size(sum(sizes[name] * max(1, named[name]) for name in sizes), len(content))


def _opened(content: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise Refused(f"it is no whole zip archive ({error})") from error


def _check_directory(infos: list[zipfile.ZipInfo], packed: int) -> None:
    if len(infos) > MAX_MEMBERS:
        raise Refused(f"it has {len(infos)} members; more than {MAX_MEMBERS} are not read")
    if len({info.filename for info in infos}) != len(infos):
        raise Refused("two of its members have the same name")
    for info in infos:
        name = info.filename
        if not name or name in (".", "..") or set(name) & set("/\\:\0") or stat.S_ISLNK(info.external_attr >> 16):
            raise Refused(f"its member {name!r} is no plain file of the archive")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"its member {name!r} is encrypted or packed in an unusual way")
    _check_size(sum(info.file_size for info in infos), packed)


def _check_size(unpacked: int, packed: int) -> None:
    if unpacked > MAX_UNPACKED_BYTES:
        raise Refused(f"it would unpack to {unpacked} bytes; more than {MAX_UNPACKED_BYTES} are not unpacked")
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * packed:
        raise Refused(f"its {packed} bytes would unpack to {unpacked}, which is more than {MAX_RATIO} to 1")


def _inside(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Read a member to its end, for its checksum; gives what it unpacks to if it is an archive itself, else 0."""
    with archive.open(info) as member:
        start = member.read(_BLOCK)
        if start.startswith(b"PK"):  # NumPy tells an .npz by its content, not by its name
            content = start + member.read()
            with _opened(content) as inner:
                _check_directory(inner.infolist(), len(content))
                return sum(each.file_size for each in inner.infolist())
        while member.read(_BLOCK):
            pass
    return 0


def _named_files(schema: bytes) -> Counter[str]:
    """How often the schema names each member."""
    named: Counter[str] = Counter()
    waiting = [json.loads(schema)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(file := node.get("file"), str):
                named[file] += 1
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return named
