"""Layers: files as a tar whose bytes depend on their names and contents alone, so that the same files give the same
layer, whenever and by whomever it is made."""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MTIME = 315532800  # 1980-01-01, the earliest that every archive can say
_UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552: bytecode that is used without a look at its source's time
_ONLY_FOR_DEVELOPERS = {".a", ".c", ".cpp", ".h", ".hpp", ".pxd", ".pyi", ".pyx", ".tp"}


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


Source = Path | bytes | Link


def write_layer(target: Path, files: Mapping[str, Source]) -> None:
    """Write `files`, by their path in the image, and their folders; everything belongs to root and is for all to read.

    What two packages both bring, such as a library, takes its place once.
    """
    seen: dict[tuple[bytes, int], str] = {}  # content and mode -> the first file of that kind
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for name, source in sorted(files.items()):
            if isinstance(source, Link):
                tar.addfile(_entry(name, tarfile.SYMTYPE, 0o777, source.target))
                continue
            content = source if isinstance(source, bytes) else source.read_bytes()
            mode = 0o755 if isinstance(source, Path) and source.stat().st_mode & 0o100 else 0o644
            same = seen.setdefault((hashlib.sha256(content).digest(), mode), name)
            if same != name and content:
                tar.addfile(_entry(name, tarfile.LNKTYPE, mode, same))
                continue
            entry = _entry(name, tarfile.REGTYPE, mode)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_layers(folder: Path, parts: Mapping[str, Mapping[str, Source]]) -> dict[str, Path]:
    """Write each part as a layer into a folder; gives the tars by their names, in the order of the parts."""
    layers = {f"{name}.tar": folder / f"{name}.tar" for name in parts}
    for layer, files in zip(layers.values(), parts.values(), strict=True):
        write_layer(layer, files)
    return layers


def folder_files(folder: Path, place: str) -> dict[str, Source]:
    """Everything in a folder, to lie at `place` in the image."""
    return {f"{place}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()}


def interpreter_files(place: str, interpreter: str) -> dict[str, Source]:
    """What makes `place` an environment of the image's own Python."""
    config = f"home = {PurePosixPath(interpreter).parent}\ninclude-system-site-packages = false\n"
    return {f"{place}/bin/python": Link(interpreter), f"{place}/pyvenv.cfg": config.encode()}


def environment_files(environment: Path, place: str, interpreter: str) -> dict[str, Source]:
    """An environment that was made here, to lie at `place` in an image that has the same version of Python.

    Without tests and what only developers need; with the bytecode of what was imported while it was checked, which
    is all that is imported when it serves.

    Args:
        interpreter: the image's own Python.
    """
    [packages] = environment.glob("lib/python*/site-packages")
    inside = f"{place}/{packages.relative_to(environment).as_posix()}"
    files = interpreter_files(place, interpreter)
    for file in packages.rglob("*"):
        name = file.relative_to(packages)
        left_out = {"__pycache__", "tests"} & set(name.parts) or file.suffix in _ONLY_FOR_DEVELOPERS
        if file.is_file() and not left_out:
            files[f"{inside}/{name.as_posix()}"] = file
    bytecode = environment / "bytecode" / packages.relative_to("/")
    for compiled, content in _portable(bytecode, packages):
        files[f"{inside}/{compiled}"] = content
    return files


def _portable(bytecode: Path, packages: Path) -> Iterator[tuple[str, bytes]]:
    """Bytecode that Python kept apart (PYTHONPYCACHEPREFIX), beside its source and no more bound to a time."""
    for compiled in bytecode.rglob("*.pyc"):
        folder = compiled.relative_to(bytecode).parent
        source = packages / folder / f"{compiled.name.partition('.')[0]}.py"
        content = compiled.read_bytes()
        if not source.is_file() or "tests" in folder.parts:
            continue
        size, text = int.from_bytes(content[12:16], "little"), source.read_bytes()
        time = int.from_bytes(content[8:12], "little")
        if content[4:8] != bytes(4) or size != len(text) or time != int(source.stat().st_mtime) & 0xFFFFFFFF:
            continue  # of another source
        header = content[:4] + _UNCHECKED_HASH + hashlib.sha256(text).digest()[:8]
        yield f"{(folder / '__pycache__' / compiled.name).as_posix()}", header + content[16:]


def _entry(name: str, kind: bytes, mode: int, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime, entry.linkname = kind, mode, _MTIME, target
    return entry
