"""A real docker engine, a base image and a registry for the tests.

An engine that answers already is used as it is. Otherwise one is started, which needs root. The programs come from
the distribution's packages: `make engine` installs them.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
import psutil
from docker.errors import DockerException, ImageNotFound

from modelyard_build.errors import Unavailable
from modelyard_build.images.engine import Engine
from modelyard_serving.local_stage import free_port

BASE = "modelyard-tests/python:3.11"  # Debian's own Python; made from packages, so that no registry is needed
BASE_PYTHON = "3.11"
_STATE = Path(tempfile.gettempdir()) / f"modelyard-engine-{os.getuid()}"
_PID = _STATE / "dockerd.pid"
_BASE_SCRIPT = Path(__file__).with_name("base-image.sh")
_ENV = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """What tests of images need."""

    base: str  # pinned by digest, in the registry
    registry: str  # 127.0.0.1:port
    client: docker.DockerClient


def missing_programs() -> list[str]:
    needed = ["docker-registry", "mmdebstrap"]
    if _answering() is None:
        needed += ["dockerd", "iptables"]
    return [name for name in needed if shutil.which(name) is None]


@contextmanager
def own_engine() -> Iterator[OwnEngine]:
    """An engine, a registry of its own, and in it the base image.

    Raises:
        RuntimeError: the engine does not start; the last lines of its log are in the text.
    """
    with _engine() as client, tempfile.TemporaryDirectory(prefix="registry-") as scratch:
        before = _tags(client)
        with _registry(Path(scratch)) as registry:
            yield OwnEngine(_push(client, f"{registry}/python"), registry, client)
        for tag in _tags(client) - before:
            if registry in tag:
                with suppress(DockerException):
                    client.images.remove(tag)


def _tags(client: docker.DockerClient) -> set[str]:
    return {tag for image in client.images.list() for tag in image.tags}


def _answering() -> docker.DockerClient | None:
    try:
        return Engine.connect().client
    except Unavailable:
        return None


@contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    """The engine that answers; else one that all processes which test share, and the last of them stops."""
    _STATE.mkdir(exist_ok=True, mode=0o700)
    with (_STATE / "users.lock").open("w") as users:
        with _gate():
            client = _answering() or _start()
            _make_base(client)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield client
        finally:
            client.close()
            with _gate(), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop()


@contextmanager
def _gate() -> Iterator[None]:
    with (_STATE / "gate.lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def _start() -> docker.DockerClient:
    log = _STATE / "dockerd.log"
    command = [
        "dockerd", "--data-root", f"{_STATE}/docker", "--exec-root", f"{_STATE}/run", "--pidfile", str(_PID),
        "--host", "unix:///var/run/docker.sock", "--exec-opt",
        "native.cgroupdriver=cgroupfs",
    ]  # fmt: skip
    _PID.unlink(missing_ok=True)
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while (client := _answering()) is None:
        if running.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"dockerd does not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
    running.returncode = 0  # it is not waited for: another process may be the one that stops it
    return client


def _stop() -> None:
    """Stop the engine if it is one that tests started; its images stay for the next time."""
    with suppress(OSError, ValueError, psutil.Error):
        daemon = psutil.Process(int(_PID.read_text()))
        # Its containerd ends later, and would be taken for that of the next one.
        parts = [daemon, *daemon.children(recursive=True)]
        daemon.send_signal(signal.SIGTERM)
        psutil.wait_procs(parts, timeout=60)


@contextmanager
def _registry(scratch: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": f"{scratch}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    (scratch / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    with (scratch / "registry.log").open("wb") as out:
        command = ["docker-registry", "serve", f"{scratch}/registry.yml"]
        with subprocess.Popen(command, stdout=out, stderr=out, env={"PATH": os.environ["PATH"]}) as running:
            try:
                deadline = time.monotonic() + 30
                while not _is_there(f"http://{address}/v2/"):
                    if running.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"docker-registry: {(scratch / 'registry.log').read_text()[-2000:]}")
                    time.sleep(0.1)
                yield address
            finally:
                running.kill()


def _is_there(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _make_base(client: docker.DockerClient) -> None:
    try:
        client.images.get(BASE)
        return
    except ImageNotFound:
        pass
    target = _STATE / "base.tar"
    subprocess.run(["sh", str(_BASE_SCRIPT), str(target)], check=True, timeout=600, stdin=subprocess.DEVNULL)
    repository, _, tag = BASE.partition(":")
    changes = ['CMD ["python3"]', f"ENV {_ENV} LANG=C.UTF-8"]
    client.api.import_image_from_file(str(target), repository=repository, tag=tag, changes=changes)
    target.unlink()


def _push(client: docker.DockerClient, name: str) -> str:
    tag = BASE.partition(":")[2]
    client.images.get(BASE).tag(name, tag)
    client.images.push(name, tag)
    digests = client.images.get(f"{name}:{tag}").attrs["RepoDigests"]
    return next(str(digest) for digest in digests if digest.startswith(f"{name}@"))
