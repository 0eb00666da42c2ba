"""Our side of the comparison: the real road in a repository of its own, from `yard up` to a split in force."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from dialects import NATIVE, Row
from servers import ONE_THREAD, Tree, serving

from modelyard.settings import Settings, read_settings
from modelyard.yard import Yard
from modelyard_serving.endpoints import Deployment
from modelyard_serving.local_stage import free_port, serve_command, serving_env

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "tumor"
YARD = str(Path(sys.executable).parent / "yard")
PATH, NATIVE_PATH = "/v1/endpoints/tumor/invocations", "/v1/endpoints/tumor/predict"
COLD_START_S = 120


@dataclass(frozen=True, slots=True)
class Ours:
    """A deployed endpoint: two variants of one version, so that each request is split and one replica answers all."""

    settings: Settings
    deployment: Deployment
    token: str
    cold_start_s: float
    stack: Tree  # supervisord, and below it mongod, console, Envoy and the replica

    @property
    def model(self) -> Path:
        """In MLflow's format, as it was trained: the bento holds the artifact store's very files."""
        return Path(self.deployment.bento_path) / "src" / "model" / "mlflow"

    @property
    def secret(self) -> str:
        return self.settings.gateway_secret_file.read_text().strip()

    def rss_mb(self) -> float:
        """Of one replica, with its children."""
        with self.stack.in_turn():
            states = Yard(self.settings).stack.processes.states()
        pids = [state.pid for state in states if state.name.startswith(self.deployment.name)]
        return sum(Tree(pid).rss_mb() for pid in pids) / len(pids)

    @contextmanager
    def without_audit(self, folder: Path) -> Iterator[tuple[Tree, int]]:
        """One more replica, which records nothing: its processes and its port."""
        folder.mkdir()
        port, environment = free_port(), Path(self.deployment.environment)
        env = serving_env(self.settings.home, environment) | {
            "YARD_GATEWAY_SECRET_FILE": str(self.settings.gateway_secret_file),
            "YARD_BENTO_SHA256": self.deployment.bento_sha256,
        }
        command = serve_command(environment, Path(self.deployment.bento_path), port)
        with serving(command, env, folder, f"http://127.0.0.1:{port}/provenance") as tree:
            yield tree, port


def port_of(deployment: Deployment) -> int:
    """Where its only replica answers."""
    [port] = getattr(deployment, "ports", None) or (deployment.port,)
    return port


@contextmanager
def deployed(root: Path, row: Row) -> Iterator[Ours]:
    """Train, approve, build and deploy the example project below `root`; its stack ends with the benchmark."""
    shutil.copytree(PROJECT, root / "projects" / "tumor", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text(".yard/\n__pycache__/\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("YARD_")} | ONE_THREAD
    for part in ("GATEWAY", "CONSOLE", "MONGO", "MLFLOW", "OMNIBOARD", "JUPYTER"):
        env[f"YARD_{part}_PORT"] = str(free_port())
    env["YARD_USER"] = "bench"
    settings = read_settings(env, root)
    try:
        for command in (
            ["up"],
            ["train", "tumor"],
            ["request", "1"],
            ["approve", "tumor:1", "--reason", "bench", "--alias", "champion"],
            ["build", "tumor:1", "--until", "bento"],
        ):
            print(f"yard {' '.join(command)}", file=sys.stderr)
            _yard(root, env, *command)
        token = json.loads(_yard(root, env, "keys", "create", "bench", "--scope", "predict:tumor", "--json"))["token"]
        cold_start_s = _cold_start(root, env, settings, token, row)
        _yard(root, env, "deploy", "tumor:1", "--variant", "challenger")
        _yard(root, env, "split", "tumor", "champion=80", "challenger=20")
        yard = Yard(settings)
        deployment = yard.endpoints.deployment("tumor-1")
        yard.close()
        stack = Tree(int((settings.home / "supervisor" / "supervisord.pid").read_text()))
        try:
            yield Ours(settings, deployment, token, cold_start_s, stack)
        finally:
            stack.go_on()
    finally:
        _yard(root, env, "down")


def _cold_start(root: Path, env: Mapping[str, str], settings: Settings, token: str, row: Row) -> float:
    """Seconds from the command `yard deploy` to the first answer through the gateway."""
    started = time.monotonic()
    with (
        subprocess.Popen([YARD, "deploy", "tumor@champion"], cwd=root, env=env, stderr=subprocess.PIPE) as deploying,
        httpx.Client(
            base_url=settings.gateway_url, headers={"authorization": f"Bearer {token}"}, timeout=COLD_START_S
        ) as client,
    ):
        while client.post(NATIVE_PATH, content=NATIVE.body([row])).status_code != 200:
            if deploying.poll() or time.monotonic() - started > COLD_START_S:
                deploying.terminate()
                said = deploying.stderr.read().decode() if deploying.stderr else ""
                raise SystemExit(f"yard deploy gave no endpoint that answers:\n{said}")
            time.sleep(0.02)
        took = time.monotonic() - started
        deploying.communicate(timeout=COLD_START_S)
    return took


def _yard(root: Path, env: Mapping[str, str], *args: str) -> Any:
    done = subprocess.run([YARD, *args], cwd=root, env=env, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise SystemExit(f"yard {' '.join(args)} failed:\n{done.stderr}")
    return done.stdout
