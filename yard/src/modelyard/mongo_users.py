"""MongoDB's users and roles, brought to what `roles` declares, and the addresses they log in with.

Each database has its own: users and roles lie in it, so two databases of one MongoDB do not share a password. An
address holds its password; it is written to `secrets/roles/ROLE`, for its owner's eyes only, and never printed.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from modelyard.roles import ROLES, UNAUTHORIZED, Role, deviations, privileges, role_named
from modelyard.settings import DATABASE, Settings, embedded_mongo_url
from modelyard_serving.errors import Refused
from modelyard_serving.keys import write_secret
from modelyard_tracking.recording.redaction import masked

_ROLE_EXISTS, _USER_EXISTS = 51002, 51003  # MongoDB's error codes


class Address(StrEnum):
    """Can somebody log in with what lies on this machine?"""

    WORKS = "works"
    ABSENT = "absent"
    WRONG = "wrong"  # it does not: MongoDB has another password


@dataclass(frozen=True, slots=True)
class User:
    """A role and its user, as MongoDB has them."""

    role: Role
    exists: bool  # both of them
    deviations: tuple[str, ...]  # from the declaration, in words
    file: Path
    address: Address

    @property
    def drifted(self) -> bool:
        return self.exists and bool(self.deviations)


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to one role: created, updated, rotated or unchanged."""

    role: str
    outcome: str
    mended: tuple[str, ...]  # deviations there were
    file: Path


@dataclass(frozen=True, slots=True)
class _Found:
    """What MongoDB tells of one role and its user."""

    has_role: bool
    has_user: bool
    deviations: tuple[str, ...]


def users(settings: Settings) -> list[User]:
    """Every role, compared with its declaration.

    Raises:
        Refused: the user of `mongo_url` is no administrator, or MongoDB asks nobody for a login.
    """
    with _administered(settings) as db:
        found = _look(db)
    return [
        User(
            role,
            found[role.name].has_role and found[role.name].has_user,
            found[role.name].deviations,
            address_file(settings, role.name),
            _try(address(settings, role.name)),
        )
        for role in ROLES
    ]


def bring(settings: Settings, rotate: Sequence[str] = ()) -> list[Change]:
    """Bring roles and users of the database to their declaration. What is right stays; so does every password.

    Args:
        rotate: roles that get a new password.

    Raises:
        Refused: the user of `mongo_url` is no administrator; `rotate` names no role; or a file holds the address of
            another database.
    """
    for name in rotate:
        role_named(name)
    with _administered(settings) as db:
        for each in ROLES:
            _check_file(settings, each.name)
        found = _look(db)
        return [_bring(settings, db, each, found[each.name], each.name in rotate) for each in ROLES]


def address(settings: Settings, name: str) -> str | None:
    """The address this role logs in with, if it is on this machine."""
    try:
        text = address_file(settings, name).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _address(settings, name, _password(text)) if _is_here(settings, text) else None


def part_address(settings: Settings, name: str) -> str | None:
    """The address that a part of the stack logs in with.

    On the embedded mongod it is made if it is not there, and made anew if it no longer works. With a MongoDB of one's
    own it is there if an administrator has made it, or put it there.
    """
    known = address(settings, name)
    if settings.embedded_mongo and _try(known) is not Address.WORKS:
        bring(settings, rotate=[name])
        return address(settings, name)
    return known


def address_file(settings: Settings, name: str) -> Path:
    """Where it is. Another database than the usual one has a folder of its own."""
    folder = "roles" if settings.database == DATABASE else f"roles-{settings.database}"
    return settings.home / "secrets" / folder / name


def _bring(settings: Settings, db: "Database[dict[str, Any]]", role: Role, found: _Found, rotate: bool) -> Change:
    file = address_file(settings, role.name)
    allowed: dict[str, Any] = {"privileges": privileges(role, db.name), "roles": []}
    if not found.has_role:
        _unless_there(db, _ROLE_EXISTS, "createRole", role.name, **allowed)
    elif found.deviations:
        db.command("updateRole", role.name, **allowed)
    if not found.has_user:
        # The file first: of two who start at once, both then name the same password.
        _keep(file, _address(settings, role.name, secrets.token_hex(24)))
        password = _password(file.read_text())
        _unless_there(db, _USER_EXISTS, "createUser", role.name, pwd=password, roles=[role.name])
    elif rotate:
        password = secrets.token_hex(24)
        db.command("updateUser", role.name, pwd=password, roles=[role.name])
        _replace(file, _address(settings, role.name, password))
    elif found.deviations:
        db.command("updateUser", role.name, roles=[role.name])
    if (right := address(settings, role.name)) and file.read_text() != right:  # the embedded mongod's port was changed
        _replace(file, right)
    return Change(role.name, _outcome(found, rotate), found.deviations, file)


def _outcome(found: _Found, rotate: bool) -> str:
    if not found.has_user:
        return "created"
    if rotate:
        return "rotated"
    return "updated" if found.deviations or not found.has_role else "unchanged"


def _look(db: "Database[dict[str, Any]]") -> dict[str, _Found]:
    there = {found["role"]: found for found in db.command("rolesInfo", 1, showPrivileges=True)["roles"]}
    people = {found["user"]: found for found in db.command("usersInfo", 1)["users"]}
    return {
        role.name: _Found(role.name in there, role.name in people, _deviations(db.name, role, there, people))
        for role in ROLES
    }


def _deviations(database: str, role: Role, there: Mapping[str, Any], people: Mapping[str, Any]) -> tuple[str, ...]:
    told: list[str] = []
    if role.name in there:
        inherited = [f"{each['role']} of {each['db']}" for each in there[role.name]["roles"]]
        told += [f"also is {name}" for name in inherited]
        told += deviations(role, database, there[role.name]["privileges"])
    if role.name in people:
        has = {(each["role"], each["db"]) for each in people[role.name]["roles"]}
        own = (role.name, database)
        told += [f"the user also is {name} of {place}" for name, place in sorted(has - {own})]
        told += ["the user has not this role"] if own not in has else []
    return tuple(told)


@contextmanager
def _administered(settings: Settings) -> "Iterator[Database[dict[str, Any]]]":
    """The database, with a login that may make roles and users; else what to do is said."""
    with settings.tracking_home.connected() as db:
        if not db.command("connectionStatus")["authInfo"]["authenticatedUsers"]:
            raise Refused(
                f"MongoDB at {masked(settings.mongo_url)} was asked without a login, so it has no roles.\n"
                "Start it with --auth, and name an administrator:  "
                "export YARD_MONGO_URL=mongodb://admin:...@host/?authSource=admin"
            )
        try:
            yield db
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            raise Refused(
                f"The user {settings.mongo_user} may not manage the roles of {db.name}: that takes an administrator, "
                f"one with the role root, or dbOwner on {db.name}.\n"
                "Name one:  export YARD_MONGO_URL=mongodb://admin:...@host/?authSource=admin"
            ) from error


def _unless_there(db: "Database[dict[str, Any]]", code: int, command: str, name: str, **said: Any) -> None:
    try:
        db.command(command, name, **said)
    except OperationFailure as error:
        if error.code != code:  # somebody else was faster
            raise


def _address(settings: Settings, name: str, password: str) -> str:
    """The administrator's address with another login: same hosts, same options."""
    url = settings.own_mongo_url or embedded_mongo_url(settings.home, settings.mongo_port)
    parts = urlsplit(url)
    dropped = ("authsource", "authmechanism", "authmechanismproperties")
    options = [(key, value) for key, value in parse_qsl(parts.query) if key.lower() not in dropped]
    query = urlencode([("authSource", settings.database), *options])
    return f"{parts.scheme}://{name}:{password}@{_hosts(url)}/{quote(settings.database, safe='')}?{query}"


def _is_here(settings: Settings, address: str) -> bool:
    """Is this an address of the database of these settings? The embedded mongod's port may have changed since."""
    there, here = _hosts(address), _hosts(settings.mongo_url)
    if settings.embedded_mongo:
        there, here = there.partition(":")[0], here.partition(":")[0]
    return there == here and ("authSource", settings.database) in parse_qsl(urlsplit(address).query)


def _check_file(settings: Settings, name: str) -> None:
    file = address_file(settings, name)
    if file.exists() and address(settings, name) is None:
        raise Refused(
            f"{file} holds the address of another database, {masked(file.read_text().strip())}; it is kept.\n"
            f"Put these away first:  mv {file.parent} {file.parent}.before"
        )


def _hosts(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _password(address: str) -> str:
    return urlsplit(address.strip()).netloc.rpartition("@")[0].partition(":")[2]


def _keep(file: Path, address: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(file, address.encode())


def _replace(file: Path, address: str) -> None:
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    _keep(new, address)
    new.replace(file)


def _try(address: str | None) -> Address:
    if address is None:
        return Address.ABSENT
    try:
        with MongoClient[dict[str, Any]](
            address, serverSelectionTimeoutMS=3000, connectTimeoutMS=3000, socketTimeoutMS=10_000
        ) as client:
            client.admin.command("ping")
    except PyMongoError:
        return Address.WRONG
    return Address.WORKS
