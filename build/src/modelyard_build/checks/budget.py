"""Time and memory: how long one row takes, one after the other, and what the server holds."""

import math
import time
from typing import NamedTuple

from modelyard_build.checks.doors import PREDICT
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served

WARM_UP = 20
REQUESTS = 200
FEWEST = 20
LONGEST_S = 15.0  # a model that is far too slow is measured on fewer requests
ROUNDS = 3  # the machine may be busy with something else, a model that is slow is slow each time


def check(served: Served, subject: Subject) -> Finding:
    endpoint, best = subject.endpoint, _Times(math.inf, math.inf)
    for _ in range(ROUNDS):
        times = _measure(served, subject)
        if isinstance(times, str):
            return _failed(times, "")
        best = min(best, times)
        if best.p99_ms <= endpoint.p99_ms:
            break
    memory_mb = served.memory_mb()
    measured = f"p50 {best.p50_ms:.1f} ms, p99 {best.p99_ms:.1f} ms, {memory_mb:.0f} MB"
    over = []
    if best.p99_ms > endpoint.p99_ms:
        over.append(f"p99 is {best.p99_ms:.1f} ms, and p99_ms allows {endpoint.p99_ms:g}")
    if memory_mb > endpoint.memory_mb:
        over.append(f"it holds {memory_mb:.0f} MB, and memory_mb allows {endpoint.memory_mb:g}")
    if over:
        return _failed(" and ".join(over), measured)
    message = f"one row within {endpoint.p99_ms:g} ms at p99, and within {endpoint.memory_mb:g} MB"
    return Finding("budget", True, message, measured=measured)


class _Times(NamedTuple):
    p99_ms: float
    p50_ms: float


def _measure(served: Served, subject: Subject) -> _Times | str:
    """How long requests take after some to warm up; or why that cannot be said."""
    rows, taken_ms = subject.golden_rows, list[float]()
    began = time.monotonic()
    for number in range(WARM_UP + REQUESTS):
        started = time.perf_counter()
        answer = PREDICT.ask(served.http, subject.manifest, [rows[number % len(rows)]])
        if answer.fault:
            return f"a golden row was answered with {answer.fault}"
        if number >= WARM_UP:
            taken_ms.append((time.perf_counter() - started) * 1000)
        if len(taken_ms) >= FEWEST and time.monotonic() - began > LONGEST_S:
            break
    taken_ms.sort()
    return _Times(*(taken_ms[int(len(taken_ms) * share)] for share in (0.99, 0.5)))


def _failed(message: str, measured: str) -> Finding:
    remedy = "Make the model smaller or faster, or allow more in [endpoint] of project.toml if callers can bear it."
    return Finding("budget", False, message, remedy, measured=measured)
