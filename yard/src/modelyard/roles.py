"""Roles: what each person and each part of the house may do in MongoDB, as data; `mongo_users` brings a database to it.

Least privilege, and what it cannot do. MongoDB grants by collection and kind of change, not by document: a scientist
who may record runs may also change somebody else's. So asking, answering and the ledger are three collections: a yes
counts where an approver's answer and the ledger say it, and nobody but an administrator may change or delete either.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from modelyard_serving.errors import Refused

RUNS = ("runs", "metrics", "fs.files", "fs.chunks")  # Sacred's own
COLLECTIONS = (
    *RUNS, "counters", "sweeps", "approvals", "answers", "ledger", "builds", "deployments", "endpoints", "api_keys",
    "predictions", "feedback", "bad_records", "stage", "gateways",
)  # fmt: skip
OMNIBOARDS = ("omniboard.settings", "omniboard.custom.columns", "omniboard.metric.columns")
UNAUTHORIZED, AUTHENTICATION_FAILED = 13, 18  # MongoDB's error codes
DATABASE = ""  # in the place of a collection: the database itself

_READ, _ADD, _CHANGE, _DELETE = "find", "insert", "update", "remove"  # MongoDB's words
_ACTION_OF_COMMAND = {
    "find": _READ, "aggregate": _READ, "count": _READ, "distinct": _READ, "getMore": _READ,
    "insert": _ADD, "update": _CHANGE, "findAndModify": _CHANGE, "delete": _DELETE, "createIndexes": "createIndex",
}  # fmt: skip
_IN_WORDS = {
    _READ: "read", _ADD: "add to", _CHANGE: "change", _DELETE: "delete from", "createIndex": "make indexes of",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Role:
    """One person or part. Its user in MongoDB has the same name."""

    name: str
    who: str
    reads: tuple[str, ...]
    adds: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    lists: bool = False  # the names of the database's collections
    part: bool = False  # a process of the stack, not a person

    @property
    def allowed(self) -> Mapping[str, frozenset[str]]:
        """Collection -> MongoDB's actions. Who reads a collection may see which indexes it has: so nothing that is
        there is made again, which would take a right to make indexes.
        """
        allowed: dict[str, frozenset[str]] = {DATABASE: frozenset({"listCollections"})} if self.lists else {}
        granted = ((self.reads, {_READ, "listIndexes"}), (self.adds, {_ADD}), (self.changes, {_CHANGE}))
        for names, actions in (*granted, (self.deletes, {_DELETE})):
            for name in names:
                allowed[name] = allowed.get(name, frozenset()) | actions
        return allowed


_STATE = ("builds", "deployments", "endpoints")  # what was built, and what should run

ROLES = (
    # Not the predictions and feedback: they hold what callers sent, which is personal data more often than not, and
    # results come summed up from the console. Not the keys: callers' affairs. Chunks are deleted where an upload was
    # cut off; `fs.files` is changed by an import that was.
    Role(
        "scientist",
        "trains, sweeps, reproduces, imports runs, asks for approval",
        reads=(*RUNS, "counters", "sweeps", "approvals", "answers", "ledger", *_STATE),
        adds=(*RUNS, "counters", "sweeps", "approvals"),
        changes=("runs", "metrics", "fs.files", "counters", "sweeps"),
        deletes=("fs.chunks",),
    ),
    # A role of its own: who says yes need not be able to ship, and who ships cannot say yes. One person may have both.
    Role(
        "approver",
        "reads the evidence, says yes or no with a reason",
        reads=(*RUNS, "sweeps", "approvals", "answers", "ledger", *_STATE),
        adds=("answers", "ledger"),
    ),
    Role(
        "engineer",
        "builds, deploys, splits, rolls back, issues and revokes keys",
        reads=(*RUNS, "sweeps", "approvals", "answers", "ledger", *_STATE, "api_keys", "stage", "gateways"),
        adds=(*_STATE, "api_keys", "ledger", "stage"),
        changes=(*_STATE, "api_keys", "stage"),
        deletes=("deployments",),
    ),
    # It tells gateways elsewhere what should run, and which keys are revoked, and hears from them.
    # It reads predictions and feedback to sum up results and to tell feedback that is sent twice from a contradiction,
    # and the ledger for the split that was in force. It changes feedback to join it with its prediction, and no
    # prediction.
    Role(
        "console",
        "the process behind the gateway: takes in predictions and feedback, sums up results",
        reads=(
            "predictions",
            "feedback",
            "bad_records",
            "endpoints",
            "deployments",
            "ledger",
            "api_keys",
            "stage",
            "gateways",
        ),
        adds=("predictions", "feedback", "bad_records", "gateways"),
        changes=("feedback", "bad_records", "gateways"),
        deletes=("gateways",),
        part=True,
    ),
    Role(
        "omniboard",
        "Omniboard's pages: shows runs, keeps what people set up for themselves",
        reads=(*RUNS, *OMNIBOARDS),
        adds=OMNIBOARDS,
        changes=OMNIBOARDS,
        deletes=OMNIBOARDS,
        lists=True,
        part=True,
    ),
    # Also the keys: an entry says whose, what for and until when. The token is signed, shown once and kept nowhere, and
    # the key that signs is a file beside the gateway.
    Role("auditor", "reads what happened, all of it, and changes nothing", reads=COLLECTIONS),
)


def role_named(name: str) -> Role:
    """The role of this name.

    Raises:
        Refused: there is none.
    """
    for known in ROLES:
        if known.name == name:
            return known
    raise Refused(f"There is no role {name!r}. There are: {', '.join(known.name for known in ROLES)}.")


def who_may(collection: str, action: str) -> tuple[str, ...]:
    """The names of the people's roles that allow this."""
    people = (known for known in ROLES if not known.part)
    return tuple(known.name for known in people if action in known.allowed.get(collection, ()))


def privileges(of: Role, database: str) -> list[dict[str, Any]]:
    """A role as `createRole` takes it."""
    return [
        {"resource": {"db": database, "collection": name}, "actions": sorted(actions)}
        for name, actions in of.allowed.items()
    ]


def deviations(of: Role, database: str, found: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """How privileges as MongoDB tells them differ from the role's, in words; nothing where they are equal."""
    declared = {(f"{database}.{name}", action) for name, actions in of.allowed.items() for action in actions}
    there = {(_place(p["resource"]), str(action)) for p in found for action in p["actions"]}
    more, less = sorted(there - declared), sorted(declared - there)
    return (
        *(f"may also {action} {_short(where, database)}" for where, action in more),
        *(f"may not {action} {_short(where, database)}" for where, action in less),
    )


def covers(privilege: Mapping[str, Any], database: str, collection: str, action: str) -> bool:
    """Does a privilege, as MongoDB tells it, allow this?"""
    where = privilege["resource"]
    here = where.get("db") in ("", database) and where.get("collection") in ("", collection)
    return bool((here or where.get("anyResource")) and action in privilege["actions"])


def may(db: "Database[dict[str, Any]]", collection: str, action: str) -> bool:
    """May the user of this connection do that? Where MongoDB asks nobody for a login, everybody may."""
    known = db.command("connectionStatus", showPrivileges=True)["authInfo"]
    granted = known["authenticatedUserPrivileges"]
    return not known["authenticatedUsers"] or any(covers(p, db.name, collection, action) for p in granted)


def may_log_in(client: MongoClient[dict[str, Any]]) -> bool:
    """Does MongoDB know the user of this client, and take the password?"""
    try:
        client.admin.command("ping")
    except OperationFailure as error:
        if error.code != AUTHENTICATION_FAILED:
            raise
        return False
    return True


def refusal(user: str | None, action: str, collection: str) -> str:
    """The sentence for somebody who may not do that."""
    who = f"The user {user}" if user else "This user of MongoDB"
    *others, last = who_may(collection, action) or ("",)
    names = f"{', '.join(others)} or {last}" if others else last
    remedy = f"ask for the role {names}" if last else "only an administrator may"
    return f"{who} may not {_IN_WORDS.get(action, action)} {collection}: {remedy}."


def action_of(command: str) -> str:
    """The action that a command of MongoDB needs: `remove` for `delete`."""
    return _ACTION_OF_COMMAND.get(command, command)


def _place(resource: Mapping[str, Any]) -> str:
    if "collection" in resource:
        return f"{resource['db']}.{resource['collection']}"
    return "everything" if resource.get("anyResource") else "the cluster"


def _short(where: str, database: str) -> str:
    return where.removeprefix(f"{database}.") or "in the whole database"
