"""Processes of the local stage, kept alive by supervisord.

A process is one file in `programs/`; supervisord starts it, restarts it when it dies (at once, unless it lived
for less than a second), and stops it with its whole group. It is a daemon of its own, so what it keeps alive
outlives the command that asked for it.
"""

import configparser
import http.client
import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from modelyard_serving.errors import NotFound, Refused, Unavailable
from modelyard_serving.sockets import socket_path


@dataclass(frozen=True, slots=True)
class Process:
    """A program to keep alive. Its output goes to `logs/NAME.log`.

    Secrets belong in `env`: everybody on the machine can read a command line.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    priority: int = 100  # started in rising order, stopped in falling order
    stop_wait_s: int = 10


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What supervisord sees: RUNNING, STARTING, BACKOFF, FATAL, STOPPED or EXITED, and why."""

    name: str
    state: str
    pid: int
    description: str


class Processes:
    """The supervisor of one `.yard` folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._programs = home / "supervisor" / "programs"
        self.logs = home / "logs"
        self._socket = socket_path(home / "supervisor" / "control.sock")

    def start_supervisor(self) -> None:
        """Start supervisord unless it runs. It starts with no program: what should run is written down elsewhere."""
        if self.running():
            return
        self._end_orphans()
        for folder in (self._programs, self.logs, self._socket.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._socket.unlink(missing_ok=True)
        for program in self._programs.glob("*.conf"):
            program.unlink()
        config = self._home / "supervisor" / "supervisord.conf"
        _write_ini(config, _supervisor_sections(self._home, self._socket, self._programs, self.logs))
        started = subprocess.run(
            [sys.executable, "-m", "modelyard_serving.supervisord", "-c", str(config)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C meant for the command must not reach it
        )
        deadline = time.monotonic() + 10
        while not self.running():
            if started.returncode or time.monotonic() > deadline:
                raise Unavailable(
                    f"supervisord did not start: {(started.stderr or started.stdout).strip() or 'no answer'}\n"
                    f"Its log:  {self.logs / 'supervisord.log'}"
                )
            time.sleep(0.05)

    def stop_supervisor(self, timeout_s: float = 40) -> bool:
        """Stop every program and then supervisord. False if nothing ran."""
        pid = self._pid()
        if pid is None:
            return self._end_orphans()
        self._call("shutdown")
        deadline = time.monotonic() + timeout_s
        while _alive(pid):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"supervisord (process {pid}) did not end within {timeout_s:.0f} s. End it:  kill -9 {pid}"
                )
            time.sleep(0.05)
        self._socket.unlink(missing_ok=True)
        return True

    def running(self) -> bool:
        return self._pid() is not None

    def ensure(self, process: Process) -> None:
        """Write the program down and start it; one that already runs with the same settings is left alone."""
        before = self._file(process.name).read_text() if self._file(process.name).exists() else None
        _write_ini(self._file(process.name), {f"program:{process.name}": _program(process, self.logs)})
        states = {state.name: state.state for state in self.states()}
        if process.name in states and before != self._file(process.name).read_text():
            self._remove_group(process.name)
            del states[process.name]
        if process.name not in states:
            self._call("reloadConfig")
            self._call("addProcessGroup", process.name)  # autostart: this starts it, too
        elif states[process.name] not in ("RUNNING", "STARTING"):
            self._call("startProcess", process.name, False)

    def remove(self, name: str) -> None:
        """Stop a program and forget it."""
        self._file(name).unlink(missing_ok=True)
        if name in {state.name for state in self.states()}:
            self._remove_group(name)
            self._call("reloadConfig")

    def state(self, name: str) -> ProcessState:
        for state in self.states():
            if state.name == name:
                return state
        raise NotFound(f"No process is named {name!r}. See which there are:  yard status")

    def states(self) -> list[ProcessState]:
        if not self.running():
            return []
        return [
            ProcessState(info["name"], info["statename"], info["pid"], info["description"])
            for info in self._call("getAllProcessInfo")
        ]

    def log_tail(self, name: str, lines: int = 12) -> str:
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def _end_orphans(self) -> bool:
        """End what a supervisord that was killed has left behind; it marks its children in their environment."""
        mark, orphans = f"unix://{self._socket}", []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SUPERVISOR_SERVER_URL") == mark:
                    orphans.append(process)
            except psutil.Error:  # somebody else's, or gone already
                continue
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(orphans, timeout=20)[1]:
            process.kill()
        return bool(orphans)

    def _remove_group(self, name: str) -> None:
        self._call("stopProcessGroup", name)
        self._call("removeProcessGroup", name)

    def _file(self, name: str) -> Path:
        return self._programs / f"{name}.conf"

    def _pid(self) -> int | None:
        try:
            return int(self._call("getPID"))
        except (OSError, Unavailable, http.client.HTTPException):
            return None

    def _call(self, method: str, *args: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*args)
        except xmlrpc.client.Fault as fault:
            raise Unavailable(
                f"supervisord refused {method} {' '.join(map(str, args))}: {fault.faultString}"
            ) from fault
        finally:
            transport.close()


def _program(process: Process, logs: Path) -> dict[str, str]:
    return {
        "command": _escape(shlex.join(process.command)),
        "environment": ",".join(f"{key}={_quoted(value)}" for key, value in sorted(process.env.items())),
        "directory": "/",
        "priority": str(process.priority),
        "autostart": "true",
        "autorestart": "true",
        "startsecs": "1",
        "startretries": "5",
        "stopasgroup": "true",
        "killasgroup": "true",
        "stopwaitsecs": str(process.stop_wait_s),
        "redirect_stderr": "true",
        "stdout_logfile": _escape(str(logs / f"{process.name}.log")),
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": "2",
    }


def _supervisor_sections(home: Path, socket: Path, programs: Path, logs: Path) -> dict[str, dict[str, str]]:
    return {
        "unix_http_server": {"file": _escape(str(socket)), "chmod": "0700"},
        "supervisord": {
            "logfile": _escape(str(logs / "supervisord.log")),
            "pidfile": _escape(str(home / "supervisor" / "supervisord.pid")),
            "childlogdir": _escape(str(logs)),
            "directory": "/",
            "silent": "true",
        },
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "include": {"files": _escape(str(programs / "*.conf"))},
    }


def _write_ini(path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for name, values in sections.items():
        parser[name] = {key: value for key, value in values.items() if value}
    path.touch()
    path.chmod(0o600)  # before anything is in it: a program's environment may hold secrets
    with path.open("w") as file:
        parser.write(file)


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(value: str) -> str:
    """supervisord's file has no escape for a quote inside quotes."""
    if '"' in value and "'" in value:
        raise Refused(f"{value!r} has both kinds of quotes, which supervisord cannot pass on; choose another path.")
    quote = "'" if '"' in value else '"'
    return quote + _escape(value) + quote


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
