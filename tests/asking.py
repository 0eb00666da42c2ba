"""Many callers at once, over raw HTTP/1.1: each connection asks again when it was answered, or at a given rate."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Thread

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to. `status` 0: the connection broke."""

    unit: str
    status: int
    variant: str
    id: str
    began: float  # time.monotonic
    seconds: float


@dataclass
class Callers:
    """What to send, and what was answered so far."""

    port: int
    path: str
    token: str
    body: bytes
    units: int = 1000
    answers: list[Answer] = field(default_factory=list)
    stopped: bool = False
    host: str = "127.0.0.1"

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    @property
    def ids(self) -> list[str]:
        """Of what was answered well."""
        return [answer.id for answer in self.answers if answer.status == 200]

    def told(self) -> str:
        """What came of it, for the table of figures."""
        failed = sum(count for status, count in self.statuses.items() if status != 200)
        slowest = max(answer.seconds for answer in self.answers)
        return f"{failed} of {len(self.answers):,} failed, the slowest {slowest:.2f} s"

    def request(self, unit: str) -> bytes:
        lines = (
            f"POST {self.path} HTTP/1.1", "host: x", f"authorization: Bearer {self.token}", f"x-unit-id: {unit}",
            "content-type: application/json", f"content-length: {len(self.body)}", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode() + self.body

    async def closed_loop(self, connections: int, at_most_per_s: float = float("inf")) -> None:
        """Until `stopped`. Each waits for its answer, then for a while that keeps all of them below a rate."""
        number, pause_s = count(), connections / at_most_per_s

        async def caller(first_s: float) -> None:
            await asyncio.sleep(first_s)
            line = _Line(self.host, self.port)
            while not self.stopped:
                await self._ask(line, f"unit-{next(number) % self.units}")
                await asyncio.sleep(pause_s)
            line.close()

        await asyncio.gather(*(caller(pause_s * one / connections) for one in range(connections)))

    async def open_loop(self, per_s: float, seconds: float) -> None:
        """As many requests a second as said, whether or not the ones before were answered."""
        idle: list[_Line] = []
        running: set[asyncio.Task[None]] = set()

        async def one(unit: str) -> None:
            line = idle.pop() if idle else _Line(self.host, self.port)
            await self._ask(line, unit)
            idle.append(line)

        started = time.monotonic()
        for number in range(int(per_s * seconds)):
            if (early := started + number / per_s - time.monotonic()) > 0.001:
                await asyncio.sleep(early)
            task = asyncio.create_task(one(f"unit-{number % self.units}"))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running, timeout=PATIENCE_S)
        for line in idle:
            line.close()

    async def _ask(self, line: "_Line", unit: str) -> None:
        began = time.monotonic()
        try:
            head, body = await asyncio.wait_for(line.send(self.request(unit)), PATIENCE_S)
            status = int(head[9:12])
            variant = next((row[11:].decode() for row in head.split(b"\r\n") if row.startswith(b"x-variant: ")), "")
            prediction = json.loads(body).get("prediction_id", "")
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
            line.close()
            status, variant, prediction = 0, "", ""
            await asyncio.sleep(0.01)
        self.answers.append(Answer(unit, status, variant, prediction, began, time.monotonic() - began))


class _Line:
    """A kept-alive connection, made when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[bytes, bytes]:
        """The head of the answer, its header names in lower case as Envoy writes them, and its body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(row[16:]) for row in head.split(b"\r\n") if row.startswith(b"content-length: "))
        body = await reader.readexactly(length)
        if b"\r\nconnection: close\r\n" in head:
            self.close()
        return head, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@contextmanager
def calling(
    callers: Callers, connections: int, at_least: int = 0, at_most_per_s: float = float("inf")
) -> Iterator[Callers]:
    """Have them ask while the block runs, and until so many requests were answered."""
    thread = Thread(target=lambda: asyncio.run(callers.closed_loop(connections, at_most_per_s)))
    thread.start()
    try:
        yield callers
        wait_until(lambda: len(callers.answers) >= at_least, 300)
    finally:
        callers.stopped = True
        thread.join()


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)
