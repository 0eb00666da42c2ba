"""The console over a real MongoDB: audit intake, feedback, results."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from modelyard_serving.console.app import create_app
from modelyard_serving.console.results import summarise

SECRET = {"x-gateway-secret": "s", "x-caller": "alice"}
ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def console(db, serve_app) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{serve_app(create_app(db, 's'))}"
    with httpx.Client(base_url=url, headers=SECRET) as client:
        yield client


def record(**changes: Any) -> dict[str, Any]:
    return {
        "_id": ID, "at": datetime.now(UTC).isoformat(), "caller": "alice", "key": "k", "unit": "u1", "bucket": 1,
        "assigned_by": "unit", "endpoint": "tumor", "variant": "champion", "model": "tumor", "version": 1,
        "model_sha256": "m", "bento_sha256": "b", "status": 200, "latency_ms": 2.0, "inputs": [{"x": 1.0}],
        "outputs": {"predictions": ["benign"]}, "error": None, **changes,
    }  # fmt: skip


def send(console: httpx.Client, *records: dict[str, Any]) -> dict[str, int]:
    answer = console.post("/internal/audit", content=b"".join(orjson.dumps(r) + b"\n" for r in records))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_record_sent_twice_is_kept_once(console: httpx.Client, db) -> None:
    assert send(console, record()) == {"received": 1, "new": 1}
    assert send(console, record(), record(_id="f" * 32)) == {"received": 2, "new": 1}
    assert db.predictions.count_documents({}) == 2


@pytest.mark.parametrize(
    "rows",
    [[{"a\0b": 1}], [{"$set": {"a.b": 1}}], [2**64 - 1], {"deep": [[[[1]]]]}, "text", None, [{"": None}], [-(2**63)]],
)
def test_a_record_with_rows_that_no_model_would_take_is_kept_all_the_same(console: httpx.Client, db, rows: Any) -> None:
    assert send(console, record(status=400, inputs=rows))["new"] == 1
    assert db.predictions.find_one({"_id": ID})["status"] == 400


def test_feedback_is_counted_once_however_often_it_is_sent(console: httpx.Client) -> None:
    send(console, record())
    for _ in range(3):
        answer = console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"})
        assert answer.status_code == 200
    variant = console.get("/v1/endpoints/tumor/results").json()["variants"][0]
    assert (variant["predictions"], variant["feedback"], variant["mean_reward"]) == (1, 1, 1.0)


def test_feedback_that_contradicts_an_earlier_one_is_refused_and_the_first_kept(console: httpx.Client, db) -> None:
    console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"})
    assert console.post("/v1/feedback", json={"prediction_id": ID, "truth": "malignant"}).status_code == 409
    assert db.feedback.find_one({"_id": ID})["truth"] == "benign"


def test_feedback_may_arrive_before_the_audit_does(console: httpx.Client) -> None:
    console.post("/v1/feedback", json={"prediction_id": ID, "reward": 0.5})
    send(console, record())
    assert console.get("/v1/endpoints/tumor/results").json()["variants"][0]["mean_reward"] == 0.5


def test_feedback_of_another_caller_does_not_count(console: httpx.Client) -> None:
    send(console, record())
    console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"}, headers={"x-caller": "mallory"})
    assert console.get("/v1/endpoints/tumor/results").json()["variants"][0]["feedback"] == 0


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "{}", f'{{"prediction_id": "{ID}"}}', f'{{"prediction_id": "{ID}", "reward": 1, "truth": 1}}',
     f'{{"prediction_id": "{ID}", "reward": "1"}}', f'{{"prediction_id": "{ID}", "reward": NaN}}',
     f'{{"prediction_id": "{ID}", "truth": []}}', f'{{"prediction_id": "{ID}", "truth": {{}}}}',
     f'{{"prediction_id": "{ID}", "truth": 18446744073709551616}}', '{"prediction_id": {"$ne": 1}, "truth": 1}',
     f'{{"prediction_id": "{ID}", "truth": "a", "more": 1}}'],
)  # fmt: skip
def test_what_is_not_feedback_is_refused_with_a_reason(console: httpx.Client, body: str) -> None:
    answer = console.post("/v1/feedback", content=body)
    assert answer.status_code == 400
    assert answer.json()["faults"]


def test_nobody_but_the_gateway_is_answered(console: httpx.Client) -> None:
    for path in ("/v1/feedback", "/internal/audit"):
        assert console.post(path, headers={"x-gateway-secret": "guess"}, content="{}").status_code == 403
    assert console.get("/v1/endpoints/tumor/results", headers={"x-gateway-secret": ""}).status_code == 403
    assert console.get("/healthz", headers={"x-gateway-secret": ""}).status_code == 200


def test_an_unknown_address_or_method_is_refused_in_json(console: httpx.Client) -> None:
    assert console.get("/nothing").json() == {"error": "Not Found"}
    assert console.get("/v1/feedback").json() == {"error": "Method Not Allowed"}


def test_results_count_units_not_requests_and_leave_out_who_was_not_assigned() -> None:
    rows = [
        record(unit="u1"), record(unit="u1", latency_ms=4.0), record(unit="u2", status=400, outputs=None),
        record(unit="u3", variant="challenger", version=2),
    ]  # fmt: skip
    champion, challenger = sorted(summarise(rows), key=lambda row: row.version)
    assert (champion.units, champion.predictions, champion.failures) == (2, 2, 1)
    assert (champion.p50_ms, champion.mean_reward) == (3.0, None)
    assert (challenger.units, challenger.predictions) == (1, 1)


def test_the_reward_of_several_rows_is_the_share_of_right_answers() -> None:
    feedback = {"caller": "alice", "reward": None, "truth": ["benign", "benign"]}
    rows = [record(outputs={"predictions": ["benign", "malignant"]}, feedback=[feedback])]
    assert summarise(rows)[0].mean_reward == 0.5


def test_truth_of_another_length_than_the_answer_does_not_count() -> None:
    feedback = {"caller": "alice", "reward": None, "truth": ["benign", "benign"]}
    assert summarise([record(feedback=[feedback])])[0].feedback == 0
