"""The shell around the gateway's follower: one that dies is started anew, and the end of the pod is told to it."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from places import REPOSITORY

# Says that it was started; said so, it dies by itself at first; told to end, it takes its time and says that, too.
FOLLOWER = """
trap 'sleep 0.3; echo ended >> "$1"; exit' TERM
echo started >> "$1"
[ "$(wc -l < "$1")" -gt 1 ] || exit 7
while :; do sleep 0.05; done
"""


def command() -> list[str]:
    deployment = yaml.safe_load((REPOSITORY / "k8s" / "base" / "gateway" / "deployment.yaml").read_text())
    containers = deployment["spec"]["template"]["spec"]["containers"]
    [follow] = [container for container in containers if container["name"] == "follow"]
    assert follow["args"][:2] == ["python", "-m"]
    return list(follow["command"])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def shell(log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([*command(), "sh", "-c", FOLLOWER, "follower", str(log)]) as running:
        yield running
        running.terminate()  # its child with it


def wait_for(log: Path, said: list[str]) -> None:
    deadline = time.monotonic() + 20
    while not log.exists() or log.read_text().split() != said:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_one_that_dies_is_started_anew_and_its_container_goes_on(shell: "subprocess.Popen[bytes]", log: Path) -> None:
    wait_for(log, ["started", "started"])
    assert shell.poll() is None


def test_it_is_told_that_the_pod_ends_and_may_finish(shell: "subprocess.Popen[bytes]", log: Path) -> None:
    wait_for(log, ["started", "started"])
    shell.terminate()
    assert shell.wait(10) is not None
    assert log.read_text().split() == ["started", "started", "ended"]
