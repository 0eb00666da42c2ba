"""The follower: a process beside an Envoy that is not on the console's machine, and brings it the desired state.

`python -m modelyard_serving.gateway.follow --console URL --folder DIR --port PORT --secret-file FILE`. It asks the
console for what is new, renders it as the local stack does, and says what is in force. While the console is away Envoy
goes on with what it has. At its end it has Envoy ask callers to go elsewhere.
"""

import argparse
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from modelyard_serving.errors import ServingError
from modelyard_serving.gateway.desired import digest_of, gateway_of
from modelyard_serving.gateway.listener import Certificate
from modelyard_serving.gateway.publish import admin_of, bring, wait_until_found

log = logging.getLogger(__name__)

ASK_S = 5  # how long the console thinks about whether there is something new
PAUSE_S = 1.0  # before a console that is away is asked again


class Follower:
    """Keeps the Envoy of one folder at the console's desired state.

    Args:
        own: what of `Gateway` the console does not say: ports, secret, certificate.
    """

    def __init__(self, console: httpx.Client, folder: Path, name: str, **own: Any) -> None:
        self._console, self._folder, self._name, self._own = console, folder, name, own
        self._digest = ""  # of what is in force
        self._known: set[str] = set()  # deployments

    def follow(self, ending: threading.Event) -> None:
        """Until `ending` is set."""
        while not ending.is_set():
            try:
                self._turn()
            except (httpx.HTTPError, ServingError, ValueError, KeyError) as error:
                log.warning("the gateway goes on with what it has: %s", str(error).partition("\n")[0] or repr(error))
                ending.wait(PAUSE_S)
        self._say("")
        drain(self._folder)

    def _turn(self) -> None:
        answer = self._console.get("/internal/gateway", params={"known": self._digest, "wait_s": ASK_S})
        if answer.status_code == 304:
            self._say(self._digest)
            return
        answer.raise_for_status()
        document = answer.json()
        gateway = gateway_of(document, **self._own)
        known = {deployment.name for deployment in gateway.deployments}
        try:
            bring(gateway, self._folder)
            wait_until_found(self._folder, known - self._known)
        except ServingError as error:
            self._say(self._digest or "none", str(error))
            raise
        finally:
            self._known = known  # who was not found in time is not waited for again
        self._digest = digest_of(document)
        self._say(self._digest)

    def _say(self, digest: str, fault: str = "") -> None:
        said = {"gateway": self._name, "digest": digest, "fault": fault}
        try:
            self._console.post("/internal/gateway", json=said).raise_for_status()
        except httpx.HTTPError as error:
            log.warning("the console does not hear what this gateway runs with: %r", error)


def drain(folder: Path) -> None:
    """Have Envoy say `connection: close` with each answer; it goes on answering."""
    try:
        with admin_of(folder) as admin:
            admin.post("/healthcheck/fail").raise_for_status()
    except httpx.HTTPError as error:
        log.warning("Envoy does not hear that it should drain: %r", error)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelyard_serving.gateway.follow", description=__doc__)
    parser.add_argument("--console", required=True, help="its address, such as http://console:7401")
    parser.add_argument("--folder", type=Path, required=True, help="what Envoy watches")
    parser.add_argument("--host", default="0.0.0.0", help="where Envoy listens")  # noqa: S104 - in a pod
    parser.add_argument("--port", type=int, default=7400)
    parser.add_argument("--secret-file", type=Path, required=True, help="what the gateway proves itself with")
    parser.add_argument("--tls-certificate", type=Path, help="in PEM with its chain; plain HTTP without one")
    parser.add_argument("--tls-key", type=Path)
    args = parser.parse_args()
    if (args.tls_certificate is None) != (args.tls_key is None):
        parser.error("--tls-certificate and --tls-key belong together")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ending = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: ending.set())
    secret = args.secret_file.read_text().strip()
    url = urlsplit(args.console)
    headers = {"x-gateway-secret": secret}
    with httpx.Client(base_url=args.console, headers=headers, timeout=ASK_S + 5) as console:
        Follower(
            console,
            args.folder,
            os.environ.get("HOSTNAME") or socket.gethostname(),
            host=args.host,
            port=args.port,
            console_host=url.hostname or "",
            console_port=url.port or 80,
            secret=secret,
            certificate=Certificate(args.tls_certificate, args.tls_key) if args.tls_certificate else None,
        ).follow(ending)


if __name__ == "__main__":
    main()
