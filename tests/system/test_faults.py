"""Longer fault tests on the whole road: `make faults-system`."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import psutil
import pytest

from .conftest import Road, recorded_row

pytestmark = [pytest.mark.system, pytest.mark.faults, pytest.mark.timeout(900)]

PREDICT = "/v1/endpoints/tumor/predict"


class Callers:
    """Four callers who ask without a pause; what they were answered, and what went wrong."""

    def __init__(self, road: Road) -> None:
        self.ids: list[str] = []
        self.failures: list[int | str] = []
        self._stop = False
        row = recorded_row(road.yard.db.predictions.find_one({"status": 200}))
        self._threads = [Thread(target=self._ask, args=(road, row, number)) for number in range(4)]

    def _ask(self, road: Road, row: dict, number: int) -> None:
        with road.http as http:
            while not self._stop:
                try:
                    answer = http.post(PREDICT, json={"rows": [row]}, headers={"x-unit-id": f"caller-{number}"})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.ids.append(answer.json()["prediction_id"])
                else:
                    self.failures.append(answer.status_code)
                    time.sleep(0.05)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join()


@contextmanager
def calling(road: Road) -> Iterator[Callers]:
    callers = Callers(road)
    callers.start()
    try:
        yield callers
    finally:
        callers.stop()


def all_audited_once(road: Road, ids: list[str], timeout_s: float = 60) -> None:
    assert len(ids) == len(set(ids))
    deadline = time.monotonic() + timeout_s
    while (found := road.yard.db.predictions.count_documents({"_id": {"$in": ids}})) < len(ids):
        assert time.monotonic() < deadline, (
            f"{len(ids) - found} of {len(ids)} answered predictions are not in the audit"
        )
        time.sleep(0.2)


def kill(pid: int) -> None:
    root = psutil.Process(pid)
    for process in (*root.children(recursive=True), root):
        process.send_signal(signal.SIGKILL)


def wait_for(road: Road, version: str) -> None:
    deadline = time.monotonic() + 60
    with road.http as http:
        while http.get(f"/v1/endpoints/tumor/versions/{version}/provenance").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_model_that_is_killed_ten_times_under_load_loses_no_answered_prediction(road: Road) -> None:
    processes = road.yard.stack.processes
    with calling(road) as callers:
        for number in range(10):
            version = ("1", "2")[number % 2]
            kill(processes.state(f"tumor-{version}.1").pid)
            wait_for(road, version)
            time.sleep(1)
    assert len(callers.ids) > 100
    all_audited_once(road, callers.ids)


def test_a_database_that_is_killed_three_times_stops_no_prediction(road: Road) -> None:
    processes = road.yard.stack.processes
    with calling(road) as callers:
        for _ in range(3):
            time.sleep(2)
            kill(processes.state("mongod").pid)
            time.sleep(3)
    assert callers.failures == []
    assert len(callers.ids) > 100
    time.sleep(5)
    all_audited_once(road, callers.ids)


def test_twenty_changes_of_the_split_under_load_fail_no_request(road: Road) -> None:
    with calling(road) as callers:
        for number in range(20):
            share = (number * 7) % 100
            road.yard.split("tumor", {"champion": 100 - share, "challenger": share})
            time.sleep(0.3)
    road.yard.split("tumor", {"champion": 80, "challenger": 20})
    assert callers.failures == []
    assert len(callers.ids) > 100
