"""The stack's own life: stopping, starting again, dying parts, Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from places import PROJECTS

from .conftest import Road, commit_all, ports, recorded_row

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PREDICT = "/v1/endpoints/tumor/predict"


def processes_of(folder: Path) -> list[str]:
    """Processes that were started for `folder`, by what stands in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + " ".join(process.environ().values())
            if str(folder) in text and process.pid != os.getpid():
                found.append(" ".join(process.cmdline())[:100])
        except psutil.Error:
            continue
    return found


def test_a_killed_model_is_started_again_and_loses_no_audit(road: Road) -> None:
    db = road.yard.db
    row = recorded_row(db.predictions.find_one({"status": 200}))
    state = road.yard.stack.processes.state("tumor-1.1")
    ids = []
    with road.http as http:
        for _ in range(50):
            ids.append(http.post(PREDICT, json={"rows": [row]}).json()["prediction_id"])
        for process in (psutil.Process(state.pid), *psutil.Process(state.pid).children(recursive=True)):
            process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while http.post(PREDICT, json={"rows": [row]}).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    deadline = time.monotonic() + 60
    while db.predictions.count_documents({"_id": {"$in": ids}}) < 50:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_console_being_away_stops_no_prediction_and_the_audit_catches_up(road: Road) -> None:
    db, processes = road.yard.db, road.yard.stack.processes
    row = recorded_row(db.predictions.find_one({"status": 200}))
    processes._call("stopProcess", "console")
    try:
        with road.http as http:
            answer = http.post(PREDICT, json={"rows": [row]})
            assert answer.status_code == 200
            assert http.get("/v1/endpoints/tumor/results").status_code == 503
    finally:
        processes._call("startProcess", "console")
    deadline = time.monotonic() + 60
    while db.predictions.find_one({"_id": answer.json()["prediction_id"]}) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_starting_what_runs_does_no_harm(road: Road) -> None:
    before = {state.name: state.pid for state in road.yard.stack.processes.states()}
    assert road.command("up").returncode == 0
    assert {state.name: state.pid for state in road.yard.stack.processes.states()} == before


def test_mlflows_own_pages_show_the_versions(road: Road) -> None:
    done = road.command("up", "--mlflow")
    assert done.returncode == 0, done.stderr
    import httpx

    url = f"http://127.0.0.1:{road.yard.settings.mlflow_port}/api/2.0/mlflow/registered-models/get?name=tumor"
    aliases = httpx.get(url, timeout=30).json()["registered_model"]["aliases"]
    assert {alias["alias"] for alias in aliases} == {"champion", "challenger"}
    road.yard.stack.processes.remove("mlflow")


@pytest.mark.timeout(900)  # the first time, npm installs Omniboard
def test_omniboard_and_jupyterlab_are_started_with_the_way_in_printed(road: Road) -> None:
    done = road.command("up", "--omniboard", "--jupyter")
    assert done.returncode == 0, done.stderr
    settings = road.yard.settings
    assert f"http://127.0.0.1:{settings.omniboard_port}  (user yard, password " in done.stdout
    assert "runs cannot be changed or deleted" in done.stdout
    assert f"http://127.0.0.1:{settings.jupyter_port}/lab?token=" in done.stdout
    running = {process["name"] for process in road.json("status")["processes"] if process["state"] == "RUNNING"}
    assert running >= {"omniboard", "jupyter"}


def test_a_stopped_stack_comes_back_with_everything_that_was_deployed(road: Road) -> None:
    row = recorded_row(road.yard.db.predictions.find_one({"status": 200}))
    road.yard.close()
    del road.yard.__dict__["db"]
    assert road.command("down").returncode == 0
    assert processes_of(road.yard.settings.home) == []
    assert road.command("up").returncode == 0
    with road.http as http:
        answer = http.post(PREDICT, json={"rows": [row]}, headers={"x-unit-id": "patient-1"})
    assert answer.headers["x-variant"] == road.answered["patient-1"].variant


@pytest.mark.parametrize("moment", ["stack", "train"])
def test_ctrl_c_leaves_no_process_behind(tmp_path: Path, moment: str) -> None:
    interrupt_demo_after(moment, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["sweep", "approve", "build", "deploy"])
def test_ctrl_c_leaves_no_process_behind_later_either(tmp_path: Path, moment: str) -> None:
    interrupt_demo_after(moment, tmp_path)


def interrupt_demo_after(moment: str, folder: Path) -> None:
    """Run the demo, press Ctrl-C as a terminal does once the step `moment` is done, and look for what is left."""
    shutil.copytree(PROJECTS, folder / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text(".yard/\n__pycache__/\n")
    commit_all(folder)
    with subprocess.Popen(
        [sys.executable, "-u", "-c", "from modelyard.cli import main; main()", "demo"],
        cwd=folder, env={**os.environ, **ports()}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        seen = []
        for line in demo.stdout:
            seen.append(line)
            if line.startswith(f"✓ {moment}"):
                break
        time.sleep(0.5)
        os.killpg(demo.pid, signal.SIGINT)
        seen.append(demo.stdout.read())
    assert demo.returncode == 130, "".join(seen)
    assert processes_of(folder) == []
