"""Environments made from a run's own lock, by hash, and kept by digest: for serving a bento, and for training again."""

import fcntl
import hashlib
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path

import uv

from modelyard_build.errors import Refused, Unavailable
from modelyard_build.locks.wheelhouse import offline


def serving_wheel(folder: Path) -> Path:
    """The wheel of modelyard-serving as it is installed here, built into `folder`. Same source, same bytes.

    Raises:
        Unavailable: it was not installed from a source tree.
    """
    url = json.loads(distribution("modelyard-serving").read_text("direct_url.json") or "{}").get("url", "")
    source = Path(url.removeprefix("file://"))
    if not url.startswith("file://") or not (source / "pyproject.toml").is_file():
        raise Unavailable(
            "modelyard-serving is not installed from a source tree, so no wheel of it can be made: make setup"
        )
    _run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        "build the serving wheel",
        source,
    )
    [wheel] = folder.glob("modelyard_serving-*.whl")
    return wheel


def make_environment(lock: Path, wheel: Path, python: str, root: Path, wheelhouse: Path | None = None) -> Path:
    """The environment of `lock` plus `wheel`, below `root`; made once per content.

    It has no bytecode yet: what serves from it keeps that of what it imports in its folder `bytecode`.

    Args:
        lock: hashed requirements; installed as they are, nothing is resolved.
        python: version of the interpreter, such as 3.11.
        wheelhouse: a folder that holds every wheel of the lock, to be taken instead of any index.

    Raises:
        Refused: the lock lacks something that the runtime needs.
        Unavailable: a package or the interpreter could not be had.
    """

    def finish(folder: Path) -> None:
        _uv("pip", "install", *_into(folder), *options, "--no-deps", str(wheel))
        _check_complete(folder, lock)

    options = offline(wheelhouse) if wheelhouse else []

    name = hashlib.sha256(lock.read_bytes() + wheel.read_bytes() + python.encode()).hexdigest()[:16]
    return _made_once(root / name, lock, python, finish, options)


def make_training_environment(lock: Path, root: Path) -> Path:
    """The environment of `lock` with Modelyard and Sacred as they are installed here; gives its Python.

    What is installed here comes last on the path, so that of each package the locked version is the one in use.

    Raises:
        Unavailable: a package could not be had.
    """
    here = sysconfig.get_path("purelib")

    def finish(folder: Path) -> None:
        [packages] = folder.glob("lib/python*/site-packages")
        # `addsitedir` and not the bare path: Modelyard itself may be installed through a .pth file over there.
        (packages / "zz_modelyard.pth").write_text(f"import site; site.addsitedir({here!r})\n")

    name = hashlib.sha256(lock.read_bytes() + f"{here}\0{sys.version}".encode()).hexdigest()[:16]
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    made = _made_once(root / f"training-{name}", lock, python, finish, ("--compile-bytecode",))
    return made / "bin" / "python"


def _made_once(
    folder: Path, lock: Path, python: str, finish: Callable[[Path], None], options: Sequence[str] = ()
) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two at once make it once
        complete = folder / "complete"
        if not complete.exists():
            interpreter = sys.executable if f"{sys.version_info[0]}.{sys.version_info[1]}" == python else python
            _uv("venv", "--clear", "--quiet", "--python", interpreter, str(folder))
            _uv("pip", "install", *_into(folder), *options, "--require-hashes", "--requirements", str(lock))
            finish(folder)
        complete.touch()  # also one that is used again: it looks young to `yard gc`
    return folder


def _into(folder: Path) -> list[str]:
    return ["--python", str(folder / "bin" / "python"), "--quiet"]


def _check_complete(folder: Path, lock: Path) -> None:
    found = subprocess.run(
        [uv.find_uv_bin(), "pip", "check", "--python", str(folder / "bin" / "python")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if found.returncode:
        raise Refused(
            f"The lock {lock} does not hold all that the runtime needs:\n{found.stderr.strip()}\n"
            "Lock the project anew and train again:  yard lock PROJECT && yard train PROJECT"
        )


def _uv(*args: str) -> None:
    _run([uv.find_uv_bin(), *args], f"uv {' '.join(args[:2])}")


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=folder)
    if done.returncode:
        raise Unavailable(f"{what} failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
