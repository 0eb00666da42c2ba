"""The environment a bento is served in: made from the run's own lock, by hash, and kept by digest."""

import fcntl
import hashlib
import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import uv

from modelyard_build.errors import Refused, Unavailable


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


def make_environment(lock: Path, wheel: Path, python: str, root: Path) -> Path:
    """The environment of `lock` plus `wheel`, below `root`; made once per content.

    Args:
        lock: hashed requirements; installed as they are, nothing is resolved.
        python: version of the interpreter, such as 3.11.

    Raises:
        Refused: the lock lacks something that the runtime needs.
        Unavailable: a package or the interpreter could not be had.
    """
    name = hashlib.sha256(lock.read_bytes() + wheel.read_bytes() + python.encode()).hexdigest()[:16]
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two builds at once make it once
        complete = folder / "complete"
        if not complete.exists():
            interpreter = sys.executable if f"{sys.version_info[0]}.{sys.version_info[1]}" == python else python
            _uv("venv", "--clear", "--quiet", "--python", interpreter, str(folder))
            into = ["--python", str(folder / "bin" / "python"), "--compile-bytecode", "--quiet"]
            _uv("pip", "install", *into, "--require-hashes", "--requirements", str(lock))
            _uv("pip", "install", *into, "--no-deps", str(wheel))
            _check_complete(folder, lock)
            complete.touch()
    return folder


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
