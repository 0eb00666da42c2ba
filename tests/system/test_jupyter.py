"""JupyterLab, started by `yard up --jupyter`: this environment, these settings, nobody else's eyes."""

import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import httpx
import psutil
import pytest
from jupyter_client import BlockingKernelClient, find_connection_file
from playwright.sync_api import Page, expect

from modelyard import pages
from modelyard.settings import Settings, read_settings
from modelyard.stack import Stack
from modelyard_serving.errors import Unavailable
from modelyard_serving.local_stage import free_port
from places import PROJECTS

pytestmark = [pytest.mark.system]


class Lab:
    """A running JupyterLab."""

    def __init__(self, settings: Settings, entrance: str) -> None:
        self.settings, self.entrance = settings, entrance
        self.stack = Stack(settings)
        self.token = (settings.home / "secrets" / "jupyter").read_text()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{settings.jupyter_port}",
            headers={"authorization": f"token {self.token}"},
            timeout=30,
        )

    def run(self, code: str) -> str:
        """What a cell with this code prints."""
        kernel = self.http.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]
        client = BlockingKernelClient(connection_file=find_connection_file(f"kernel-{kernel}.json"))
        client.load_connection_file()
        client.start_channels(hb=False)  # on a busy machine, a kernel that starts is taken for a dead one
        printed: list[str] = []
        try:
            client.wait_for_ready(timeout=60)
            client.execute_interactive(
                code, timeout=60, output_hook=lambda message: printed.append(_text(message["content"]))
            )
        finally:
            client.stop_channels()
            self.http.delete(f"/api/kernels/{kernel}").raise_for_status()
        return "".join(printed)


def _text(content: dict) -> str:
    return content.get("text") or "\n".join(content.get("traceback", ()))


@pytest.fixture(scope="module")
def lab(mongo_home: Path, mongo_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(PROJECTS, root / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    env = {
        "YARD_HOME": str(mongo_home),
        "YARD_MONGO_PORT": str(mongo_port),
        "YARD_JUPYTER_PORT": str(free_port()),
        "YARD_DATABASE": f"test_{uuid.uuid4().hex}",
    }
    settings = read_settings(env, root)
    stack = Stack(settings)
    stack.processes.start_supervisor()
    try:
        lab = Lab(settings, stack.open(pages.jupyter(settings)))
        yield lab
        lab.http.close()
    finally:
        stack.down()


def test_a_notebook_finds_the_same_settings_wherever_it_is(lab: Lab, tmp_path: Path) -> None:
    printed = lab.run(
        f"import os; os.chdir({str(tmp_path)!r})\n"
        "import modelyard; yard = modelyard.open()\n"
        "for name in yard.settings.__dataclass_fields__: print(name, getattr(yard.settings, name), sep='=')\n"
        "print(yard.settings.embedded_mongo, yard.runs())"
    )
    found = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    expected = {field.name: str(getattr(lab.settings, field.name)) for field in fields(lab.settings)}
    different = {name for name, value in expected.items() if found.get(name) != value}
    assert different == {"root", "sources"}, printed
    assert printed.endswith("True []\n")


def test_it_runs_in_the_environment_that_training_wants(lab: Lab) -> None:
    lock = lab.settings.projects / "tumor" / "requirements.lock"
    printed = lab.run(
        "import sys; from pathlib import Path\n"
        "from modelyard_tracking.origin import check_environment\n"
        f"check_environment(Path({str(lock)!r})); print(sys.executable)"
    )
    assert printed == f"{sys.executable}\n"


def test_it_shows_the_folder_of_the_projects_to_those_who_have_the_token(lab: Lab) -> None:
    assert {entry["name"] for entry in lab.http.get("/api/contents").json()["content"]} == {"projects"}
    for headers in ({}, {"authorization": "token wrong"}):
        assert httpx.get(f"{lab.http.base_url}/api/contents", headers=headers).status_code == 403


def test_it_listens_on_loopback_and_no_command_line_holds_the_token(lab: Lab) -> None:
    process = psutil.Process(lab.stack.processes.state("jupyter").pid)
    assert {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    assert not any(lab.token in word for word in process.cmdline())


def test_opening_what_runs_leaves_it_alone(lab: Lab) -> None:
    before = lab.stack.processes.state("jupyter").pid
    assert lab.stack.open(pages.jupyter(lab.settings)) == lab.entrance
    assert lab.stack.processes.state("jupyter").pid == before


@pytest.mark.browser
def test_the_printed_address_opens_it_and_the_page_asks_nothing_of_the_network(lab: Lab, page: Page) -> None:
    hosts: set[str | None] = set()
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).host or None))
    page.goto(lab.entrance)
    expect(page.get_by_text("Python 3 (ipykernel)").first).to_be_visible(timeout=60_000)
    expect(page.get_by_label("File Browser Section").get_by_text("projects")).to_be_visible()
    expect(page.get_by_text("Jupyter news")).to_have_count(0)
    assert hosts <= {"127.0.0.1", None}  # None: what is inlined


def test_without_jupyterlab_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pages, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match="make setup"):
        pages.jupyter(read_settings({}, tmp_path))
