"""What Prometheus may know of one replica. No label holds what a caller chose, so the page stays short."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client import generate_latest as _page

from modelyard_serving.runtime.kinds.ask import Ask

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one app, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._calls = Counter("modelyard_model_calls", "Times the model was asked.", registry=self._registry)
        self._rows = Counter("modelyard_rows", "Rows the model was asked about.", registry=self._registry)
        self._requests = Counter(
            "modelyard_requests", "Requests for an answer.", ["door", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "modelyard_request_duration_seconds",
            "From a request's first byte to its answer's.",
            ["door"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def counted(self, ask: Ask) -> Ask:
        """The same model; it is counted before it is asked, so that one that raises counts, too."""

        def counting(table: pd.DataFrame, methods: Sequence[str]) -> list[Any]:
            self._calls.inc()
            self._rows.inc(len(table))
            return ask(table, methods)

        return counting

    def answered(self, door: str, status: int, seconds: float) -> None:
        self._requests.labels(door, str(status)).inc()
        self._seconds.labels(door).observe(seconds)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return _page(self._registry)
