"""Server processes of a benchmark: started, waited for, and stopped with SIGSTOP while another one is measured."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

# Nobody's threads for linear algebra shall compete for the cores: there is one row to multiply.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
START_S = 240  # what imports Ray or MLflow for the first time compiles it


class Tree:
    """A process with all that it has started."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def pause(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def go_on(self) -> None:
        for process in reversed(self.processes()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """It runs; before and after, it does not take a core from others, not even for idling."""
        self.go_on()
        try:
            yield
        finally:
            self.pause()

    def rss_mb(self) -> float:
        return sum(process.memory_info().rss for process in self.processes()) / 1e6

    def wait_until_idle(self, timeout_s: float = 300) -> None:
        """Wait until it has worked off what is behind the answers, such as records still to be sent."""
        deadline, idle = time.monotonic() + timeout_s, 0
        while idle < 2:
            before = self._cpu_s()
            time.sleep(0.3)
            idle = idle + 1 if self._cpu_s() - before < 0.06 else 0
            if time.monotonic() > deadline:
                raise SystemExit(f"After {timeout_s:.0f} s the server is still busy with what came before.")

    def end(self, timeout_s: float = 10) -> None:
        """Ask the server to end, and kill what is left of its processes."""
        self.go_on()
        processes = self.processes()
        for process in processes[:1]:
            process.terminate()
            psutil.wait_procs([process], timeout=timeout_s)
        for process in psutil.wait_procs(processes, timeout=0.5)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _cpu_s(self) -> float:
        spent = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += times.user + times.system
        return spent


@contextmanager
def serving(
    command: Sequence[str], env: Mapping[str, str], folder: Path, ready_url: str, *, any_answer: bool = False
) -> Iterator[Tree]:
    """Start a server, wait until it answers, and end it with its children at the end.

    Args:
        folder: where it runs and its output goes.
        any_answer: a 404 or 405 at `ready_url` will do, too.
    """
    log = folder / "log"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            env=plain | ONE_THREAD | dict(env),
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        tree = Tree(started.pid)
        try:
            _wait(started, ready_url, any_answer, log)
            yield tree
        finally:
            tree.end()
            started.wait()


def _wait(started: "subprocess.Popen[bytes]", url: str, any_answer: bool, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(httpx.HTTPError):
            status = httpx.get(url, timeout=5).status_code
            if status < 300 or (any_answer and status < 500):
                return
        if started.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{' '.join(map(str, started.args))} did not come up. Last lines of its log:\n{tail}")
        time.sleep(0.1)
