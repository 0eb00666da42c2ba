"""The caller's side: `Client(url, key).model("tumor").predict(rows, unit="patient-7")`, or `AsyncClient`.

What fails on the way is tried again until the deadline: a connection that cannot be made or breaks, and the statuses
429, 502, 503 and 504. Each prediction has an idempotency key, so that one that is tried again is the same prediction.
"""

import random
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
import orjson
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_before_delay

from modelyard_serving.call_errors import CallFailed, ConnectionLost, Timeout, error_class

Row = Mapping[str, Any]
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
class _Call(Generic[T]):
    """One request, and what its answer becomes. Both clients send these."""

    method: str
    path: str
    read: Callable[[httpx.Response, dict[str, Any]], T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _Settings:
    """What both clients are made with.

    Args:
        url: of the gateway.
        key: as `yard keys create` printed it.
        timeout_s: for everything, tries and waiting included.
        connect_timeout_s: to reach the gateway, each time.
        verify: True for the CAs that the system trusts, or a file with a CA of your own.
        retry: False to try once only.
    """

    def __init__(
        self,
        url: str,
        key: str,
        timeout_s: float = 30.0,
        *,
        connect_timeout_s: float = 5.0,
        verify: bool | str | Path | ssl.SSLContext = True,
        retry: bool = True,
    ) -> None:
        if isinstance(verify, str | Path):
            verify = ssl.create_default_context(cafile=str(verify))
        self._how: dict[str, Any] = {
            "base_url": url,
            "headers": {"authorization": f"Bearer {key}", "content-type": "application/json"},
            "timeout": httpx.Timeout(timeout_s, connect=min(connect_timeout_s, timeout_s)),
            "verify": verify,
        }
        self._tries: dict[str, Any] = {
            "retry": retry_if_exception(lambda error: retry and isinstance(error, CallFailed) and error.retriable),
            "wait": _wait_s,
            "stop": stop_before_delay(timeout_s),
            "reraise": True,
        }


class Client(_Settings):
    __doc__ = (
        f"Talks to one gateway with one key. Connections are kept open; close it, or use `with`.\n\n{_Settings.__doc__}"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = httpx.Client(**self._how)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def model(self, endpoint: str) -> "ModelClient":
        return ModelClient(self, endpoint)

    def feedback(self, prediction_id: str, *, truth: Any = None, reward: float | None = None) -> None:
        """Say what really happened: the truth (one value, or one per row), or a reward. It counts once."""
        self._send(_feedback(prediction_id, truth, reward))

    def feedback_many(self, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Up to 1,000 at once, each as `{"prediction_id": ..., "truth": ...}` or with `reward`.

        Returns:
            How many were `accepted` and `duplicates`, and the ids that are `contradicting` or `not_yours`.
        """
        return self._send(_feedback_many(said))

    def _send(self, call: _Call[T]) -> T:
        answer: T = Retrying(**self._tries)(self._once, call)
        return answer

    def _once(self, call: _Call[T]) -> T:
        try:
            response = self._http.request(call.method, call.path, content=call.content, headers=call.headers)
        except httpx.TransportError as error:
            raise _failure(error) from error
        return call.read(response, _checked(response))


class ModelClient:
    """One endpoint."""

    def __init__(self, client: Client, endpoint: str) -> None:
        self._client = client
        self._endpoint = endpoint

    def predict(
        self,
        rows: Any,
        *,
        columns: Sequence[str] | None = None,
        unit: str | None = None,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Prediction:
        """Ask for one answer per row.

        Args:
            rows: records (column name to value), a pandas DataFrame, or a table of numbers with its `columns`.
            unit: the user, patient or account asked about; the same unit always meets the same variant.
            version: ask this exact version, outside the split.
            idempotency_key: what makes two calls the same prediction; by default each call is its own.

        Raises:
            CallFailed: the gateway or the model refused, or did not answer.
        """
        return self._client._send(_predict(self._endpoint, rows, columns, unit, version, idempotency_key))

    def results(self) -> dict[str, Any]:
        """What each variant did, how they differ, and whether the split can be trusted."""
        return self._client._send(_results(self._endpoint))


class AsyncClient(_Settings):
    __doc__ = f"`Client`, awaited. Close it, or use `async with`.\n\n{_Settings.__doc__}"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = httpx.AsyncClient(**self._how)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    def model(self, endpoint: str) -> "AsyncModelClient":
        return AsyncModelClient(self, endpoint)

    async def feedback(self, prediction_id: str, *, truth: Any = None, reward: float | None = None) -> None:
        """As `Client.feedback`."""
        await self._send(_feedback(prediction_id, truth, reward))

    async def feedback_many(self, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """As `Client.feedback_many`."""
        return await self._send(_feedback_many(said))

    async def _send(self, call: _Call[T]) -> T:
        return await AsyncRetrying(**self._tries)(self._once, call)

    async def _once(self, call: _Call[T]) -> T:
        try:
            response = await self._http.request(call.method, call.path, content=call.content, headers=call.headers)
        except httpx.TransportError as error:
            raise _failure(error) from error
        return call.read(response, _checked(response))


class AsyncModelClient:
    """One endpoint, awaited."""

    def __init__(self, client: AsyncClient, endpoint: str) -> None:
        self._client = client
        self._endpoint = endpoint

    async def predict(
        self,
        rows: Any,
        *,
        columns: Sequence[str] | None = None,
        unit: str | None = None,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Prediction:
        """As `ModelClient.predict`."""
        return await self._client._send(_predict(self._endpoint, rows, columns, unit, version, idempotency_key))

    async def results(self) -> dict[str, Any]:
        """As `ModelClient.results`."""
        return await self._client._send(_results(self._endpoint))


def _predict(
    endpoint: str,
    rows: Any,
    columns: Sequence[str] | None,
    unit: str | None,
    version: int | None,
    idempotency_key: str | None,
) -> _Call[Prediction]:
    exact = "" if version is None else f"/versions/{version}"
    headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
    if unit is not None:
        headers["x-unit-id"] = unit
    content = orjson.dumps({"rows": _records(rows, columns)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return _Call("POST", f"/v1/endpoints/{endpoint}{exact}/predict", _read_prediction, content, headers)


def _read_prediction(response: httpx.Response, answer: dict[str, Any]) -> Prediction:
    return Prediction(
        answer["prediction_id"],
        answer["predictions"],
        answer.get("probabilities"),
        answer.get("classes"),
        answer["version"],
        response.headers.get("x-variant"),
    )


def _feedback(prediction_id: str, truth: Any, reward: float | None) -> _Call[None]:
    said = {"truth": truth} if reward is None else {"reward": reward}
    content = orjson.dumps({"prediction_id": prediction_id, **said}, option=orjson.OPT_SERIALIZE_NUMPY)
    return _Call("POST", "/v1/feedback", lambda *_: None, content)


def _feedback_many(said: Sequence[Mapping[str, Any]]) -> _Call[dict[str, Any]]:
    content = orjson.dumps({"feedback": [dict(one) for one in said]}, option=orjson.OPT_SERIALIZE_NUMPY)
    return _Call("POST", "/v1/feedback", lambda _, answer: answer, content)


def _results(endpoint: str) -> _Call[dict[str, Any]]:
    return _Call("GET", f"/v1/endpoints/{endpoint}/results", lambda _, answer: answer)


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


def _wait_s(state: RetryCallState) -> float:
    """What the server asked for, or twice as long each time; never in step with other callers."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, CallFailed) else None
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**state.attempt_number)
    return (asked or 0.0) + random.uniform(longest / 2, longest)  # noqa: S311 - no secret


def _failure(error: httpx.TransportError) -> CallFailed:
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Timeout(f"no answer in time ({type(error).__name__})")
    return ConnectionLost(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _checked(response: httpx.Response) -> dict[str, Any]:
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
