"""Processes under a real supervisord."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asking import wait_until
from modelyard_serving.errors import NotFound
from modelyard_serving.local_stage import serving_env
from modelyard_serving.processes import Process, Processes

SLEEPER = [sys.executable, "-c", "import time; print('100% up', flush=True); time.sleep(600)"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    supervisor = Processes(tmp_path)
    supervisor.start_supervisor()
    yield supervisor
    supervisor.stop_supervisor()


def test_a_process_that_dies_is_started_again(processes: Processes) -> None:
    processes.ensure(Process("sleeper", SLEEPER))
    wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
    before = processes.state("sleeper").pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: processes.state("sleeper").state == "RUNNING" and processes.state("sleeper").pid != before, 30)


def test_what_is_killed_is_started_again_at_once(processes: Processes) -> None:
    processes.ensure(Process("sleeper", SLEEPER))
    for _ in range(3):
        wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
        killed = processes.state("sleeper").pid
        os.kill(killed, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda killed=killed: processes.state("sleeper").pid not in (0, killed), 30)
        assert time.monotonic() - killed_at < 0.5  # supervisord's own turn would take up to 2 s


def test_ensuring_twice_leaves_the_process_alone_and_new_settings_replace_it(processes: Processes) -> None:
    processes.ensure(Process("sleeper", SLEEPER))
    wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
    pid = processes.state("sleeper").pid
    processes.ensure(Process("sleeper", SLEEPER))
    assert processes.state("sleeper").pid == pid
    processes.ensure(Process("sleeper", SLEEPER, {"NEW": '50% "quoted" value'}))
    wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
    assert psutil.Process(processes.state("sleeper").pid).environ()["NEW"] == '50% "quoted" value'


def test_what_it_prints_is_in_its_log(processes: Processes) -> None:
    processes.ensure(Process("sleeper", SLEEPER))
    wait_until(lambda: "100% up" in processes.log_tail("sleeper"), 30)


def test_a_removed_process_is_stopped_and_forgotten(processes: Processes) -> None:
    processes.ensure(Process("sleeper", SLEEPER))
    wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
    pid = processes.state("sleeper").pid
    processes.remove("sleeper")
    assert not psutil.pid_exists(pid)
    with pytest.raises(NotFound, match="sleeper"):
        processes.state("sleeper")


def test_stopping_stops_everything_and_stopping_again_says_so(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start_supervisor()
    processes.ensure(Process("sleeper", SLEEPER))
    wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
    pid = processes.state("sleeper").pid
    assert processes.stop_supervisor() is True
    assert not psutil.pid_exists(pid)
    assert processes.stop_supervisor() is False


def test_what_a_killed_supervisor_left_behind_is_ended(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start_supervisor()
    processes.ensure(Process("sleeper", SLEEPER))
    wait_until(lambda: processes.state("sleeper").state == "RUNNING", 30)
    orphan = psutil.Process(processes.state("sleeper").pid)
    os.kill(int((tmp_path / "supervisor" / "supervisord.pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not processes.running(), 30)
    assert orphan.is_running()
    assert processes.stop_supervisor() is True
    assert not orphan.is_running()


def test_a_folder_with_a_very_long_path_works_too(tmp_path: Path) -> None:
    processes = Processes(tmp_path / ("long" * 30))
    processes.start_supervisor()
    assert processes.running()
    processes.stop_supervisor()


def test_a_replica_keeps_its_bytecode_whatever_the_shell_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = tmp_path / "environment"
    imports = [sys.executable, "-c", "import colorsys, time; time.sleep(600)"]
    supervisor = Processes(tmp_path)
    supervisor.start_supervisor()
    try:
        supervisor.ensure(Process("replica", imports, serving_env(tmp_path, environment)))
        wait_until(lambda: any((environment / "bytecode").rglob("colorsys.*.pyc")), 30)
    finally:
        supervisor.stop_supervisor()
