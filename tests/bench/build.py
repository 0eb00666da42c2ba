"""How long an engineer waits: from an approved version to a checked bento, image and push, and for nothing at all.

On the example project, with a real docker engine and registry (`make engine`), a mongod of its own, and wheels that the
cache has. Each figure but the first two is a whole command.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent))  # the engine and the places of the tests

from own_mongod import mongod  # noqa: E402
from rich.console import Console  # noqa: E402
from table import print_table  # noqa: E402

from own_engine import missing_programs, own_engine  # noqa: E402

YARD = str(Path(sys.executable).parent / "yard")
PROJECT = BENCH.parents[1] / "projects" / "tumor"
GOALS = {"bento_s": "≤ 60", "rebuild_s": "≤ 3", "image_mb": "≤ 300"}
REBUILDS = 5


def main() -> None:
    if missing := missing_programs():
        sys.exit(f"There is no {', '.join(missing)}; install it:  make engine")
    with tempfile.TemporaryDirectory(prefix="bench-build-") as scratch, own_engine() as engine:
        folder = Path(scratch)
        (folder / "mongod").mkdir()
        with mongod(folder / "mongod") as url:
            env = os.environ | {
                "YARD_MONGO_URL": url,
                "YARD_BASE_IMAGE": engine.base,
                "YARD_IMAGES": f"{engine.registry}/bench",
                "YARD_USER": "bench",
            }
            figures, steps = _measure(folder / "repository", env)
    print_table("From an approved version to an image in a registry", figures, GOALS)
    console = Console(width=100, highlight=False, stderr=True)
    for title, seconds in steps.items():
        console.print(f"\n{title}: " + ", ".join(f"{name} {took:.1f}" for name, took in seconds.items()))


def _measure(root: Path, env: dict[str, str]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    shutil.copytree(PROJECT, root / "projects" / "tumor", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text(".yard/\n__pycache__/\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    for command in (["train", "tumor"], ["request", "1"], ["approve", "tumor:1", "--reason", "bench"]):
        _run(root, env, *command)
    _run(root, env, "build", "tumor:1", "--until", "bento")  # so that the cache has the wheels
    shutil.rmtree(root / ".yard" / "environments")
    bento, bento_s = _timed(root, env, "bento")
    _, whole_s = _timed(root, env, "push")
    image, _ = _timed(root, env, "push")
    rebuilds = [_timed(root, env, "push") for _ in range(REBUILDS)]
    if not all(result["unchanged"] for result, _ in rebuilds):
        sys.exit("An unchanged version was built again, so this measures nothing.")
    figures = {
        "bento_s": bento_s,
        "image_and_push_s": whole_s,
        "rebuild_s": statistics.median(seconds for _, seconds in rebuilds),
        "image_mb": image["image"]["size_mb"],
    }
    return figures, {"approval to checked bento": bento["seconds"], "unchanged": rebuilds[-1][0]["seconds"]}


def _timed(root: Path, env: dict[str, str], until: str) -> tuple[dict[str, Any], float]:
    started = time.monotonic()
    said = _run(root, env, "build", "tumor:1", "--until", until, "--json")
    return json.loads(said), time.monotonic() - started


def _run(root: Path, env: dict[str, str], *args: str) -> str:
    done = subprocess.run([YARD, *args], cwd=root, env=env, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        sys.exit(f"yard {' '.join(args)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
