"""MongoDB of a cluster: a replica set, its administrator, a user for each role, the indexes.

Run by a Job, `python -m modelyard.cluster_mongo`. Two folders say what should be, each a mounted Secret: `keyfile` and
`root-password`; and `ROLE-url` for each role that has a user. What is right already is not changed, so it may run at
any time; where a password in a Secret was changed, it is changed in MongoDB.

It logs in as members do among each other, with the key file, as `__system`. The exception for a first login without a
password holds on the database's own machine only, and ends with the first user.
"""

import argparse
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from modelyard.roles import ROLES, Role, may_log_in, privileges
from modelyard_serving.console.indexes import prepare as prepare_console
from modelyard_serving.errors import Refused, Unavailable
from modelyard_tracking.recording.upload import prepare

log = logging.getLogger(__name__)

ROOT = "root"
# MongoDB's error codes.
_ALREADY_INITIALIZED, _NOT_YET_INITIALIZED = 23, 94
_PAUSE_S = 1.0

Client = MongoClient[dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in, with what, and in which database that user lies."""

    user: str
    password: str
    source: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the cluster's MongoDB should be."""

    replica_set: str
    members: tuple[str, ...]  # host:port, the first of them makes the set
    database: str
    key: str
    root_password: str
    roles: Mapping[str, str]  # role -> password

    def __post_init__(self) -> None:
        if not self.members or len(set(self.members)) < len(self.members):
            raise Refused(f"Name each member of the replica set once, not {list(self.members)}.")

    @property
    def system(self) -> Login:
        return Login("__system", self.key, "local")


def read_wanted(replica_set: str, members: Sequence[str], database: str, admin: Path, roles: Path) -> Wanted:
    """What two folders of secrets ask for.

    Raises:
        Refused: a file is missing, or an address is of another user or another database than its name says.
    """
    passwords, faults = {}, []
    for role in ROLES:
        file = roles / f"{role.name}-url"
        if not file.is_file():
            continue
        try:
            passwords[role.name] = _password(file.read_text().strip(), role, database)
        except (Refused, ValueError, PyMongoError) as error:
            faults.append(f"{file.name}: {error}")
    secrets = {}
    for name in ("keyfile", "root-password"):
        try:
            secrets[name] = "".join((admin / name).read_text().split())  # mongod takes no notice of white space either
        except OSError as error:
            faults.append(f"{name}: {error.strerror}")
        if not secrets.get(name, "-"):
            faults.append(f"{name}: it is empty")
    if faults:
        raise Refused("These Secrets are not what they should be:\n" + "\n".join(faults))
    return Wanted(replica_set, tuple(members), database, secrets["keyfile"], secrets["root-password"], passwords)


def bring(wanted: Wanted, timeout_s: float = 300) -> None:
    """Bring MongoDB to what is wanted.

    Raises:
        Unavailable: it was not possible in time; the last reason is in the text.
    """
    deadline = time.monotonic() + timeout_s
    _until(deadline, "the replica set has no primary", partial(_initiate, wanted))
    for host in wanted.members:
        _until(deadline, f"{host} cannot be added to the replica set", partial(_add, wanted, host))
    _until(deadline, "users, roles and indexes cannot be made", partial(_users_and_indexes, wanted))


def _password(url: str, role: Role, database: str) -> str:
    """The password in a role's address. The text of an error holds none."""
    said = parse_uri(url, validate=False)
    source = said["options"].get("authSource") or said["database"]
    if said["username"] != role.name:
        raise Refused(f"it must be the address of the user {role.name}")
    if source != database:
        raise Refused(f"it must say authSource={database}, where that user lies")
    if not said["password"]:
        raise Refused("it holds no password")
    return str(said["password"])


def _until(deadline: float, what: str, attempt: Callable[[], T]) -> T:
    """Try again until it works or the time is up. Members start, elect and restart in any order."""
    while True:
        try:
            return attempt()
        except PyMongoError as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{what}: {error}") from error
            log.info("%s yet: %s", what, _short(error))
        time.sleep(_PAUSE_S)


def _initiate(wanted: Wanted) -> None:
    """Make the replica set, unless it is one. MongoDB refuses it where another member belongs to a set or has data."""
    with _client(wanted.members[:1], wanted.system) as first:
        try:
            first.admin.command("replSetGetStatus")
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
            members = [{"_id": number, "host": host} for number, host in enumerate(wanted.members)]
            try:
                first.admin.command("replSetInitiate", {"_id": wanted.replica_set, "members": members})
                log.info("made the replica set %s of %s", wanted.replica_set, ", ".join(wanted.members))
            except OperationFailure as again:
                if again.code != _ALREADY_INITIALIZED:
                    raise
    with _primary(wanted, wanted.system) as client:
        client.admin.command("ping")


def _add(wanted: Wanted, host: str) -> None:
    """Add a member that the set does not have. One at a time: MongoDB takes no two voters at once."""
    with _primary(wanted, wanted.system) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        members = config["members"]
        if host in {member["host"] for member in members}:
            return
        number = max(member["_id"] for member in members) + 1
        config["members"] = [*members, {"_id": number, "host": host}]
        config["version"] += 1
        client.admin.command("replSetReconfig", config)
        log.info("added %s to the replica set", host)


def _users_and_indexes(wanted: Wanted) -> None:
    with _primary(wanted, wanted.system) as client:
        _ensure_user(wanted, client, Login(ROOT, wanted.root_password, "admin"), [ROOT])
        db = client[wanted.database]
        there = {found["role"] for found in db.command("rolesInfo", 1)["roles"]}
        for role in ROLES:
            if role.name not in wanted.roles:
                continue
            command = "updateRole" if role.name in there else "createRole"
            db.command(command, role.name, privileges=privileges(role, wanted.database), roles=[])
            login = Login(role.name, wanted.roles[role.name], wanted.database)
            _ensure_user(wanted, client, login, [role.name])
        prepare(db)
        prepare_console(db)
        log.info("users and indexes are there: %s", ", ".join([ROOT, *wanted.roles]))


def _ensure_user(wanted: Wanted, client: Client, login: Login, roles: list[str]) -> None:
    db = client[login.source]
    if not db.command("usersInfo", login.user)["users"]:
        db.command("createUser", login.user, pwd=login.password, roles=roles)
        log.info("made the user %s", login.user)
        return
    with _primary(wanted, login) as user:
        known = may_log_in(user)
    if not known:
        db.command("updateUser", login.user, pwd=login.password)
        log.info("gave the user %s the Secret's password", login.user)


def _primary(wanted: Wanted, login: Login) -> Client:
    return _client(wanted.members, login, replicaSet=wanted.replica_set)


def _client(hosts: Sequence[str], login: Login, **more: Any) -> Client:
    return MongoClient(
        list(hosts),
        username=login.user,
        password=login.password,
        authSource=login.source,
        authMechanism="SCRAM-SHA-256",
        directConnection="replicaSet" not in more,
        serverSelectionTimeoutMS=5000,
        connectTimeoutMS=5000,
        socketTimeoutMS=30_000,
        **more,
    )


def _short(error: Exception) -> str:
    """pymongo's texts describe the whole topology."""
    return str(error).split(", Timeout:")[0][:300]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelyard.cluster_mongo", description=__doc__.splitlines()[0])
    parser.add_argument("--replica-set", required=True)
    parser.add_argument("--member", required=True, action="append", metavar="HOST:PORT", help="once for each")
    parser.add_argument("--db", required=True, help="database name")
    parser.add_argument("--admin", required=True, type=Path, help="folder with keyfile and root-password")
    parser.add_argument("--roles", required=True, type=Path, help="folder with ROLE-url for each role with a user")
    parser.add_argument("--timeout-s", type=float, default=300)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with suppress(KeyboardInterrupt):
        try:
            bring(read_wanted(args.replica_set, args.member, args.db, args.admin, args.roles), args.timeout_s)
        except (Refused, Unavailable) as error:
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
