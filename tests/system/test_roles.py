"""The console of the local stack logs in as itself, and goes on doing so whatever becomes of its password."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from modelyard.mongo_users import address, users
from modelyard.settings import mongo_password_file, read_settings
from modelyard.yard import Yard

from .conftest import ports

pytestmark = pytest.mark.system


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """A stack that runs, in a folder of its own."""
    yard = Yard(read_settings({**ports(), "YARD_HOME": str(tmp_path / ".yard")}, tmp_path))
    try:
        yard.up()
        yield yard
    finally:
        yard.close()
        yard.stack.down()


def takes_in(yard: Yard, prediction: str) -> bool:
    """Does the console store an audit record?"""
    record = {"_id": prediction, "at": "2026-01-01T00:00:00+00:00", "status": 200, "latency_ms": 1.0}
    headers = {"x-gateway-secret": yard.stack.secret()}
    url = f"{yard.settings.console_url}/internal/audit"
    answer = httpx.post(url, content=orjson.dumps(record), headers=headers, timeout=30)
    return answer.status_code == 200 and yard.db.predictions.find_one({"_id": prediction}) is not None


def login_of_console(yard: Yard) -> str:
    process = psutil.Process(yard.stack.processes.state("console").pid)
    return str(process.environ()["YARD_MONGO_URL"])


def settled(yard: Yard) -> None:
    """Wait until a console that was started anew answers."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=30) as http:
        assert http.get(f"{yard.settings.console_url}/healthz").status_code == 200


def test_it_takes_in_predictions_as_console_and_never_sees_the_administrators_password(yard: Yard) -> None:
    assert login_of_console(yard).startswith("mongodb://console:")
    assert mongo_password_file(yard.settings.home).read_text() not in "".join(
        psutil.Process(yard.stack.processes.state("console").pid).environ().values()
    )
    assert takes_in(yard, "a")
    assert {user.role.name for user in users(yard.settings) if user.address == "works"} == {
        "scientist", "approver", "engineer", "console", "omniboard", "auditor",
    }  # fmt: skip


def test_a_folder_from_before_there_were_roles_gets_them_and_a_second_start_changes_nothing(yard: Yard) -> None:
    yard.db.command("dropAllUsersFromDatabase")
    yard.db.command("dropAllRolesFromDatabase")
    # What `yard up --omniboard` had made by itself.
    yard.db.command("createRole", "omniboard", privileges=[], roles=["read"])
    yard.db.command("createUser", "omniboard", pwd="of-old", roles=["omniboard"])
    folder = yard.settings.home / "secrets" / "roles"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    yard.up()
    settled(yard)
    assert login_of_console(yard) == address(yard.settings, "console")
    assert takes_in(yard, "b")
    assert not any(user.drifted or not user.exists for user in users(yard.settings))
    pid = yard.stack.processes.state("console").pid
    yard.up()
    assert yard.stack.processes.state("console").pid == pid


def test_a_rotated_or_lost_password_reaches_the_running_console(yard: Yard) -> None:
    before = login_of_console(yard)
    yard.create_roles(["console"])
    settled(yard)
    assert login_of_console(yard) != before
    assert takes_in(yard, "c")
    (yard.settings.home / "secrets" / "roles" / "console").unlink()
    yard.up()
    settled(yard)
    assert takes_in(yard, "d")
