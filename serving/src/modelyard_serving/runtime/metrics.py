"""What Prometheus may know of one replica. No label holds what a caller chose, so the page stays short."""

import os
from functools import cache

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)
from prometheus_client import generate_latest as _page
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 10_000)


class Metrics:
    """Counters of one app, in a registry of its own; of several workers, in files that they share."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._calls = Counter("modelyard_model_calls", "Times the model was asked.", registry=registry)
        self._rows = Counter("modelyard_rows", "Rows the model was asked about.", registry=registry)
        self._batch = Histogram(
            "modelyard_batch_rows", "Rows the model was asked about at once.", buckets=_ROWS, registry=registry
        )
        self._requests = Counter("modelyard_requests", "Requests for an answer.", ["door", "status"], registry=registry)
        self._seconds = Histogram(
            "modelyard_request_duration_seconds",
            "From a request's first byte to its answer's.",
            ["door"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.bad_answers = Counter(
            "modelyard_bad_answers", "Answers of the model that were refused, such as NaN.", registry=registry
        )
        self.unaudited = Counter(
            "modelyard_unaudited", "Answers that left without an audit record, as declared.", registry=registry
        )
        self.in_flight = Gauge(
            "modelyard_in_flight",
            "Requests that wait for their answer.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        # A lookup by labels costs more than the counting.
        self._count = cache(lambda door, status: self._requests.labels(door, str(status)))
        self._time = cache(lambda door: self._seconds.labels(door))

    def asked(self, rows: int) -> None:
        """Told before the model is, so that a call that fails counts, too."""
        self._calls.inc()
        self._rows.inc(rows)
        self._batch.observe(rows)

    def answered(self, door: str, status: int, seconds: float) -> None:
        self._count(door, status).inc()
        self._time(door).observe(seconds)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return _page(self._registry)
        everybodys = CollectorRegistry()
        MultiProcessCollector(everybodys)  # type: ignore[no-untyped-call]
        return _page(everybodys)
