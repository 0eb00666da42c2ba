"""What goes wrong while callers ask: `make faults-serving`, on a real stack with real models."""

import asyncio
import gzip
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.base import BaseEstimator, RegressorMixin

from asking import Callers, calling, wait_until
from modelyard_build.checks.bad_requests import bad_requests
from modelyard_serving.manifest import Manifest
from modelyard_serving.split import BUCKETS, BucketTable, bucket
from modelyard_tracking.store import Home
from stand import PREDICT, ROW, Stand, standing

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

AT_LEAST = 20_000
PER_S = 1_200  # what two cores carry and have room besides: at their limit a replica takes half a minute to start
BOTH = pytest.mark.parametrize("connections", [32, 256])


@pytest.fixture
def stand(home: Home, tmp_path: Path) -> Iterator[Stand]:
    with standing(home, tmp_path) as running:
        yield running


Figure = Callable[[str], None]


def all_well(callers: Callers, figure: Figure) -> None:
    figure(callers.told())
    assert set(callers.statuses) == {200}, callers.statuses
    assert len(callers.ids) == len(set(callers.ids)) >= AT_LEAST


def all_audited_once(stand: Stand, ids: list[str], timeout_s: float = 180) -> None:
    """MongoDB keeps an id once; so as many as were answered, and none is missing."""
    wait_until(lambda: stand.audited(ids) == len(ids), timeout_s)


@BOTH
def test_a_replica_that_is_killed_twenty_times_fails_no_request(stand: Stand, connections: int, figure: Figure) -> None:
    deployed = stand.deploy(stand.version(1), 2)
    with calling(stand.callers(), connections, AT_LEAST, PER_S) as callers:
        for number in range(20):
            stand.process(f"tumor-1.{1 + number % 2}").kill()
            time.sleep(0.5)
            wait_until(lambda: stand.ready(deployed), 60)
            time.sleep(0.5)
    all_well(callers, figure)
    all_audited_once(stand, callers.ids)


def test_a_runtime_that_is_killed_fifty_times_loses_no_answered_prediction(stand: Stand, figure: Figure) -> None:
    deployed = stand.deploy(stand.version(1), 2)
    with calling(stand.callers(), 32, AT_LEAST, PER_S) as callers:
        for number in range(50):
            stand.process(f"tumor-1.{1 + number % 2}").kill()
            wait_until(lambda: stand.ready(deployed), 60)
    assert len(callers.ids) == len(set(callers.ids)) >= AT_LEAST
    all_audited_once(stand, callers.ids)
    figure(f"{len(callers.ids):,} ids answered, each in the audit once; {callers.told()}")


def test_twenty_changes_of_the_split_fail_no_request_and_move_as_few_units_as_they_must(
    stand: Stand, figure: Figure
) -> None:
    stand.deploy(stand.version(1))
    stand.deploy(stand.version(2), variant="challenger")
    shares = [80, 20, 50, 55, 90, 10, 30, 70, 65, 35, 0, 100, 40, 60, 25, 75, 5, 95, 45, 80]
    tables: dict[int, BucketTable] = {}
    with calling(stand.callers(), 32, AT_LEAST, PER_S) as callers:
        for share in shares:
            changed = stand.yard.split("tumor", {"champion": share, "challenger": 100 - share})
            tables[changed.revision] = changed.table
            time.sleep(2.5)
    all_well(callers, figure)
    moved = _moves(list(tables.values()))
    figure(f"{sum(moved):,} buckets moved in 19 changes, as many as must")
    assert moved == [abs(after - before) * BUCKETS // 100 for before, after in pairwise(shares)]
    all_audited_once(stand, callers.ids)
    seen = Counter[str]()
    salt = stand.yard.endpoints.endpoint("tumor").salt
    for record in stand.yard.db.predictions.find({"epoch": {"$in": list(tables)}}, {"inputs": 0, "outputs": 0}):
        table = tables[record["epoch"]]
        assert record["bucket"] == bucket(salt, record["unit"])
        assert record["variant"] == table.owner(record["bucket"])
        seen[record["variant"]] += 1
    assert min(seen.values()) > 1_000


def _moves(tables: list[BucketTable]) -> list[int]:
    """How many buckets have another owner, from each table to the next."""
    owners = [[table.owner(number) for number in range(BUCKETS)] for table in tables]
    return [sum(a != b for a, b in zip(one, two, strict=True)) for one, two in pairwise(owners)]


@BOTH
def test_twenty_new_configurations_fail_no_request(stand: Stand, connections: int, figure: Figure) -> None:
    stand.deploy(stand.version(1))
    with calling(stand.callers(), connections, AT_LEAST, PER_S) as callers:
        for number in range(20):
            key, _ = stand.yard.issue_key(f"caller-{number}", ["predict:tumor"], rate=100)
            stand.yard.revoke_key(key.id)
            time.sleep(0.2)
    all_well(callers, figure)


def test_ten_rolling_deploys_fail_no_request(stand: Stand, figure: Figure) -> None:
    stand.deploy(stand.version(1), 2)
    with calling(stand.callers(), 32, AT_LEAST, PER_S) as callers:
        for bento in "bcdefghijk":
            deployed = stand.deploy(stand.version(1, bento=bento))
            assert len(deployed.ports) == 2
    all_well(callers, figure)
    all_audited_once(stand, callers.ids)
    assert stand.yard.db.predictions.count_documents({"bento_sha256": "k" * 64}) > 0


@pytest.mark.parametrize("who", ["console", "MongoDB"])
def test_while_the_console_or_the_database_is_away_predictions_go_on_and_the_audit_catches_up(
    stand: Stand, mongo_port: int, who: str, figure: Figure
) -> None:
    stand.deploy(stand.version(1))
    away = stand.process("console") if who == "console" else _listening(mongo_port)
    with calling(stand.callers(), 32, AT_LEAST, PER_S) as callers:
        time.sleep(1)
        away.suspend()
        time.sleep(15)
        away.resume()
    all_well(callers, figure)
    all_audited_once(stand, callers.ids)


def _listening(port: int) -> psutil.Process:
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid
    )


def test_a_variant_that_answers_nothing_is_given_up_in_time_and_costs_the_other_nothing(
    stand: Stand, figure: Figure
) -> None:
    stand.deploy(stand.version(1))
    stand.deploy(stand.version(2), variant="challenger")
    serving = stand.yard.serving
    serving.change("deploy", "tumor", "t", lambda: stand.yard.endpoints.endpoint("tumor").with_timeout(2.0), "")
    stand.yard.split("tumor", {"champion": 80, "challenger": 20})
    with calling(stand.callers(), 32, AT_LEAST // 4, PER_S) as callers:
        time.sleep(3)
        hole, began = stand.process("tumor-2.1"), time.monotonic()
        hole.suspend()
        time.sleep(12)
        ended = time.monotonic()
        hole.resume()
    during = [answer for answer in callers.answers if began < answer.began < ended - 3]
    champion = [answer for answer in during if answer.variant == "champion"]
    challenger = [answer for answer in during if answer.variant != "champion"]
    assert {answer.status for answer in champion} == {200}
    assert {answer.status for answer in challenger} <= {503, 504}
    slowest = max(answer.seconds for answer in challenger)
    figure(f"given up after {slowest:.1f} s (2 s allowed); 0 of {len(champion):,} of the other variant failed")
    assert slowest < 4
    before = [answer.seconds for answer in callers.answers if answer.began < began and answer.variant == "champion"]
    # Fewer callers get through to it, since most wait for the other; nobody waits longer for the champion.
    assert statistics.median(answer.seconds for answer in champion) < 2 * statistics.median(before) + 0.02


class Taking(RegressorMixin, BaseEstimator):
    """A model that takes 10 ms for each row, so that what it can do does not depend on this machine, and ten times as
    much is still less than these callers can ask on two cores."""

    def predict(self, x: Any) -> Any:
        time.sleep(0.010 * len(x))
        return np.zeros(len(x))


def test_ten_times_more_than_a_model_can_answer_leaves_it_answering_what_it_can(stand: Stand, figure: Figure) -> None:
    stand.deploy(stand.version(1, Taking(), pickled_for=Path(__file__).parent))
    with calling(stand.callers(), 64, 100) as callers:
        time.sleep(10)
    capacity = len(callers.ids) / 10
    assert set(callers.statuses) == {200}
    flooding = stand.callers()
    began = time.monotonic()
    asyncio.run(flooding.open_loop(10 * capacity, 60))
    goodput = len(flooding.ids) / (time.monotonic() - began)
    figure(f"capacity {capacity:.0f}/s, asked {10 * capacity:.0f}/s for 60 s, goodput {goodput / capacity:.0%} of it")
    assert set(flooding.statuses) <= {200, 503}
    assert goodput >= 0.8 * capacity
    refused = [answer.seconds for answer in flooding.answers if answer.status == 503]
    assert statistics.median(refused) < 0.5


def test_five_thousand_malformed_requests_over_every_door_get_no_answer_of_500_or_more(
    stand: Stand, figure: Figure
) -> None:
    deployed = stand.deploy(stand.version(1))
    manifest = Manifest.read(Path(deployed.bento_path) / "src")
    addresses = {"/predict": PREDICT, "/invocations": "/v1/endpoints/tumor/invocations"}
    statuses: Counter[int] = Counter()
    with stand.http() as http:
        for seed in range(10):
            for request in bad_requests(replace(manifest, model_sha256=f"{seed:064}"), ROW):
                address = addresses.get(request.path, request.path)
                answer = http.post(address, content=request.content, headers={"content-type": request.content_type})
                assert answer.status_code < 500, (request.path, request.content[:200], answer.text)
                statuses[answer.status_code] += 1
        assert http.post(PREDICT, json={"rows": [ROW]}).status_code == 200
    figure(", ".join(f"{count:,} with {status}" for status, count in sorted(statuses.items())))
    assert statuses.total() == 5_000
    assert statuses[200] == 0


def test_a_body_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(stand: Stand) -> None:
    stand.deploy(stand.version(1))
    bomb = gzip.compress(b" " * 100 * 2**20)
    with stand.http() as http:
        answer = http.post(PREDICT, content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert "send it uncompressed" in answer.json()["error"]


def test_feedback_that_is_sent_a_thousand_times_counts_once(stand: Stand) -> None:
    stand.deploy(stand.version(1))
    with stand.http() as http:
        answer = http.post(PREDICT, json={"rows": [ROW]}, headers={"x-unit-id": "patient-1"})
        said = {"prediction_id": answer.json()["prediction_id"], "reward": 1.0}
        assert {http.post("/v1/feedback", json=said).status_code for _ in range(1000)} == {200}
        wait_until(lambda: stand.audited([said["prediction_id"]]) == 1, 30)
        [champion] = http.get("/v1/endpoints/tumor/results").json()["variants"]
    assert (champion["feedback"], champion["mean_reward"]) == (1, 1.0)


def test_a_killed_replica_is_back(stand: Stand, figure: Figure) -> None:
    deployed = stand.deploy(stand.version(1), 2)
    taken = []
    for _ in range(5):
        process = stand.process("tumor-1.1")
        process.kill()
        process.wait()
        began = time.monotonic()
        wait_until(lambda: stand.ready(deployed), 60)
        taken.append(time.monotonic() - began)
    figure(f"back within {min(taken):.1f} to {max(taken):.1f} s, five times")
    assert statistics.median(taken) < 10
