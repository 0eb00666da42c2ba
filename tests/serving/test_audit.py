"""The audit log: exactly once, whoever dies."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from modelyard_serving.runtime.audit import AuditLog, Shipper


class Intake:
    """A console that counts; it can be told to fail."""

    def __init__(self, serve_app) -> None:
        self.seen: Counter[str] = Counter()
        self.failing = False
        self.port = serve_app(Starlette(routes=[Route("/internal/audit", self._take, methods=["POST"])]))

    async def _take(self, request) -> JSONResponse:
        body = await request.body()
        if self.failing:
            return JSONResponse({}, 503)
        self.seen.update(orjson.loads(line)["_id"] for line in body.splitlines())
        return JSONResponse({})


@pytest.fixture
def intake(serve_app) -> Intake:
    return Intake(serve_app)


@pytest.fixture
def shipper(tmp_path: Path, intake: Intake) -> Iterator[Shipper]:
    with closing(Shipper(tmp_path, f"http://127.0.0.1:{intake.port}", "secret")) as shipper:
        yield shipper


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with closing(AuditLog(tmp_path)) as log:
        yield log


def _drain(shipper: Shipper) -> None:
    while shipper.ship_once():
        pass


def test_records_reach_the_console_once(log: AuditLog, shipper: Shipper, intake: Intake) -> None:
    for number in range(1000):
        log.append({"_id": str(number)})
        if number % 100 == 0:
            shipper.ship_once()
    _drain(shipper)
    assert len(intake.seen) == 1000
    assert set(intake.seen.values()) == {1}


def test_a_console_that_is_away_is_waited_for(log: AuditLog, shipper: Shipper, intake: Intake) -> None:
    log.append({"_id": "early"})
    intake.failing = True
    with pytest.raises(Exception, match="503"):
        shipper.ship_once()
    intake.failing = False
    log.append({"_id": "late"})
    _drain(shipper)
    assert intake.seen == {"early": 1, "late": 1}


def test_what_a_killed_process_wrote_is_shipped_by_the_next_and_then_removed(
    tmp_path: Path, shipper: Shipper, intake: Intake
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from modelyard_serving.runtime.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "for number in range(500): log.append({'_id': f'old-{number}'})\n"
        "print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        shipper.ship_once()
        assert not intake.seen, "a segment whose writer lives is its writer's to ship"
        process.send_signal(signal.SIGKILL)
        process.wait()
    _drain(shipper)
    assert len(intake.seen) == 500
    assert list(tmp_path.iterdir()) == []


def test_our_own_segment_is_kept_while_we_write_to_it(log: AuditLog, shipper: Shipper, intake: Intake) -> None:
    log.append({"_id": "one"})
    _drain(shipper)
    log.append({"_id": "two"})
    _drain(shipper)
    assert intake.seen == {"one": 1, "two": 1}


def _append_until_full(log: AuditLog) -> list[str]:
    acknowledged: list[str] = []
    try:
        while len(acknowledged) < 1000:
            log.append({"_id": str(len(acknowledged)), "padding": "x" * 1000})
            acknowledged.append(str(len(acknowledged)))
    except OSError:
        return acknowledged
    raise AssertionError("the disk never became full")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_said_and_leaves_no_half_record(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        with closing(AuditLog(tmp_path)) as log:
            acknowledged = _append_until_full(log)
        [segment] = tmp_path.glob("*.jsonl")
        assert acknowledged
        assert [orjson.loads(line)["_id"] for line in segment.read_bytes().splitlines()] == acknowledged
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
