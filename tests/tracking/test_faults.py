"""Long fault tests of tracking, with a mongod and training processes that are really killed: `make faults-tracking`."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelyard.mongod import mongod_process, wait_until_primary
from modelyard.settings import embedded_mongo_url
from modelyard_serving.local_stage import free_port
from modelyard_tracking.recording.spool import Spool
from modelyard_tracking.recording.uploader import upload_all
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import Home

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


class Mongod:
    """A mongod of this test's own, to be killed and brought back on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return embedded_mongo_url(self.folder, self.port)

    def start(self) -> None:
        wanted = mongod_process(self.folder, self.port)
        self.process = subprocess.Popen(wanted.command, env=os.environ | wanted.env, stdout=subprocess.DEVNULL)
        wait_until_primary(self.folder, self.port)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def mongod(tmp_path: Path) -> Iterator[Mongod]:
    mongod = Mongod(tmp_path / "mongod")
    (tmp_path / "mongod").mkdir()
    mongod.start()
    yield mongod
    mongod.kill()


@pytest.fixture
def own_home(mongod: Mongod, tmp_path: Path) -> Home:
    return Home(mongod.url, "faults", tmp_path / "artifacts", tmp_path / "spool")


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., list[str]]:
    """Write a training script around the body of its main function; gives the command."""

    def write(body: str, config: str = "pass", *, name: str = "fault") -> list[str]:
        file = tmp_path / f"{name}.py"
        file.write_text(
            f"import os, sys, time\nfrom modelyard import Experiment\nex = Experiment({name!r})\n"
            f"@ex.config\ndef config():\n    {config}\n"
            f"@ex.automain\ndef main(_run, seed):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        )
        return [sys.executable, str(file)]

    return write


def env_of(home: Home) -> dict[str, str]:
    return {
        **os.environ,
        "YARD_MONGO_URL": home.mongo_url,
        "YARD_DATABASE": home.database,
        "YARD_SPOOL": str(home.spool_root),
        "YARD_ARTIFACTS": str(home.artifacts),
    }


def run(command: list[str], home: Home, **options: Any) -> "subprocess.CompletedProcess[str]":
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False, **options}
    return subprocess.run(command, env=env_of(home), **options)


def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not come true"
        time.sleep(0.05)
    return time.monotonic() - started


def test_a_database_that_is_killed_three_times_during_a_run_loses_and_doubles_no_point(
    mongod, own_home, script
) -> None:
    command = script(
        "for i in range(1500):\n    _run.log_scalar('loss', 1 / (i + 1), i)\n    time.sleep(0.01)\nreturn 1.0"
    )
    with subprocess.Popen(command, env=env_of(own_home), stdout=subprocess.DEVNULL) as training:
        for _ in range(3):
            time.sleep(3)
            mongod.kill()
            time.sleep(1.5)
            mongod.start()
        assert training.wait(120) == 0
    with own_home.connected() as db:
        eventually(lambda: db.runs.count_documents({"status": "COMPLETED"}) == 1)
        assert RunStore(db).curves(1)["loss"].steps == list(range(1500))
        assert db.runs.count_documents({}) == 1


def test_without_a_database_training_ends_soon_after_its_last_line_and_a_push_gives_one_run(
    mongod, own_home, script
) -> None:
    mongod.kill()
    command = script(
        "for i in range(100):\n    _run.log_scalar('loss', 0.5, i)\nprint('last', time.time())\nreturn 1.0"
    )
    done = run(command, own_home)
    ended = time.time()
    assert done.returncode == 0, done.stderr
    assert ended - float(done.stdout.split("last ")[1].split()[0]) < 10
    assert "yard runs push" in done.stderr
    assert len(Spool(own_home.spool).runs()) == 1
    mongod.start()
    for _ in range(2):
        upload_all(own_home)
    eventually(lambda: Spool(own_home.spool).runs() == [])
    with own_home.connected() as db:
        [document] = db.runs.find()
        assert (document["_id"], document["status"], document["result"]) == (1, "COMPLETED", 1.0)
        assert RunStore(db).curves(1)["loss"].steps == list(range(100))


def test_a_training_process_that_is_killed_loses_nothing_it_was_told_is_logged(own_home, script) -> None:
    body = "i = 0\nwhile True:\n    _run.log_scalar('loss', float(i), i)\n    os.write(9, b'x')\n    i += 1"
    read_end, write_end = os.pipe()
    acknowledged = 0
    command = ["bash", "-c", f"exec {' '.join(script(body))} 9>&{write_end}"]
    with subprocess.Popen(command, env=env_of(own_home), stdout=subprocess.DEVNULL, pass_fds=[write_end]) as training:
        os.close(write_end)
        started = time.monotonic()
        while time.monotonic() - started < 8:
            acknowledged += len(os.read(read_end, 65536))
        training.send_signal(signal.SIGKILL)
        training.wait()
        killed = time.monotonic()
        while chunk := os.read(read_end, 65536):
            acknowledged += len(chunk)
    os.close(read_end)
    assert acknowledged > 1000
    with own_home.connected() as db:
        eventually(lambda: db.runs.count_documents({"status": "DIED"}) == 1, 30)
        print(f"{acknowledged} points were acknowledged; marked DIED after {time.monotonic() - killed:.2f} s")
        steps = RunStore(db).curves(1)["loss"].steps
        assert steps == list(range(len(steps)))
        assert len(steps) in (acknowledged, acknowledged + 1)


def test_an_uploader_that_is_killed_is_started_again_by_the_running_run(own_home, script) -> None:
    command = script("for i in range(800):\n    _run.log_scalar('loss', 1.0, i)\n    time.sleep(0.01)\nreturn 1.0")
    with subprocess.Popen(command, env=env_of(own_home), stdout=subprocess.DEVNULL) as training:
        lock = own_home.spool / "uploader.lock"
        killed = []
        for _ in range(2):
            eventually(
                lambda: lock.exists() and lock.read_text().isdigit() and psutil.pid_exists(int(lock.read_text()))
            )
            time.sleep(1)
            killed.append(int(lock.read_text()))
            os.kill(killed[-1], signal.SIGKILL)
            time.sleep(2.5)
        assert training.wait(60) == 0
    assert len(set(killed)) == 2
    with own_home.connected() as db:
        eventually(lambda: db.runs.count_documents({"status": "COMPLETED"}) == 1)
        assert RunStore(db).curves(1)["loss"].steps == list(range(800))


def full_disk(command: list[str], home: Home, size: str) -> "subprocess.CompletedProcess[str]":
    """Run with the spool on a real file system of `size`, in a mount namespace of its own."""
    home.spool_root.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={size} tmpfs {home.spool_root} && exec {' '.join(command)}"
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    probe = (
        subprocess.run([*unshare, "true"], capture_output=True, timeout=30, check=False)
        if shutil.which("unshare")
        else None
    )
    if probe is None or probe.returncode:
        if os.environ.get("CI"):
            pytest.fail("unshare --mount is not allowed here, and this is CI")
        pytest.skip("unshare --mount is not allowed here, so no small file system can be had")
    return run([*unshare, "sh", "-c", mount], home)


FILL = """
spool = os.environ["YARD_SPOOL"]
filler = os.open(spool + "/filler", os.O_CREAT | os.O_WRONLY)
for size in (65536, 4096, 1):
    try:
        while True:
            os.write(filler, b"x" * size)
    except OSError:
        pass
os.close(filler)
"""


def test_a_disk_that_is_full_for_a_while_is_said_once_and_loses_nothing(own_home, script) -> None:
    body = f"{FILL}\nfor i in range(20000):\n    _run.log_scalar('loss', 1.0, i)\n"
    body += "    if i == 15000: os.unlink(spool + '/filler')\ntime.sleep(3)\nreturn 1.0"
    done = full_disk(script(body), own_home, "4m")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1
    with own_home.connected() as db:
        eventually(lambda: db.runs.count_documents({"status": "COMPLETED"}) == 1)
        assert RunStore(db).curves(1)["loss"].steps == list(range(20000))


def test_a_disk_that_stays_full_ends_no_training_and_what_is_lost_is_counted(own_home, script) -> None:
    done = full_disk(
        script(f"{FILL}\nfor i in range(20000):\n    _run.log_scalar('loss', 1.0, i)\nreturn 1.0"), own_home, "4m"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1
    assert "are lost" in done.stderr
    with own_home.connected() as db:
        eventually(lambda: db.runs.count_documents({"status": "COMPLETED"}) == 1)
        lost = db.runs.find_one()["info"]["modelyard"]["lost_lines"]
        stored = len(RunStore(db).curves(1)["loss"].steps) if db.metrics.count_documents({}) else 0
        assert 20000 <= stored + lost <= 20010  # a line that is no point may be among them


def test_eight_processes_with_fifty_runs_each_at_once_get_four_hundred_numbers(own_home, tmp_path: Path) -> None:
    file = tmp_path / "many.py"
    file.write_text(
        "import logging\nfrom modelyard import Experiment\nex = Experiment('many')\n"
        "@ex.main\ndef main(_run):\n    _run.log_scalar('x', 1.0)\n    return 1.0\n"
        "logging.disable(logging.INFO)\n"
        "print([ex.run(options={'--capture': 'sys'})._id for _ in range(50)])\n"
    )
    command = [sys.executable, str(file)]
    trainings = [
        subprocess.Popen(command, env=env_of(own_home), stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        for _ in range(8)
    ]
    said = [number for training in trainings for number in eval(training.communicate(timeout=500)[0])]  # noqa: S307
    assert all(training.returncode == 0 for training in trainings)
    with own_home.connected() as db:
        eventually(lambda: db.runs.count_documents({"status": "COMPLETED"}) == 400)
        assert sorted(run["_id"] for run in db.runs.find({}, {"_id": 1})) == list(range(1, 401))
        assert sorted(said) == list(range(1, 401))
        assert db.metrics.count_documents({}) == 400
