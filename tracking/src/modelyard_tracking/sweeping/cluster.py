"""Cluster: Ray on this machine, or one that runs elsewhere; and whether it has what a trial asks for."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from modelyard_tracking.errors import Refused, Unavailable
from modelyard_tracking.project import Project
from modelyard_tracking.store import Home

INSTALL_S = 3600  # for a lock with several GB of CUDA
_PACKAGES = ("modelyard", "modelyard_tracking", "modelyard_serving", "modelyard_build")


@contextmanager
def ray_session(
    project: Project, home: Home, *, cpus: int | None, address: str | None, install: bool
) -> Iterator[None]:
    """Ray for the length of a block, and nothing of it left behind here.

    Args:
        cpus: how many processors a local Ray may use; all by default.
        address: of a running cluster; a local Ray is started without.
        install: have the cluster's workers install the project's lock; else they must have it.

    Raises:
        Unavailable: the cluster does not answer.
        Refused: its workers could not reach MongoDB.
    """
    _environment()
    # "local": without it, Ray would join whatever was started on this machine with `ray start`.
    options: dict[str, Any] = {"address": "local", "num_cpus": cpus}
    options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    if address is not None:
        _check_reach(address, home)
        _check_answers(address)
        options = {"address": address, "runtime_env": _runtime_env(project, install)}
    before = _ray_processes()
    started: set[psutil.Process] = set()
    with _quiet():
        import ray

        try:
            try:
                ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
            except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
                if address is None:
                    raise
                raise Unavailable(
                    f"The Ray cluster at {address} does not answer: {str(error).splitlines()[0]}\n"
                    "Look there:  ray status      Start one:  ray start --head"
                ) from error
            started |= _ray_processes() - before
            yield
        finally:
            started |= _ray_processes() - before
            ray.shutdown()
            for process in psutil.wait_procs(started, timeout=10)[1]:  # its agents outlive it by some seconds
                with suppress(psutil.Error):
                    process.kill()


def places_for(demand: Mapping[str, float]) -> int:
    """How many trials can run at once. Ray itself would wait for ever where it is none.

    Raises:
        Refused: it is none; names what one trial asks for and what each node has.
    """
    import ray

    wanted = {_RAYS_NAMES.get(name, name): amount for name, amount in demand.items() if amount}
    nodes = [node for node in ray.nodes() if node["Alive"]]
    places = sum(
        int(min(node["Resources"].get(name, 0) / amount for name, amount in wanted.items()) + 1e-9) for node in nodes
    )
    if places:
        return places
    there = "\n".join(f"  {node['NodeManagerAddress']}: {_said(node['Resources'])}" for node in nodes)
    raise Refused(
        f"One trial asks for {_said(wanted)}, and no node of this Ray has that:\n{there}\n"
        "Ask for less in project.toml, [sweep.resources], or add a node:  ray start --address ..."
    )


_RAYS_NAMES = {"cpu": "CPU", "gpu": "GPU"}


def _said(resources: Mapping[str, float]) -> str:
    known = {name: amount for name, amount in resources.items() if not name.startswith(("node:", "memory", "object_"))}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(known.items())) or "nothing"


def _check_reach(address: str, home: Home) -> None:
    local = ("127.0.0.1", "localhost", "auto", "local")
    if not any(part in address for part in local) and any(part in home.mongo_url for part in local[:2]):
        raise Refused(
            f"The workers of {address} cannot reach a MongoDB on this machine's own 127.0.0.1.\n"
            "Set YARD_MONGO_URL, and YARD_ARTIFACTS to a folder that all nodes share."
        )


def _check_answers(address: str) -> None:
    """Ray would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # such as "auto"
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise Unavailable(
            f"The Ray cluster at {address} does not answer: {error.strerror or error}.\n"
            "Look there:  ray status      Start one:  ray start --head"
        ) from error


def _runtime_env(project: Project, install: bool) -> dict[str, Any]:
    """What travels to the workers: the project's folder, Modelyard itself, and on request the lock.

    No settings: they may hold passwords, and Ray's pages show a runtime environment. Workers get them with the trial.
    """
    packages = [str(Path(spec.origin).parent) for name in _PACKAGES if (spec := find_spec(name)) and spec.origin]
    env: dict[str, Any] = {
        "working_dir": str(project.folder),
        "py_modules": packages,
        "excludes": [".git", "__pycache__", "*.ipynb", ".ipynb_checkpoints"],
    }
    if install:
        # Ray writes these lines to a file again, so that hashes stay with their packages.
        env["uv"] = {"packages": project.lock.read_text().splitlines(), "uv_check": False}
        env["config"] = {"setup_timeout_seconds": INSTALL_S, "eager_install": False}
    return env


def _environment() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would swallow Ctrl-C and return normally
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")


def _ray_processes() -> set[psutil.Process]:
    """Children of this process that belong to a Ray; it may well have others."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ray" in " ".join(process.cmdline()):
                found.add(process)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
