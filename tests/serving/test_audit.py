"""The audit log: exactly once, whoever dies."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from asking import wait_until
from modelyard_serving.runtime.audit import AuditLog
from modelyard_serving.runtime.shipper import Keeper, Shipper


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
    with pytest.raises(ConnectionError, match="it answers 503"):
        shipper.ship_once()
    intake.failing = False
    log.append({"_id": "late"})
    _drain(shipper)
    assert intake.seen == {"early": 1, "late": 1}


def test_a_connection_that_the_console_has_closed_meanwhile_is_no_fault(
    log: AuditLog, shipper: Shipper, intake: Intake
) -> None:
    log.append({"_id": "early"})
    _drain(shipper)
    shipper._console.sock.shutdown(socket.SHUT_RDWR)
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
        _drain(shipper)
        assert len(list(tmp_path.glob("*.jsonl"))) == 1, "a segment whose writer lives is not removed"
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


def test_beyond_what_may_wait_the_disk_counts_as_full_until_the_console_has_taken_it(
    tmp_path: Path, intake: Intake, shipper: Shipper
) -> None:
    with closing(AuditLog(tmp_path, max_bytes=5_000)) as log:
        for number in range(10):
            log.append({"_id": str(number), "padding": "x" * 1000})
        log.close()
        with pytest.raises(OSError, match="records wait for the console"):
            log.append({"_id": "one too many"})
        _drain(shipper)
        log.append({"_id": "again"})
        _drain(shipper)
    assert set(intake.seen) == {*map(str, range(10)), "again"}


def test_a_policy_of_disk_waits_for_one_flush_together(tmp_path: Path, monkeypatch) -> None:
    flushes, real = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (flushes.append(fd), time.sleep(0.02), real(fd)))

    async def answered(log: AuditLog, number: int) -> None:
        log.append({"_id": str(number)})
        await log.settled()

    async def many(log: AuditLog) -> None:
        await asyncio.gather(*(answered(log, number) for number in range(100)))

    log = AuditLog(tmp_path, "disk")
    asyncio.run(many(log))
    assert 1 <= len(flushes) <= 3
    log.close()


def test_a_disk_that_does_not_take_a_flush_is_said_to_everybody_who_waits_for_it(tmp_path: Path, monkeypatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    log = AuditLog(tmp_path, "disk")
    log.append({"_id": "1"})

    async def both() -> list[object]:
        return await asyncio.gather(log.settled(), log.settled(), return_exceptions=True)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        assert [type(fault) for fault in asyncio.run(both())] == [OSError, OSError]
    log.close()


@pytest.fixture
def keep(tmp_path: Path, intake: Intake, monkeypatch) -> Iterator[Callable[[], Keeper]]:
    """Starts real shippers of one folder."""
    (tmp_path / "secret").write_text("s3cret")
    monkeypatch.setenv("YARD_CONSOLE_URL", f"http://127.0.0.1:{intake.port}")
    monkeypatch.setenv("YARD_GATEWAY_SECRET_FILE", str(tmp_path / "secret"))
    keepers: list[Keeper] = []

    def start() -> Keeper:
        keepers.append(Keeper(tmp_path / "audit"))
        return keepers[-1]

    (tmp_path / "audit").mkdir()
    yield start
    for keeper in keepers:
        keeper.stop()


def test_a_shipper_that_is_killed_is_started_again(tmp_path: Path, keep, intake: Intake) -> None:
    log, keeper = AuditLog(tmp_path / "audit"), keep()
    log.append({"_id": "before"})
    wait_until(lambda: "before" in intake.seen, 20)
    keeper._shipper.kill()
    log.append({"_id": "after"})
    wait_until(lambda: "after" in intake.seen, 20)
    assert intake.seen == {"before": 1, "after": 1}
    log.close()


def test_of_two_shippers_one_ships_and_the_other_goes_on_when_it_ends(tmp_path: Path, keep, intake: Intake) -> None:
    log, first, _ = AuditLog(tmp_path / "audit"), keep(), keep()
    for number in range(20):
        log.append({"_id": str(number)})
        if number == 10:
            wait_until(lambda: len(intake.seen) == 11, 20)
            first.stop()
    wait_until(lambda: len(intake.seen) == 20, 20)
    assert set(intake.seen.values()) == {1}
    log.close()


def test_a_shipper_that_is_no_longer_wanted_ships_the_rest_first(tmp_path: Path, keep, intake: Intake) -> None:
    log, keeper = AuditLog(tmp_path / "audit"), keep()
    for number in range(500):
        log.append({"_id": str(number)})
    log.close()
    keeper.stop()
    assert len(intake.seen) == 500
    assert not list((tmp_path / "audit").glob("*.jsonl"))
