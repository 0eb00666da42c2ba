"""Results over a real MongoDB, as the intake and feedback leave it."""

import re
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import orjson
import pytest

from modelyard_serving.console.app import create_app
from modelyard_serving.console.evidence import gather
from modelyard_serving.console.feedback import Feedback, keep
from modelyard_serving.console.indexes import prepare
from modelyard_serving.console.intake import take
from modelyard_serving.console.report import report
from modelyard_serving.console.results import Results, results
from modelyard_serving.console.timeline import timeline

NOW = datetime(2026, 11, 1, tzinfo=UTC)
_ids = (f"{number:032x}" for number in count())


def record(**changes: Any) -> dict[str, Any]:
    return {
        "_id": next(_ids), "at": NOW.isoformat(), "caller": "alice", "unit": "u1", "assigned_by": "unit",
        "endpoint": "tumor", "variant": "champion", "version": 1, "epoch": 1, "shadow": False, "status": 200,
        "latency_ms": 2.0, "outputs": {"predictions": ["benign"]}, **changes,
    }  # fmt: skip


def ask(db: Any, *records: dict[str, Any], rewards: list[float] | None = None) -> None:
    taken = take(db, b"\n".join(orjson.dumps(one) for one in records))
    assert (taken.new, taken.bad) == (len(records), 0)
    said = [
        Feedback(prediction_id=one["_id"], reward=r) for one, r in zip(records, rewards or [], strict=bool(rewards))
    ]
    if said:
        keep(db, said, "alice", [], NOW + timedelta(days=1))


def split(db: Any, epoch: int, **percent: float) -> None:
    variants = {name: {"ref": "tumor:1", "share": share / 100} for name, share in percent.items()}
    db.ledger.insert_one({"_id": epoch, "kind": "split", "subject": "tumor", "facts": {"variants": variants}})


def of(found: Results, variant: str) -> Any:
    [row] = [row for row in found.variants if row.variant == variant]
    return row


def test_units_are_counted_not_requests_and_who_was_not_assigned_is_left_out(db) -> None:
    ask(
        db, record(), record(latency_ms=4.0), record(unit="u2", status=400, outputs=None),
        record(unit="u3", status=500), record(unit="bob", assigned_by="caller"),
        record(unit=None, assigned_by="no-unit"),
        record(unit="u9", assigned_by="version", variant=None), record(endpoint="digits", unit="u8"),
        record(unit="u4", variant="challenger", version=2),
    )  # fmt: skip
    found = results(db, "tumor")
    champion, challenger = of(found, "champion"), of(found, "challenger")
    assert (champion.units, champion.predictions, champion.refused, champion.failures) == (4, 3, 1, 1)
    assert (champion.error_rate, challenger.units, challenger.error_rate) == (0.2, 1, 0.0)
    assert champion.p50_ms == pytest.approx(2.0, rel=0.01)
    assert champion.p99_ms == pytest.approx(4.0, rel=0.01)
    assert (champion.mean_reward, champion.not_enough) == (None, "no feedback yet")


def test_shadows_stand_apart(db) -> None:
    ask(db, record(), record(shadow=True, variant="shadow", version=3))
    found = results(db, "tumor")
    assert [row.variant for row in found.variants] == ["champion"]
    assert [(row.variant, row.version, row.predictions) for row in found.shadows] == [("shadow", 3, 1)]


def test_a_challenger_that_is_better_shows_its_difference_with_an_interval(db) -> None:
    split(db, 1, champion=50, challenger=50)
    for number in range(200):
        variant = ("champion", 1) if number % 2 else ("challenger", 2)
        rewards = [1.0, float(number % 3 == 0 or (number % 2 == 0 and number % 5 > 0))]
        ask(db, *(record(unit=f"u{number}", variant=variant[0], version=variant[1]) for _ in "12"), rewards=rewards)
    found = results(db, "tumor")
    [compared] = found.comparisons
    expected = of(found, "challenger").mean_reward - of(found, "champion").mean_reward
    assert compared.difference == pytest.approx(expected)
    assert compared.interval[0] > 0
    assert (compared.units, found.sample_ratio.p, found.sample_ratio.alarm) == (200, 1.0, False)


def test_units_that_met_two_variants_are_counted_and_left_out_of_the_comparison(db) -> None:
    for number in range(40):
        ask(db, record(unit=f"a{number}"), rewards=[number % 2])
        ask(db, record(unit=f"b{number}", variant="challenger", version=2), rewards=[number % 2])
    ask(db, record(unit="both"), record(unit="both", variant="challenger", version=2, epoch=2), rewards=[-999, 999])
    found = results(db, "tumor")
    assert found.moved_units == 1
    assert (found.comparisons[0].units, found.comparisons[0].difference) == (80, 0.0)


def test_the_ratio_is_tested_within_each_epoch(db) -> None:
    split(db, 1, champion=80, challenger=20)
    split(db, 2, champion=50, challenger=50)
    for epoch, champions in ((1, 80), (2, 50)):
        for number in range(100):
            variant = "champion" if number < champions else "challenger"
            ask(db, record(unit=f"e{epoch}-{number}", variant=variant, epoch=epoch))
    fine = results(db, "tumor").sample_ratio
    assert ([row.p for row in fine.epochs], fine.alarm) == ([1.0, 1.0], False)
    ask(db, *(record(unit=f"more-{number}", epoch=2) for number in range(60)))
    broken = results(db, "tumor").sample_ratio
    assert broken.alarm
    assert "mistrust every number" in broken.said


def test_a_version_put_in_the_place_of_another_is_compared_by_itself(db) -> None:
    ask(db, record(version=1, epoch=1), record(version=4, epoch=2), record(variant="challenger", version=3, epoch=2))
    found = results(db, "tumor")
    assert [(row.variant, row.version) for row in found.variants] == [
        ("challenger", 3),
        ("champion", 1),
        ("champion", 4),
    ]
    assert [(c.version, c.base_version, c.difference) for c in found.comparisons] == [(3, 4, None)]


def test_what_is_summed_up_is_read_from_indexes_alone(db) -> None:
    prepare(db)
    ask(db, record(), rewards=[1.0])
    for collection, by in ((db.predictions, "cell"), (db.predictions, "speed"), (db.feedback, "cell")):
        pipeline = [{"$match": {"endpoint": "tumor", by: {"$gt": ""}}}, {"$group": {"_id": f"${by}", "n": {"$sum": 1}}}]
        command = {"aggregate": collection.name, "pipeline": pipeline, "cursor": {}}
        explained = db.command("explain", command, verbosity="queryPlanner")
        planner = explained.get("queryPlanner") or explained["stages"][0]["$cursor"]["queryPlanner"]
        plan = str(planner["winningPlan"])
        assert "IXSCAN" in plan
        assert "FETCH" not in plan


def test_an_endpoint_that_nobody_asked_has_no_results_and_no_verdict(db) -> None:
    found = results(db, "tumor")
    assert (found.variants, found.comparisons, found.sample_ratio.p) == ([], [], None)


def test_the_page_says_what_the_results_say_and_asks_nothing_of_the_network(db, serve_app) -> None:
    split(db, 1, champion=80, challenger=20)
    for number in range(60):
        variant = "challenger" if number % 2 else "champion"
        ask(db, record(unit=f"<u{number}>", variant=variant, version=number % 2), rewards=[number % 3])
    ask(db, record(shadow=True, variant="<shadow>", version=3))
    url = f"http://127.0.0.1:{serve_app(create_app(db, 's'))}/v1/endpoints/tumor/report"
    answer = httpx.get(url, headers={"x-gateway-secret": "s"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text.count("<svg") == 3
    assert "mistrust every number" in answer.text
    [compared] = results(db, "tumor").comparisons
    assert f"{compared.difference:+.4f}" in answer.text
    assert "&lt;shadow&gt;" in answer.text
    assert not re.search(r"<shadow|<script|https?:|url\(|@import", answer.text)


def test_the_page_of_an_endpoint_that_nobody_asked_says_so(db) -> None:
    text = report(db, "tumor", NOW)
    assert "No unit has been answered yet" in text
    assert "nothing to draw yet" in text


def test_the_courses_last_moment_is_what_the_results_say(db) -> None:
    for number in range(50):
        at = (NOW - timedelta(days=number % 10)).isoformat()
        ask(db, record(unit=f"u{number % 40}", at=at), rewards=[number % 3])
    course = timeline(db, "tumor", gather(db, "tumor", times=True).asked, NOW + timedelta(hours=1)).courses["champion"]
    champion = of(results(db, "tumor"), "champion")
    assert (course.units[-1], course.rewards[-1].value) == (champion.units, champion.mean_reward)
    assert course.rewards[-1].interval == pytest.approx(champion.reward_interval)
    assert list(course.units) == sorted(course.units)
    assert course.rewards[0].not_enough
