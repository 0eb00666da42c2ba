"""Micro-batching: all requests that one turn of the event loop has brought are answered by one call of the model.

Nobody waits for company: a lone request is answered at once, and what arrives while the model computes is the next
batch, so batches grow with the load by themselves. A call costs nearly the same for one row and for a hundred.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from modelyard_serving.runtime.rows import MAX_ROWS, Values

Answers = dict[str, list[Any]]  # by method, each as long as the rows
Predict = Callable[[Sequence[Values], tuple[str, ...]], Answers]

MAX_WAIT_S = 1.0  # who would wait longer for the model than this is refused at once
_BACKLOG_S = 0.25  # a queue that empties sooner is no overload, whatever is expected: one slow call is no measure
MAX_WAITING = 2_048  # requests; bounds what is held in memory
SLOW_S = 0.005  # a call that takes longer is made beside the event loop, which goes on taking and refusing requests
_SMOOTHING = 0.2


class Overloaded(Exception):
    """More is asked than the model can answer in time; it would only be answered too late."""


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[Values]
    methods: tuple[str, ...]
    answers: "asyncio.Future[Answers]"
    since: float


class Batcher:
    """One queue in front of one model, for one event loop.

    Args:
        predict: gives answers for rows; called for no more than 10,000 rows at once.
        on_batch: told the number of rows of each call.
    """

    def __init__(self, predict: Predict, on_batch: Callable[[int], object], max_wait_s: float = MAX_WAIT_S) -> None:
        self._predict, self._on_batch, self._max_wait_s = predict, on_batch, max_wait_s
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0  # that wait
        self._busy = False  # a turn is planned or a call is under way
        self._call_s = self._row_s = 0.0  # smoothed: what one call takes, and what a row of it takes
        self._beside = ThreadPoolExecutor(1, "model")

    async def ask(self, rows: Sequence[Values], methods: tuple[str, ...]) -> Answers:
        """The model's answers.

        Raises:
            Overloaded: they would come too late.
            Exception: whatever the model raises for these rows.
        """
        now = time.perf_counter()
        if self._waiting and self._is_overloaded(now):
            raise Overloaded
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[Answers] = loop.create_future()
        self._waiting.append(_Waiting(rows, methods, answers, now))
        self._rows += len(rows)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._turn)
        return await answers

    def _is_overloaded(self, now: float) -> bool:
        expected_s = self._row_s * self._rows
        too_long = expected_s > self._max_wait_s and now - self._waiting[0].since > _BACKLOG_S
        return too_long or len(self._waiting) >= MAX_WAITING

    def _turn(self) -> None:
        """Answer everybody who is waiting now."""
        batch = self._take()
        if self._call_s > SLOW_S:
            called = asyncio.get_running_loop().run_in_executor(self._beside, self._call, batch)
            called.add_done_callback(lambda done: self._end(done.result()))
        else:
            self._end(self._call(batch))

    def _take(self) -> list[_Waiting]:
        batch, rows = list[_Waiting](), 0
        while self._waiting and (not batch or rows + len(self._waiting[0].rows) <= MAX_ROWS):
            one = self._waiting.popleft()
            self._rows -= len(one.rows)
            if not one.answers.cancelled():  # whoever asked is gone
                batch.append(one)
                rows += len(one.rows)
        return batch

    def _call(self, batch: Sequence[_Waiting]) -> list[tuple[_Waiting, Answers | Exception]]:
        """Ask the model once; if it raises, once for each request, so that nobody fails by another's rows."""
        if not batch:
            return []
        rows = [row for one in batch for row in one.rows] if len(batch) > 1 else batch[0].rows
        methods = tuple({method: None for one in batch for method in one.methods})
        started = time.perf_counter()
        self._on_batch(len(rows))
        try:
            answers = self._predict(rows, methods)
        except Exception as error:  # the model is the scientist's code
            if len(batch) == 1:
                return [(batch[0], error)]
            return [answered for one in batch for answered in self._call([one])]
        self._learn(time.perf_counter() - started, len(rows))
        if len(batch) == 1:
            return [(batch[0], answers)]
        shared, at = list[tuple[_Waiting, Answers | Exception]](), 0
        for one in batch:
            end = at + len(one.rows)
            shared.append((one, {method: answers[method][at:end] for method in one.methods}))
            at = end
        return shared

    def _learn(self, seconds: float, rows: int) -> None:
        first = self._call_s == 0.0
        weight = 1.0 if first else _SMOOTHING
        self._call_s += weight * (seconds - self._call_s)
        self._row_s += weight * (seconds / rows - self._row_s)

    def _end(self, answered: Sequence[tuple[_Waiting, Answers | Exception]]) -> None:
        for one, answers in answered:
            if one.answers.done():
                continue
            if isinstance(answers, Exception):
                one.answers.set_exception(answers)
            else:
                one.answers.set_result(answers)
        self._busy = bool(self._waiting)
        if self._busy:
            asyncio.get_running_loop().call_soon(self._turn)
