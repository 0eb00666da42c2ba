"""Micro-batching: many requests, few calls, and nobody fails by another's rows."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

from modelyard_serving.runtime.batching import Batcher, Overloaded

Rows = Sequence[tuple[int, ...]]


class Doubling:
    """A model that says twice each number; one that is told so raises at 13, or takes its time."""

    def __init__(self, takes_s: float = 0.0, per_row_s: float = 0.0) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.takes_s, self.per_row_s = takes_s, per_row_s

    def __call__(self, rows: Rows, methods: tuple[str, ...]) -> dict[str, list[Any]]:
        self.batches.append(len(rows))
        self.threads.add(threading.get_ident())
        time.sleep(self.takes_s + self.per_row_s * len(rows))
        if any(row == (13,) for row in rows):
            raise ValueError("unlucky")
        return {method: [2 * row[0] for row in rows] for method in methods}


def run(model: Doubling, *asked: Rows, methods: tuple[str, ...] = ("predict",)) -> list[Any]:
    """What comes of requests that arrive in one turn."""

    async def all_at_once() -> list[Any]:
        batcher = Batcher(model, lambda _: None)
        return await asyncio.gather(*(batcher.ask(rows, methods) for rows in asked), return_exceptions=True)

    return asyncio.run(all_at_once())


def test_what_arrives_in_one_turn_is_one_call() -> None:
    model = Doubling()
    answers = run(model, *([(number,)] for number in range(100, 132)))
    assert [answer["predict"] for answer in answers] == [[2 * number] for number in range(100, 132)]
    assert model.batches == [32]


def test_each_request_gets_its_own_rows_back_in_their_order() -> None:
    assert run(Doubling(), [(1,), (2,)], [(3,)], [(4,), (5,), (6,)]) == [
        {"predict": [2, 4]},
        {"predict": [6]},
        {"predict": [8, 10, 12]},
    ]


def test_a_request_is_given_the_methods_it_asked_for_and_no_others() -> None:
    async def two() -> list[Any]:
        batcher = Batcher(Doubling(), lambda _: None)
        return await asyncio.gather(batcher.ask([(1,)], ("predict",)), batcher.ask([(2,)], ("predict_proba",)))

    assert asyncio.run(two()) == [{"predict": [2]}, {"predict_proba": [4]}]


def test_rows_that_the_model_raises_at_fail_their_own_request_alone() -> None:
    well, unlucky, too = run(Doubling(), [(1,)], [(13,)], [(2,)])
    assert (well, too) == ({"predict": [2]}, {"predict": [4]})
    assert isinstance(unlucky, ValueError)


def test_no_call_has_more_rows_than_one_request_may_have() -> None:
    model = Doubling()
    run(model, [(1,)] * 6_000, [(2,)] * 6_000, [(3,)] * 4_000)
    assert model.batches == [6_000, 10_000]


def test_a_lone_request_does_not_wait_for_company() -> None:
    async def one_after_the_other() -> float:
        batcher = Batcher(Doubling(), lambda _: None)
        started = time.perf_counter()
        for _ in range(200):
            await batcher.ask([(1,)], ("predict",))
        return time.perf_counter() - started

    assert asyncio.run(one_after_the_other()) < 2  # a wait of 10 ms each would be 2 s


def test_a_slow_model_computes_beside_the_event_loop() -> None:
    async def heartbeats() -> tuple[int, set[int]]:
        model = Doubling(takes_s=0.1)
        batcher = Batcher(model, lambda _: None)
        await batcher.ask([(1,)], ("predict",))  # how slow it is, is known from now on
        asked, beats = asyncio.ensure_future(batcher.ask([(1,)], ("predict",))), 0
        while not asked.done():
            beats += 1
            await asyncio.sleep(0.005)
        return beats, model.threads

    beats, threads = asyncio.run(heartbeats())
    assert beats >= 5
    assert len(threads) == 2


def test_what_would_be_answered_too_late_is_refused_at_once_and_the_rest_is_answered() -> None:
    async def overload() -> tuple[int, int, float]:
        batcher = Batcher(Doubling(per_row_s=0.02), lambda _: None, max_wait_s=0.4)
        await batcher.ask([(1,)], ("predict",))

        async def ask() -> str:
            try:
                await batcher.ask([(1,)], ("predict",))
            except Overloaded:
                return "refused"
            return "answered"

        started, asked = time.perf_counter(), []
        for _ in range(150):  # 200 a second, and 50 can be answered
            asked.append(asyncio.ensure_future(ask()))
            await asyncio.sleep(0.005)
        came = await asyncio.gather(*asked)
        return came.count("answered"), came.count("refused"), time.perf_counter() - started

    answered, refused, seconds = asyncio.run(overload())
    assert answered + refused == 150
    assert answered >= 20
    assert refused >= 20
    assert seconds < 4


def test_a_request_whose_caller_is_gone_is_not_computed() -> None:
    async def gone() -> list[int]:
        model = Doubling(takes_s=0.05)
        batcher = Batcher(model, lambda _: None)
        await batcher.ask([(1,)], ("predict",))
        under_way = asyncio.ensure_future(batcher.ask([(1,)], ("predict",)))
        await asyncio.sleep(0.01)
        goes, stays = (asyncio.ensure_future(batcher.ask([(2,)] * n, ("predict",))) for n in (5, 3))
        await asyncio.sleep(0)
        goes.cancel()
        await asyncio.wait([under_way, goes, stays])
        return model.batches

    assert asyncio.run(gone()) == [1, 1, 3]


def test_how_many_rows_each_call_has_is_told() -> None:
    told: list[int] = []

    async def three() -> None:
        batcher = Batcher(lambda rows, methods: dict.fromkeys(methods, [0] * len(rows)), told.append)
        await asyncio.gather(*(batcher.ask([(1,)] * 2, ("predict",)) for _ in range(3)))

    asyncio.run(three())
    assert told == [6]
