"""The local stage: a deployed version is a process on this machine that serves its bento as packaged."""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import httpx

from modelyard_serving.endpoints import Deployment
from modelyard_serving.errors import Unavailable
from modelyard_serving.processes import Process, Processes

_PORTS = range(20_000, 30_000)  # below the ephemeral ones: a port is kept while its process is away


@dataclass(frozen=True, slots=True)
class LocalStage:
    """Runs deployments under the supervisor of one `.yard` folder."""

    home: Path
    processes: Processes
    console_url: str
    secret_file: Path

    def start(self, deployment: Deployment, timeout_s: float = 60) -> None:
        """Start the deployment and wait until it answers with the digest it should have.

        Raises:
            Unavailable: it did not come up; the last lines of its log are in the text.
        """
        self.launch(deployment)
        self.wait(deployment, timeout_s)

    def launch(self, deployment: Deployment) -> None:
        """Start the process and come back at once."""
        self.processes.ensure(self.process(deployment))

    def process(self, deployment: Deployment) -> Process:
        env = serving_env(self.home, Path(deployment.environment)) | {
            "YARD_AUDIT_DIR": str(self.home / "audit" / deployment.name),
            "YARD_CONSOLE_URL": self.console_url,
            "YARD_GATEWAY_SECRET_FILE": str(self.secret_file),
            "YARD_BENTO_SHA256": deployment.bento_sha256,
        }
        command = serve_command(Path(deployment.environment), Path(deployment.bento_path), deployment.port)
        return Process(deployment.name, command, env)

    def wait(self, deployment: Deployment, timeout_s: float = 60) -> None:
        """Wait until the deployment answers with its digest; raises as `start` does."""
        deadline = time.monotonic() + timeout_s
        url = f"http://127.0.0.1:{deployment.port}/provenance"
        while True:
            try:
                answer = httpx.get(url, timeout=2)
                if answer.status_code == 200 and answer.json()["model_sha256"] == deployment.model_sha256:
                    return
                why = f"{url} answers for another model"
            except (httpx.HTTPError, ValueError, KeyError) as error:
                why = str(error) or type(error).__name__
            state = self.processes.state(deployment.name)
            if state.state == "FATAL" or time.monotonic() > deadline:
                tail = self.processes.log_tail(deployment.name)
                reason = f"{state.state}: {state.description or why}"
                raise Unavailable(f"{deployment.name} did not come up ({reason}). Last lines of its log:\n{tail}")
            time.sleep(0.1)


def serve_command(environment: Path, bento: Path, port: int, host: str = "127.0.0.1") -> list[str]:
    """How a bento is served, in checks, stage and image alike: by its runtime, in its own environment."""
    python = str(environment / "bin" / "python")
    return [python, "-m", "modelyard_serving.runtime.server", str(bento), "--host", host, "--port", str(port)]


def serving_env(home: Path, environment: Path) -> dict[str, str]:
    """The environment variables every bento gets that is served on this machine."""
    return {
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",  # only "True" switches BentoML's telemetry off, 1 does not
        "PYTHONPYCACHEPREFIX": str(environment / "bytecode"),  # not beside the source: the bento's digest is checked
        "PATH": os.environ.get("PATH", os.defpath),
    }


def free_port() -> int:
    """A port nobody listens on now, and that no outgoing connection will be given.

    Raises:
        Unavailable: all that were tried are taken.
    """
    for port in SystemRandom().sample(_PORTS, 100):  # not `random`, which a training seeds: two would choose the same
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable(f"100 ports between {_PORTS.start} and {_PORTS.stop} are taken. See by what:  ss -ltnp")
