"""A small closed-loop load generator over raw HTTP/1.1 sockets: each connection sends when it was answered."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it. Latencies in milliseconds."""

    requests: int
    failures: int
    seconds: float
    latencies_ms: Sequence[float]

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def post(port: int, path: str, headers: dict[str, str], body: bytes, connections: int, seconds: float) -> Load:
    """POST the same body over and over for `seconds`, on `connections` kept-alive connections."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body
    return asyncio.run(_post(port, request, connections, seconds))


async def _post(port: int, request: bytes, connections: int, seconds: float) -> Load:
    started = time.perf_counter()
    deadline = started + seconds
    latencies: list[float] = []
    failures = 0

    async def connection() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < deadline:
            sent = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            latencies.append((time.perf_counter() - sent) * 1000)
            failures += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return Load(len(latencies), failures, time.perf_counter() - started, latencies)
