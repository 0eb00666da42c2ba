"""The embedded mongod lets nobody in who has not its password."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from modelyard.mongod import mongod_process, wait_until_primary
from modelyard.settings import embedded_mongo_url, mongo_password_file
from modelyard_serving.errors import Unavailable
from modelyard_serving.local_stage import free_port

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the embedded mongod of a fresh folder; `users=False` starts it as it was before it had any."""
    with ExitStack() as running:

        def run(port: int, users: bool = True) -> "subprocess.Popen[bytes]":
            process = mongod_process(tmp_path, port)
            command = list(process.command)
            if not users:
                at = command.index("--auth")
                del command[at : at + 3]
            mongod = subprocess.Popen(command, env=os.environ | process.env, stdout=subprocess.DEVNULL)
            running.callback(mongod.wait)
            running.callback(mongod.terminate)
            return mongod

        yield run


def stop(mongod: "subprocess.Popen[bytes]") -> None:
    mongod.terminate()
    mongod.wait(20)


def count(url: str) -> int:
    with MongoClient(url, serverSelectionTimeoutMS=3000) as client:
        return client.yard.things.count_documents({})


def test_a_stranger_may_neither_read_nor_write_nor_make_users(mongo_port: int) -> None:
    with MongoClient("127.0.0.1", mongo_port, directConnection=True) as stranger:
        for attempt in (
            lambda: stranger.yard.things.find_one(),
            lambda: stranger.yard.things.insert_one({}),
            lambda: stranger.list_database_names(),
            lambda: stranger.admin.command("createUser", "me", pwd="x", roles=["root"]),
        ):
            with pytest.raises(OperationFailure, match="requires authentication"):
                attempt()


def test_waiting_again_changes_nothing(mongo_home: Path, mongo_port: int, mongo_url: str) -> None:
    before = mongo_password_file(mongo_home).read_text()
    wait_until_primary(mongo_home, mongo_port)
    assert mongo_password_file(mongo_home).read_text() == before
    assert count(mongo_url) == 0


@pytest.mark.usefixtures("mongo_port")
def test_the_secrets_are_their_owners_alone(mongo_home: Path) -> None:
    for file in (mongo_home / "secrets").rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o700 if file.is_dir() else 0o600), file
    assert {file.name for file in (mongo_home / "secrets").iterdir()} >= {"mongod", "mongod.key"}


def test_data_from_before_there_were_users_is_kept_and_gets_its_user_even_on_another_port(
    start: Start, tmp_path: Path
) -> None:
    port = free_port()
    mongod = start(port, users=False)
    with MongoClient("127.0.0.1", port, directConnection=True) as client:
        config = {"_id": "yard", "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]}
        client.admin.command("replSetInitiate", config)
        while not client.admin.command("hello")["isWritablePrimary"]:
            pass
        client.yard.things.insert_many([{}, {}])
    stop(mongod)
    for port in (free_port(), free_port()):
        mongod = start(port)
        wait_until_primary(tmp_path, port)
        assert count(embedded_mongo_url(tmp_path, port)) == 2
        with pytest.raises(OperationFailure, match="requires authentication"):
            count(f"mongodb://127.0.0.1:{port}/?directConnection=true")
        stop(mongod)


def test_a_lost_password_is_said_with_the_file_and_not_waited_for(start: Start, tmp_path: Path) -> None:
    port = free_port()
    start(port)
    wait_until_primary(tmp_path, port)
    mongo_password_file(tmp_path).unlink()
    with pytest.raises(Unavailable, match=rf"{mongo_password_file(tmp_path)} is not theirs.*\n.*mongo.before"):
        wait_until_primary(tmp_path, port, timeout_s=60)
