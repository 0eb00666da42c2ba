"""A sweep on a Ray cluster of two nodes, started with `ray start` as anybody would, reached by its address alone."""

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from uv import find_uv_bin

from modelyard_serving.local_stage import free_port
from modelyard_tracking.digests import file_sha256
from modelyard_tracking.project import Project
from modelyard_tracking.store import Home

from .test_sweeps import Driver, project  # noqa: F401 - a fixture

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

RAY = str(Path(sys.executable).parent / "ray")
Write = Callable[..., Project]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Two nodes on this machine, one with a logical GPU, with token authentication; gives address and environment."""
    port = free_port()
    address, folder = f"127.0.0.1:{port}", f"/tmp/ray-{port}"  # noqa: S108 - a socket's path is at most 107 long
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    env = {**os.environ, **token}
    head = ["--head", f"--port={port}", "--num-cpus=1", "--num-gpus=0", "--include-dashboard=false"]
    for options in ([*head, f"--temp-dir={folder}"], [f"--address={address}", "--num-cpus=1", "--num-gpus=1"]):
        command = [RAY, "start", "--node-ip-address=127.0.0.1", *options]
        started = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert started.returncode == 0, (started.stdout + started.stderr)[-3000:]
    yield address, token
    _end(token["RAY_AUTH_TOKEN"])
    shutil.rmtree(folder, ignore_errors=True)


def _end(token: str) -> None:
    """End this cluster. `ray stop` would end every Ray of this machine."""
    ours = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # somebody else's, or gone already
            if process.environ().get("RAY_AUTH_TOKEN") == token:
                ours.append(process)
                process.kill()
    psutil.wait_procs(ours, timeout=30)


def sweep(bowl: Project, home: Home, cluster: tuple[str, dict[str, str]], *args: str) -> "tuple[int, str, str]":
    address, token = cluster
    driver = Driver(bowl, home)
    driver.env |= token
    with driver.start("--address", address, *args) as process:
        out, said = process.communicate(timeout=300)
    return process.returncode, out, said


def test_a_sweep_runs_on_a_cluster_by_its_address_alone(cluster, project: Write, home: Home, db) -> None:  # noqa: F811
    # Less than a third of a GPU: the trials share the one of the second node.
    bowl = project(trials=4, resources={"cpu": 0.5, "gpu": 0.3}, concurrent=2)
    code, out, said = sweep(bowl, home, cluster, "--json")
    assert code == 0, said
    assert json.loads(out)["state"] == "COMPLETED"
    trials = list(db.runs.find({"info.sweep.trial": {"$exists": True}}))
    assert [run["status"] for run in trials] == ["COMPLETED"] * 4
    assert all("runtime_resources" in run["experiment"]["base_dir"] for run in trials)  # the code that travelled
    assert db.runs.count_documents({"info.sweep.role": "winner", "status": "COMPLETED"}) == 2


def test_a_cluster_that_lacks_what_a_trial_asks_for_is_described(cluster, project: Write, home: Home) -> None:  # noqa: F811
    code, _, said = sweep(project(resources={"cpu": 1, "gpu": 2}), home, cluster)
    assert code == 4
    assert "asks for 1 CPU, 2 GPU" in said
    assert "1 CPU, 1 GPU" in said


def test_a_cluster_that_is_not_there_is_said(cluster, project: Write, home: Home) -> None:  # noqa: F811
    code, _, said = sweep(project(), home, (f"127.0.0.1:{free_port()}", cluster[1]))
    assert code == 5
    assert "does not answer" in said


def test_workers_that_could_not_reach_mongodb_are_said_before_they_try(project: Write, home: Home) -> None:  # noqa: F811
    code, _, said = sweep(project(), home, ("10.0.0.1:6379", {}))
    assert code == 4
    assert "YARD_MONGO_URL" in said


def test_workers_install_the_projects_lock_where_it_is_asked_for(cluster, project: Write, home: Home, db) -> None:  # noqa: F811
    # With a part of a GPU all run on the second node: on one machine, two would install into the same folder.
    bowl = project(trials=2, fresh_seeds=1, resources={"cpu": 0.5, "gpu": 0.3})
    lock = bowl.folder / "requirements.lock"
    compiled = [find_uv_bin(), "pip", "compile", "-q", "--generate-hashes", "--no-emit-index-url", "-", "-o", str(lock)]
    subprocess.run(compiled, input="cowsay==6.1\n", text=True, check=True, timeout=120, capture_output=True)
    train = bowl.folder / "train.py"
    said_by_it = '    import cowsay\n    _run.info["cow"] = cowsay.__file__\n    ex.hand_over(x)'
    train.write_text(train.read_text().replace("    ex.hand_over(x)", said_by_it))
    assert importlib.util.find_spec("cowsay") is None  # it is not here
    code, _, said = sweep(bowl, home, cluster, "--install")
    assert code == 0, said
    trials = list(db.runs.find({"info.sweep.trial": {"$exists": True}}))
    assert [run["status"] for run in trials] == ["COMPLETED"] * 2, said
    assert all("runtime_resources" in run["info"]["cow"] for run in trials)  # in an environment of their own
    assert {run["info"]["modelyard"]["lock_sha256"] for run in trials} == {file_sha256(lock)}
