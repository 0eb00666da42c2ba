"""The caller's side: `Client(url, key).model("tumor").predict(rows, unit="patient-7")`, or `AsyncClient`.

What fails on the way is tried again until the deadline: a connection that cannot be made or breaks, and the statuses
429, 502, 503 and 504. Each prediction has an idempotency key, so that one that is tried again is the same prediction.
"""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_before_delay

from modelyard_serving import calls
from modelyard_serving.call_errors import CallFailed
from modelyard_serving.calls import Call, Prediction

__all__ = ["AsyncClient", "AsyncModelClient", "Client", "ModelClient", "Prediction"]

T = TypeVar("T")


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

    _transport: type[Any]

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
        self._http = self._transport(
            base_url=url,
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            timeout=httpx.Timeout(timeout_s, connect=min(connect_timeout_s, timeout_s)),
            verify=verify,
        )
        self._tries: dict[str, Any] = {
            "retry": retry_if_exception(lambda error: retry and isinstance(error, CallFailed) and error.retriable),
            "wait": calls.wait_s,
            "stop": stop_before_delay(timeout_s),
            "reraise": True,
        }


class Client(_Settings):
    __doc__ = (
        f"Talks to one gateway with one key. Connections are kept open; close it, or use `with`.\n\n{_Settings.__doc__}"
    )

    _transport = httpx.Client
    _http: httpx.Client

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
        self._send(calls.feedback(prediction_id, truth, reward))

    def feedback_many(self, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Up to 1,000 at once, each as `{"prediction_id": ..., "truth": ...}` or with `reward`.

        Returns:
            How many were `accepted` and `duplicates`, and the ids that are `contradicting` or `not_yours`.
        """
        return self._send(calls.feedback_many(said))

    def _send(self, call: Call[T]) -> T:
        answer: T = Retrying(**self._tries)(self._once, call)
        return answer

    def _once(self, call: Call[T]) -> T:
        try:
            response = self._http.request(call.method, call.path, content=call.content, headers=call.headers)
        except httpx.TransportError as error:
            raise calls.failure(error) from error
        return call.read(response, calls.checked(response))


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
        return self._client._send(calls.predict(self._endpoint, rows, columns, unit, version, idempotency_key))

    def results(self) -> dict[str, Any]:
        """What each variant did, how they differ, and whether the split can be trusted."""
        return self._client._send(calls.results(self._endpoint))


class AsyncClient(_Settings):
    __doc__ = f"`Client`, awaited. Close it, or use `async with`.\n\n{_Settings.__doc__}"

    _transport = httpx.AsyncClient
    _http: httpx.AsyncClient

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
        await self._send(calls.feedback(prediction_id, truth, reward))

    async def feedback_many(self, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """As `Client.feedback_many`."""
        return await self._send(calls.feedback_many(said))

    async def _send(self, call: Call[T]) -> T:
        return await AsyncRetrying(**self._tries)(self._once, call)

    async def _once(self, call: Call[T]) -> T:
        try:
            response = await self._http.request(call.method, call.path, content=call.content, headers=call.headers)
        except httpx.TransportError as error:
            raise calls.failure(error) from error
        return call.read(response, calls.checked(response))


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
        return await self._client._send(calls.predict(self._endpoint, rows, columns, unit, version, idempotency_key))

    async def results(self) -> dict[str, Any]:
        """As `ModelClient.results`."""
        return await self._client._send(calls.results(self._endpoint))
