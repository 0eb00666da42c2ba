"""The cluster's MongoDB is brought to what its Secrets say, on real mongods that start as the cluster's do."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from modelyard.cluster_mongo import Wanted, bring, read_wanted
from modelyard.mongod import find_mongod
from modelyard.roles import ROLES, deviations
from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.local_stage import free_port
from places import REPOSITORY

KEY = "a" * 60 + "+/09"
Start = Callable[[], str]


def start_script(folder: Path, port: int) -> str:
    """What the StatefulSet's container runs, with other places for its files."""
    manifest = yaml.safe_load((REPOSITORY / "k8s" / "base" / "mongodb" / "stateful-set.yaml").read_text())
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    [script] = container["args"]
    for there, here in (
        ("/data/db", f"{folder}/data"),
        ("/secrets/admin", f"{folder}/secrets"),
        ("/run/mongodb", f"{folder}/run"),
        ("--port 27017", f"--port {port} --oplogSize 64"),
        ("--bind_ip_all", "--bind_ip 127.0.0.1"),
    ):
        assert there in script
        script = script.replace(there, here)
    return str(script)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a member of a cluster; gives its address."""
    mongod = find_mongod()
    with ExitStack() as running:

        def run() -> str:
            folder, port = tmp_path_factory.mktemp("member"), free_port()
            for name in ("data", "run", "secrets"):
                (folder / name).mkdir()
            (folder / "secrets" / "keyfile").write_text(KEY)  # no line's end, as `tr -d '\n'` leaves it
            (folder / "secrets" / "keyfile").chmod(0o440)  # mongod itself would refuse this
            env = os.environ | mongod.env | {"CACHE_GB": "0.25", "PATH": f"{mongod.binary.parent}:{os.environ['PATH']}"}
            process = subprocess.Popen(["sh", "-c", start_script(folder, port)], env=env, stdout=subprocess.DEVNULL)
            running.callback(process.wait)
            running.callback(process.kill)  # nobody wants the data: a primary would wait for the others
            return f"127.0.0.1:{port}"

        yield run


@pytest.fixture(scope="module")
def member(start: Start) -> str:
    return start()


@pytest.fixture
def wanted(member: str) -> Wanted:
    """One member, and a database that nobody has used."""
    return Wanted("rs0", (member,), f"test_{uuid.uuid4().hex}", KEY, "of-root", {r.name: f"of-{r.name}" for r in ROLES})


def logged_in(wanted: Wanted, user: str, password: str, source: str) -> "MongoClient[dict[str, Any]]":
    return MongoClient(
        list(wanted.members), username=user, password=password, authSource=source, replicaSet=wanted.replica_set,
        serverSelectionTimeoutMS=5000,
    )  # fmt: skip


def state(wanted: Wanted) -> Mapping[str, Any]:
    """What there is: the set, the roles, the users with what their passwords became, the indexes."""
    with logged_in(wanted, "root", "of-root", "admin") as client:
        db = client[wanted.database]
        users = db.command("usersInfo", {"forAllDBs": True}, showCredentials=True)["users"]
        return {
            "set": client.admin.command("replSetGetConfig")["config"],
            "roles": db.command("rolesInfo", 1, showPrivileges=True)["roles"],
            "users": {(user["db"], user["user"]): user["credentials"] for user in users},
            "indexes": {name: db[name].index_information() for name in db.list_collection_names()},
        }


def test_a_fresh_mongod_becomes_a_set_with_users_roles_and_indexes(wanted: Wanted) -> None:
    bring(wanted, timeout_s=60)
    found = state(wanted)
    assert [each["host"] for each in found["set"]["members"]] == list(wanted.members)
    assert {role["role"] for role in found["roles"]} == {role.name for role in ROLES}
    for role in ROLES:
        [made] = [each for each in found["roles"] if each["role"] == role.name]
        assert deviations(role, wanted.database, made["privileges"]) == ()
    assert "results" in found["indexes"]["feedback"]
    with logged_in(wanted, "console", "of-console", wanted.database) as client:
        db = client[wanted.database]
        db.predictions.insert_one({"_id": "one"})
        with pytest.raises(OperationFailure, match="not authorized"):
            db.predictions.delete_one({"_id": "one"})


def test_a_stranger_and_a_wrong_password_are_refused(wanted: Wanted) -> None:
    bring(wanted, timeout_s=60)
    stranger: MongoClient[dict[str, Any]] = MongoClient(wanted.members[0], directConnection=True)
    with stranger, pytest.raises(OperationFailure, match="requires authentication"):
        stranger.admin.command("createUser", "me", pwd="x", roles=["root"])
    client = logged_in(wanted, "console", "of-root", wanted.database)
    with client, pytest.raises(OperationFailure, match="Authentication failed"):
        client.admin.command("ping")


def test_done_again_it_changes_nothing(wanted: Wanted) -> None:
    bring(wanted, timeout_s=60)
    before = state(wanted)
    bring(wanted, timeout_s=60)
    assert state(wanted) == before


def test_a_password_that_was_changed_in_its_secret_is_changed_in_mongodb(wanted: Wanted) -> None:
    bring(wanted, timeout_s=60)
    before = state(wanted)["users"]
    bring(replace(wanted, roles={**wanted.roles, "console": "another"}), timeout_s=60)
    after = state(wanted)["users"]
    assert {key for key in after if after[key] != before[key]} == {(wanted.database, "console")}
    with logged_in(wanted, "console", "another", wanted.database) as client:
        client.admin.command("ping")


def test_a_role_that_was_widened_by_hand_is_narrowed_again(wanted: Wanted) -> None:
    bring(wanted, timeout_s=60)
    more = [{"resource": {"db": wanted.database, "collection": "runs"}, "actions": ["remove"]}]
    with logged_in(wanted, "root", "of-root", "admin") as client:
        client[wanted.database].command("grantPrivilegesToRole", "omniboard", privileges=more)
    bring(wanted, timeout_s=60)
    [found] = [each for each in state(wanted)["roles"] if each["role"] == "omniboard"]
    [role] = [each for each in ROLES if each.name == "omniboard"]
    assert deviations(role, wanted.database, found["privileges"]) == ()


def test_a_role_without_an_address_gets_no_user(wanted: Wanted) -> None:
    bring(replace(wanted, roles={"console": "of-console"}), timeout_s=60)
    assert {user for place, user in state(wanted)["users"] if place == wanted.database} == {"console"}


def test_one_member_becomes_three_without_losing_what_it_has(start: Start) -> None:
    first = start()
    one = Wanted("rs0", (first,), "grown", KEY, "of-root", {"console": "of-console"})
    bring(one, timeout_s=60)
    with logged_in(one, "console", "of-console", "grown") as client:
        client.grown.predictions.insert_one({"_id": "kept"})
    three = replace(one, members=(first, start(), start()))
    bring(three, timeout_s=120)
    with logged_in(three, "root", "of-root", "admin") as client:
        deadline = time.monotonic() + 60
        states: list[str] = []
        while sorted(states) != ["PRIMARY", "SECONDARY", "SECONDARY"]:
            assert time.monotonic() < deadline, states
            states = [each["stateStr"] for each in client.admin.command("replSetGetStatus")["members"]]
            time.sleep(0.2)
        assert client.grown.predictions.find_one({"_id": "kept"})


def test_another_key_is_not_let_in_and_the_time_is_up(wanted: Wanted) -> None:
    bring(wanted, timeout_s=60)
    with pytest.raises(Unavailable, match="Authentication failed") as refused:
        bring(replace(wanted, key="b" * 64), timeout_s=1)
    assert "b" * 64 not in str(refused.value)


def test_a_mongod_that_is_not_there_is_waited_for_until_the_time_is_up() -> None:
    nobody = Wanted("rs0", (f"127.0.0.1:{free_port()}",), "d", KEY, "of-root", {})
    with pytest.raises(Unavailable, match="has no primary"):
        bring(nobody, timeout_s=1)


def secrets(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("_", "-")).write_text(text)
    return folder


def url(user: str, password: str, source: str = "modelyard") -> str:
    return f"mongodb://{user}:{password}@mongodb.modelyard.svc:27017/modelyard?authSource={source}&replicaSet=rs0\n"


def test_secrets_are_read_as_they_are_mounted(tmp_path: Path) -> None:
    admin = secrets(tmp_path / "admin", keyfile=f"{KEY[:40]}\n{KEY[40:]}\n", root_password="of-root\n")
    roles = secrets(tmp_path / "roles", console_url=url("console", "p%2Fw"), something_url="else")
    assert read_wanted("rs0", ["a:1"], "modelyard", admin, roles) == Wanted(
        "rs0", ("a:1",), "modelyard", KEY, "of-root", {"console": "p/w"}
    )


def test_all_that_is_wrong_with_secrets_is_said_at_once_and_without_a_password(tmp_path: Path) -> None:
    admin = secrets(tmp_path / "admin", keyfile="")
    roles = secrets(
        tmp_path / "roles",
        console_url=url("omniboard", "hidden1"),
        engineer_url=url("engineer", "hidden2", "admin"),
        scientist_url="hidden3",
    )
    with pytest.raises(Refused) as refused:
        read_wanted("rs0", ["a:1"], "modelyard", admin, roles)
    said = str(refused.value)
    assert "hidden" not in said
    for part in (
        "console-url: it must be the address of the user console",
        "engineer-url: it must say authSource=modelyard",
        "scientist-url: ",
        "keyfile: it is empty",
        "root-password: No such file",
    ):
        assert part in said


def test_a_member_is_named_once() -> None:
    with pytest.raises(Refused, match="once"):
        Wanted("rs0", ("a:1", "a:1"), "d", KEY, "p", {})
