"""Load from wrk: a closed loop over raw HTTP/1.1, where each connection sends again when it was answered.

wrk costs a few microseconds a request, so that what is measured is the server, also on the same two cores. It takes
the requests of a file in turn, so that no two neighbours are the same.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True, slots=True)
class Request:
    """A POST of JSON."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def raw(self) -> bytes:
        headers = {"host": "127.0.0.1", "content-type": "application/json", **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it. A failure is an answer of 400 or above, a time-out, or a connection that broke."""

    requests: int
    failures: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


def installed() -> bool:
    return shutil.which("wrk") is not None


def drive(port: int, requests: Sequence[Request], connections: int, seconds: int) -> Load:
    """Send the requests in turn, over and over, on kept-alive connections."""
    with tempfile.NamedTemporaryFile() as file:
        for raw in (request.raw() for request in requests):
            file.write(b"%d\n%b" % (len(raw), raw))
        file.flush()
        url = f"http://127.0.0.1:{port}"
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
        done = subprocess.run(
            ["wrk", *options, url, "--", file.name], capture_output=True, text=True, timeout=seconds + 60, check=True
        )
    return Load(**json.loads(done.stdout.splitlines()[-1]))
