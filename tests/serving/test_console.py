"""The console over a real MongoDB: audit intake and feedback."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import httpx
import orjson
import pytest

from modelyard_serving.console import app as console_app
from modelyard_serving.console import intake
from modelyard_serving.console.app import create_app
from modelyard_serving.console.indexes import prepare
from modelyard_serving.endpoints import Endpoint, EndpointStore

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
        "model_sha256": "m", "bento_sha256": "b", "status": 200, "latency_ms": 2.0, "epoch": 3, "shadow": False,
        "request_id": "r", "inputs": {"columns": ["x"], "data": [[1.0]]},
        "outputs": {"predictions": ["benign"]}, "error": None, **changes,
    }  # fmt: skip


def send(console: httpx.Client, *records: dict[str, Any]) -> dict[str, int]:
    answer = console.post("/internal/audit", content=b"".join(orjson.dumps(r) + b"\n" for r in records))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_record_sent_twice_is_kept_once(console: httpx.Client, db) -> None:
    assert send(console, record()) == {"received": 1, "new": 1, "bad": 0}
    assert send(console, record(), record(_id="f" * 32)) == {"received": 2, "new": 1, "bad": 0}
    assert db.predictions.count_documents({}) == 2


@pytest.mark.parametrize(
    "rows",
    [[{"a\0b": 1}], [{"$set": {"a.b": 1}}], [2**64 - 1], {"deep": [[[[1]]]]}, "text", None, [{"": None}], [-(2**63)]],
)
def test_a_record_with_rows_that_no_model_would_take_is_kept_all_the_same(console: httpx.Client, db, rows: Any) -> None:
    assert send(console, record(status=400, inputs=rows))["new"] == 1
    assert db.predictions.find_one({"_id": ID})["status"] == 400


def test_a_line_that_is_no_record_blocks_no_other_and_is_kept_apart_once(console: httpx.Client, db) -> None:
    bad = [b"{", b"null", b'{"_id": "x"}', b'{"_id": 1, "at": "2026-01-01T00:00:00Z", "status": 200, "latency_ms": 1}']
    lines = [orjson.dumps(record()), *bad, orjson.dumps(record(_id="f" * 32))]
    for new in (2, 0):
        answer = console.post("/internal/audit", content=b"\n".join(lines))
        assert answer.json() == {"received": 6, "new": new, "bad": 4}
    assert db.predictions.count_documents({}) == 2
    assert {document["line"] for document in db.bad_records.find()} == set(bad)


def test_a_record_with_a_declared_retention_expires_by_itself(console: httpx.Client, db) -> None:
    prepare(db)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    send(console, record(at=at.isoformat(), retention_days=30), record(_id="f" * 32))
    kept = {document["_id"]: document.get("expires_at") for document in db.predictions.find()}
    assert kept == {ID: at + timedelta(days=30), "f" * 32: None}
    assert db.predictions.index_information()["expiry"]["expireAfterSeconds"] == 0


def test_a_batch_that_is_too_large_is_refused_before_it_is_read(console: httpx.Client) -> None:
    answer = console.post("/internal/audit", content=b"\n" * (console_app.MAX_AUDIT_BYTES + 1))
    assert answer.status_code == 413


def test_while_mongodb_lags_the_shippers_are_told_to_wait_and_feedback_is_taken(
    db, serve_app, monkeypatch: pytest.MonkeyPatch
) -> None:
    lagging = Event()

    def slowly(*args: Any) -> intake.Taken:
        lagging.wait(20)
        return intake.take(*args)

    monkeypatch.setattr(console_app, "take", slowly)
    url = f"http://127.0.0.1:{serve_app(create_app(db, 's'))}"
    at_once = console_app.BATCHES_AT_ONCE + 1
    with httpx.Client(base_url=url, headers=SECRET, timeout=30) as console, ThreadPoolExecutor(at_once) as pool:

        def post(number: int) -> httpx.Response:
            return console.post("/internal/audit", content=orjson.dumps(record(_id=f"{number:032x}")))

        posted = [pool.submit(post, number) for number in range(at_once)]
        [refused] = [future.result() for future in [next(as_completed(posted))]]
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert console.post("/v1/feedback", json={"prediction_id": ID, "reward": 1}).status_code == 200
        lagging.set()
        assert sorted(future.result().status_code for future in posted) == [200] * (at_once - 1) + [503]


def said(console: httpx.Client) -> dict[str, Any]:
    return dict(console.get("/v1/endpoints/tumor/results").json()["feedback"])


def test_feedback_replayed_a_thousand_times_counts_once(console: httpx.Client) -> None:
    send(console, record())
    for _ in range(1000):
        answer = console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"})
        assert answer.status_code == 200
    found = console.get("/v1/endpoints/tumor/results").json()
    assert (found["variants"][0]["feedback"], found["variants"][0]["mean_reward"]) == (1, 1.0)
    assert (found["feedback"]["counted"], found["feedback"]["duplicates"]) == (1, 999)


def test_feedback_that_contradicts_an_earlier_one_is_refused_and_the_first_kept(console: httpx.Client, db) -> None:
    send(console, record())
    console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"})
    assert console.post("/v1/feedback", json={"prediction_id": ID, "truth": "malignant"}).status_code == 409
    assert db.feedback.find_one({"_id": ID})["truth"] == "benign"
    assert said(console)["contradictions"] == 1


def test_feedback_may_arrive_before_the_audit_does(console: httpx.Client) -> None:
    console.post("/v1/feedback", json={"prediction_id": ID, "reward": 0.5})
    send(console, record())
    assert console.get("/v1/endpoints/tumor/results").json()["variants"][0]["mean_reward"] == 0.5


def test_feedback_that_was_kept_and_not_joined_is_joined_when_it_is_sent_again(console: httpx.Client, db) -> None:
    console.post("/v1/feedback", json={"prediction_id": ID, "reward": 0.5})
    db.predictions.insert_one(record(at=datetime.now(UTC)))  # as if the intake had died before it joined them
    assert said(console)["counted"] == 0
    console.post("/v1/feedback", json={"prediction_id": ID, "reward": 0.5})
    assert said(console)["counted"] == 1


def test_feedback_without_an_audit_record_is_unmatched_once_that_should_have_come(console: httpx.Client, db) -> None:
    send(console, record())
    console.post("/v1/feedback", json={"prediction_id": "f" * 32, "reward": 0.5})
    assert said(console)["unmatched"] == 0, "it may be on its way"
    db.feedback.update_one({"_id": "f" * 32}, {"$set": {"at": datetime.now(UTC) - timedelta(hours=1)}})
    assert said(console)["unmatched"] == 1


def test_a_thousand_at_once_are_each_said_what_became_of_them(console: httpx.Client) -> None:
    ids = [f"{number:032x}" for number in range(999)]
    send(console, *(record(_id=i) for i in ids[:-1]), record(_id=ids[-1], caller="bob"))
    console.post("/v1/feedback", json={"prediction_id": ids[0], "truth": "malignant"})
    console.post("/v1/feedback", json={"prediction_id": ids[1], "truth": "benign"})
    items = [{"prediction_id": i, "truth": "benign"} for i in [*ids, ids[2]]]
    answer = console.post("/v1/feedback", json={"feedback": items}).json()
    assert answer == {"accepted": 996, "duplicates": 2, "contradicting": [ids[0]], "not_yours": [ids[-1]]}
    assert console.post("/v1/feedback", json={"feedback": [*items, items[0]]}).status_code == 400


def test_feedback_on_another_callers_prediction_wants_a_scope_for_its_endpoint(console: httpx.Client, db) -> None:
    send(console, record())

    def judge(scopes: str) -> int:
        headers = {"x-caller": "mallory", "x-scopes": scopes}
        return console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"}, headers=headers).status_code

    assert [judge(scopes) for scopes in ("", "feedback:digits", "predict:tumor")] == [403] * 3
    assert db.feedback.count_documents({}) == 0
    assert judge("read:tumor, feedback:tumor") == 200


def test_a_truth_may_be_any_text(console: httpx.Client) -> None:
    send(console, record(outputs={"predictions": ["feedback"]}))
    assert console.post("/v1/feedback", json={"prediction_id": ID, "truth": "feedback"}).status_code == 200
    assert said(console)["counted"] == 1


def test_who_had_no_say_does_not_keep_the_caller_from_having_one(console: httpx.Client) -> None:
    sent = {"prediction_id": ID, "truth": "malignant"}
    console.post("/v1/feedback", json=sent, headers={"x-caller": "mallory"})
    send(console, record())
    assert (said(console)["foreign"], said(console)["counted"]) == (1, 0)
    assert console.post("/v1/feedback", json={**sent, "truth": "benign"}).status_code == 200
    assert (said(console)["foreign"], said(console)["counted"]) == (0, 1)


def test_feedback_after_the_endpoints_window_is_counted_as_late(console: httpx.Client, db) -> None:
    days_ago = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    send(console, record(at=days_ago), record(_id="f" * 32, at=days_ago))
    console.post("/v1/feedback", json={"prediction_id": ID, "truth": "benign"})
    EndpointStore(db).put(replace(Endpoint.first("tumor", "champion", "tumor-1"), feedback_days=30), 1)
    console.post("/v1/feedback", json={"prediction_id": "f" * 32, "truth": "benign"})
    assert {k: v for k, v in said(console).items() if v} == {"counted": 1, "late": 1, "window_days": 30}


@pytest.mark.parametrize(
    ("sent", "outputs", "status", "expected"),
    [
        ({"reward": -2.5}, ["benign"], 200, -2.5),
        ({"truth": ["benign", "benign"]}, ["benign", "malignant"], 200, 0.5),
        ({"truth": ["benign", "benign"]}, ["benign"], 200, None),
        ({"truth": "benign"}, None, 400, None),
        ({"reward": 1.0}, None, 500, None),
    ],
)
def test_what_feedback_is_worth(
    console: httpx.Client, sent: dict, outputs: list | None, status: int, expected: float | None
) -> None:
    send(console, record(status=status, outputs=outputs and {"predictions": outputs}))
    assert console.post("/v1/feedback", json={"prediction_id": ID, **sent}).status_code == 200
    assert console.get("/v1/endpoints/tumor/results").json()["variants"][0]["mean_reward"] == expected
    assert (said(console)["counted"], said(console)["unusable"]) == ((0, 1) if expected is None else (1, 0))


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
