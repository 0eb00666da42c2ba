"""What a caller asks a gateway, as values: a request, and what its answer becomes. Both clients send these."""

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
import orjson
from tenacity import RetryCallState

from modelyard_serving.call_errors import CallFailed, ConnectionLost, Timeout, error_class

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer. `id` is what feedback refers to, and what `yard trace` takes."""

    id: str
    predictions: list[Any]
    probabilities: list[list[float]] | None
    classes: list[Any] | None
    version: int
    variant: str | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what its answer becomes."""

    method: str
    path: str
    read: Callable[[httpx.Response, dict[str, Any]], T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def predict(
    endpoint: str,
    rows: Any,
    columns: Sequence[str] | None,
    unit: str | None,
    version: int | None,
    idempotency_key: str | None,
) -> Call[Prediction]:
    exact = "" if version is None else f"/versions/{version}"
    headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
    if unit is not None:
        headers["x-unit-id"] = unit
    content = orjson.dumps({"rows": _records(rows, columns)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call("POST", f"/v1/endpoints/{endpoint}{exact}/predict", _read_prediction, content, headers)


def _read_prediction(response: httpx.Response, answer: dict[str, Any]) -> Prediction:
    return Prediction(
        answer["prediction_id"],
        answer["predictions"],
        answer.get("probabilities"),
        answer.get("classes"),
        answer["version"],
        response.headers.get("x-variant"),
    )


def feedback(prediction_id: str, truth: Any, reward: float | None) -> Call[None]:
    said = {"truth": truth} if reward is None else {"reward": reward}
    content = orjson.dumps({"prediction_id": prediction_id, **said}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call("POST", "/v1/feedback", lambda *_: None, content)


def feedback_many(said: Sequence[Mapping[str, Any]]) -> Call[dict[str, Any]]:
    content = orjson.dumps({"feedback": [dict(one) for one in said]}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call("POST", "/v1/feedback", lambda _, answer: answer, content)


def results(endpoint: str) -> Call[dict[str, Any]]:
    return Call("GET", f"/v1/endpoints/{endpoint}/results", lambda _, answer: answer)


def _records(rows: Any, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a DataFrame; pandas is not imported for it
        return list(rows.to_dict("records"))
    values = rows.tolist() if hasattr(rows, "tolist") else list(rows)
    if columns is None:
        if not all(isinstance(row, Mapping) for row in values):
            raise ValueError("rows without names want `columns`: predict(table, columns=['age', 'weight'])")
        return values
    if not all(isinstance(row, list | tuple) and len(row) == len(columns) for row in values):
        raise ValueError(f"each row must have {len(columns)} values, as there are columns")
    return [dict(zip(columns, row, strict=True)) for row in values]


def wait_s(state: RetryCallState) -> float:
    """What the server asked for, or twice as long each time; never in step with other callers."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, CallFailed) else None
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**state.attempt_number)
    return (asked or 0.0) + random.uniform(longest / 2, longest)  # noqa: S311 - no secret


def failure(error: httpx.TransportError) -> CallFailed:
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Timeout(f"no answer in time ({type(error).__name__})")
    return ConnectionLost(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def checked(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    said = answer if isinstance(answer, dict) else {"error": response.text[:200] or "an empty answer"}
    after = response.headers.get("retry-after", "")
    raise error_class(response.status_code)(
        str(said.get("error", "no reason given")),
        response.status_code,
        said.get("faults", ()),
        float(after) if after.isdecimal() else None,
        response.headers.get("x-prediction-id"),
    )
