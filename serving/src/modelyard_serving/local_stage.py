"""The local stage: a deployed version is a process on this machine that serves its bento as packaged."""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom

import httpx

from modelyard_serving.endpoints import Deployment
from modelyard_serving.errors import Unavailable
from modelyard_serving.processes import Process, Processes
from modelyard_serving.stage import Shown

_PORTS = range(20_000, 30_000)  # below the ephemeral ones: a port is kept while its process is away


@dataclass(frozen=True, slots=True)
class LocalStage:
    """Runs deployments under the supervisor of one `.yard` folder."""

    home: Path
    processes: Processes
    console_url: str
    secret_file: Path

    def deploy(self, before: Deployment | None, wanted: Deployment, replicas: int | None, shown: Shown) -> Deployment:
        """As `Stage` says. Where another bento of the version answers, its replicas are replaced one by one, and there
        is one more of them for the time being."""
        there = before.ports if before else ()
        running = len(there)
        number = replicas or running or 1
        most = number if before == replace(wanted, ports=there) else max(number, running + bool(running))
        grown = replace(wanted, ports=_ports(there, max(most, running)))
        try:
            self.start(grown, beyond=running)
        except Unavailable:
            self.stop(grown, beyond=running)
            raise
        shown(grown)
        deployment = replace(wanted, ports=grown.ports[:number])
        self.roll(deployment)
        if grown != deployment:
            shown(deployment)
            self.stop(grown, beyond=number)
        return deployment

    def start(self, deployment: Deployment, beyond: int = 0, timeout_s: float = 60) -> None:
        """Start the replicas beyond the first so many, and wait until each answers with the digest it should have.

        Raises:
            Unavailable: one did not come up; the last lines of its log are in the text.
        """
        replicas = list(deployment.replicas)[beyond:]
        for replica in replicas:
            self.processes.ensure(self.process(deployment, replica))
        deadline = time.monotonic() + timeout_s
        for replica in replicas:
            self._wait(deployment, replica, deadline - time.monotonic())

    def roll(self, deployment: Deployment, timeout_s: float = 60) -> None:
        """Start every replica anew where its settings are others: one at a time, the next once this one answers."""
        for replica in deployment.replicas:
            self.processes.ensure(self.process(deployment, replica))
            self._wait(deployment, replica, timeout_s)

    def launch(self, deployment: Deployment) -> None:
        """Start the processes and come back at once."""
        for replica in deployment.replicas:
            self.processes.ensure(self.process(deployment, replica))

    def stop(self, deployment: Deployment, beyond: int = 0) -> None:
        """Stop the replicas beyond the first so many, all of them by default; what they answer is answered first."""
        for replica in list(deployment.replicas)[beyond:]:
            self.processes.remove(replica)

    def process(self, deployment: Deployment, replica: str) -> Process:
        env = serving_env(self.home, Path(deployment.environment)) | {
            "YARD_AUDIT_DIR": str(self.home / "audit" / deployment.name),
            "YARD_CONSOLE_URL": self.console_url,
            "YARD_GATEWAY_SECRET_FILE": str(self.secret_file),
            "YARD_BENTO_SHA256": deployment.bento_sha256,
        }
        port = deployment.replicas[replica]
        command = serve_command(Path(deployment.environment), Path(deployment.bento_path), port)
        return Process(replica, command, env)

    def wait(self, deployment: Deployment, timeout_s: float = 60) -> None:
        """Wait until every replica answers with its digest; raises as `start` does."""
        deadline = time.monotonic() + timeout_s
        for replica in deployment.replicas:
            self._wait(deployment, replica, deadline - time.monotonic())

    def up(self, deployment: Deployment) -> tuple[str, ...]:
        """The replicas that answer now, and as the version that they should be."""
        ports = deployment.replicas.items()
        return tuple(replica for replica, port in ports if not self._why_not(deployment, port, timeout_s=1))

    def _wait(self, deployment: Deployment, replica: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while why := self._why_not(deployment, deployment.replicas[replica], timeout_s=2):
            state = self.processes.state(replica)
            if state.state == "FATAL" or time.monotonic() > deadline:
                tail = self.processes.log_tail(replica)
                reason = f"{state.state}: {state.description or why}"
                raise Unavailable(f"{replica} did not come up ({reason}). Last lines of its log:\n{tail}")
            time.sleep(0.1)

    def _why_not(self, deployment: Deployment, port: int, timeout_s: float) -> str:
        """Why nothing, or something else, answers on this port; empty if the deployment is ready there."""
        url = f"http://127.0.0.1:{port}"
        try:
            # Plain HTTP: without the certificates that httpx would read each time, for longer than the answer takes.
            with httpx.Client(base_url=url, timeout=timeout_s, verify=False) as client:  # noqa: S501
                answer = client.get("/provenance")
                if answer.status_code != 200 or answer.json()["model_sha256"] != deployment.model_sha256:
                    return f"{url}/provenance answers for another model"
                return "" if client.get("/readyz").status_code == 200 else "it is not ready"
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return str(error) or type(error).__name__


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
        "PYTHONDONTWRITEBYTECODE": "",  # whatever the shell says: without it each start would compile all it imports
        "PATH": os.environ.get("PATH", os.defpath),
    }


def _ports(there: tuple[int, ...], replicas: int) -> tuple[int, ...]:
    """As many as wanted: those that there are first, so that a replica keeps its port."""
    ports = list(there[:replicas])
    while len(ports) < replicas:
        port = free_port()
        if port not in ports:
            ports.append(port)
    return tuple(ports)


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
