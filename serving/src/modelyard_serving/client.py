"""The caller's side: `Client(url, key).model("tumor").predict(rows, unit="patient-7")`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from modelyard_serving.errors import ServingError

Row = Mapping[str, Any]


class CallFailed(ServingError):
    """The endpoint refused or could not answer; `status` is HTTP's, `faults` names each place in the rows."""

    def __init__(self, status: int, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n".join([f"HTTP {status}: {message}", *faults]))
        self.status = status
        self.faults = list(faults)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer. `id` is what feedback refers to, and what `yard trace` takes."""

    id: str
    predictions: list[Any]
    probabilities: list[list[float]] | None
    classes: list[Any] | None
    version: int
    variant: str | None


class Client:
    """Talks to one gateway with one key. Connections are kept open; close it, or use `with`."""

    def __init__(self, url: str, key: str, timeout_s: float = 30.0) -> None:
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def model(self, endpoint: str) -> "ModelClient":
        return ModelClient(self._http, endpoint)

    def feedback(self, prediction_id: str, *, truth: Any = None, reward: float | None = None) -> None:
        """Say what really happened: the truth (one value, or one per row), or a reward."""
        said = {"truth": truth} if reward is None else {"reward": reward}
        _checked(self._http.post("/v1/feedback", json={"prediction_id": prediction_id, **said}))


class ModelClient:
    """One endpoint."""

    def __init__(self, client: httpx.Client, endpoint: str) -> None:
        self._http = client
        self._address = f"/v1/endpoints/{endpoint}"

    def predict(self, rows: Sequence[Row], *, unit: str | None = None, version: int | None = None) -> Prediction:
        """Ask for one answer per row.

        Args:
            rows: records, column name to value.
            unit: the user, patient or account asked about; the same unit always meets the same variant.
            version: ask this exact version, outside the split.

        Raises:
            CallFailed: the gateway or the model refused.
        """
        exact = "" if version is None else f"/versions/{version}"
        headers = {} if unit is None else {"x-unit-id": unit}
        response = self._http.post(f"{self._address}{exact}/predict", json={"rows": list(rows)}, headers=headers)
        answer = _checked(response)
        return Prediction(
            answer["prediction_id"],
            answer["predictions"],
            answer.get("probabilities"),
            answer.get("classes"),
            answer["version"],
            response.headers.get("x-variant"),
        )

    def results(self) -> list[dict[str, Any]]:
        """Per variant: units, predictions, mean reward, latency."""
        variants: list[dict[str, Any]] = _checked(self._http.get(f"{self._address}/results"))["variants"]
        return variants


def _checked(response: httpx.Response) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = response.json()
    except ValueError:
        answer = {"error": response.text[:200]}
    if response.is_error:
        raise CallFailed(response.status_code, answer.get("error", "no reason given"), answer.get("faults", ()))
    return answer
