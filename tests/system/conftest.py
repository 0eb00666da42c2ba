"""The whole road, walked once for all system tests: the real stack in a repository of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from modelyard.demo import holdout_rows
from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_serving.client import Client, Prediction
from modelyard_serving.local_stage import free_port
from modelyard_tracking.sweeping.sweep import SweepResult, run_sweep
from places import PROJECTS

UNITS = 300
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# No sandbox inside the containers that tests run in; and nothing is asked of the network by itself.
CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def commit_all(folder: Path) -> None:
    """Commit everything in `folder`, making it a repository if it is none."""
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, "commit", "-qm", "state", "--allow-empty"], cwd=folder, check=True)


def recorded_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The first row of what was asked, by the audit."""
    inputs = record["inputs"]
    return dict(zip(inputs["columns"], inputs["data"][0], strict=True))


def ports() -> dict[str, str]:
    names = ("GATEWAY", "CONSOLE", "MONGO", "MLFLOW", "OMNIBOARD", "JUPYTER")
    return {f"YARD_{name}_PORT": str(free_port()) for name in names}


def as_a_reader(folder: Path, ignored: str = "") -> dict[str, str]:
    """Make `folder` a repository with the example projects; gives the environment of a shell in it, on free ports.

    Args:
        ignored: what git ignores of what a page of the docs makes there, a pattern a line.
    """
    shutil.copytree(PROJECTS, folder / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text(f".yard/\n__pycache__/\n{ignored}")
    commit_all(folder)
    env = {name: value for name, value in os.environ.items() if not name.startswith("YARD_")}
    return env | ports() | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}


def console_commands(page: str) -> list[str]:
    """The commands of a page, in its order."""
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def said_by(text: str, folder: Path, env: Mapping[str, str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """A command of a page, as a person types it; it must succeed."""
    command = ["bash", "-euc", text]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass
class Road:
    """What was made on the way, and what was answered."""

    root: Path
    yard: Yard
    sweep: SweepResult
    refs: dict[str, str]  # alias -> version
    token: str
    bystander: "subprocess.Popen[bytes]"  # a child of this process from before the sweep
    answered: dict[str, Prediction] = field(default_factory=dict)  # unit -> answer
    truths: dict[str, str] = field(default_factory=dict)

    @property
    def http(self) -> httpx.Client:
        url = self.yard.settings.gateway_url
        return httpx.Client(base_url=url, headers={"authorization": f"Bearer {self.token}"}, timeout=30)

    def command(self, *args: str) -> "subprocess.CompletedProcess[str]":
        """`yard ARGS` as a person would type it in the repository."""
        program = [str(Path(sys.executable).parent / "yard"), *args]
        return subprocess.run(program, cwd=self.root, capture_output=True, text=True, timeout=300, check=False)

    def json(self, *args: str) -> Any:
        done = self.command(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def page() -> Iterator[Page]:
    """An empty page in this machine's Chromium. Not kept for longer: asyncio's loop runs as long as it is open."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("there is no Chromium on PATH; install it:  make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS), timeout=60_000)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with the example project; the system tests work in it, on ports of their own."""
    folder = tmp_path_factory.mktemp("road")
    shutil.copytree(PROJECTS, folder / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text(".yard/\n__pycache__/\n.ipynb_checkpoints/\n")
    commit_all(folder)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ports().items():
            patch.setenv(name, value)
        patch.setenv("YARD_USER", "tester")
        os.chdir(folder)
        yield folder
        os.chdir(before)


@pytest.fixture(scope="package")
def road(root: Path) -> Iterator[Road]:
    yard = Yard(read_settings())
    bystander = subprocess.Popen(["sleep", "3600"])
    try:
        yard.up()
        plain = yard.train("tumor")
        sweep = run_sweep(yard.project("tumor"), yard.settings.tracking_home, seed=1)
        refs = {}
        for run, alias in ((plain, "champion"), (yard.run_store.get(sweep.promotable), "challenger")):
            refs[alias] = yard.request(run.id).ref
            yard.approve(refs[alias], "for the tests", alias)
            yard.build(refs[alias], "bento")
            yard.deploy(f"tumor@{alias}")
        yard.split("tumor", {"champion": 80, "challenger": 20})
        _, token = yard.issue_key("tester", ["predict:tumor", "feedback:tumor", "read:tumor"])
        walked = Road(root, yard, sweep, refs, token, bystander)
        _ask(walked)
        yield walked
    finally:
        bystander.kill()
        bystander.wait()
        yard.close()
        yard.stack.down()


def _ask(road: Road) -> None:
    """Every held-out row once, each for a unit of its own; the truth follows as feedback."""
    with Client(road.yard.settings.gateway_url, road.token) as client:
        model = client.model("tumor")

        def ask(item: tuple[str, dict[str, Any], str]) -> None:
            unit, row, truth = item
            answer = model.predict([row], unit=unit)
            client.feedback(answer.id, truth=truth)
            road.answered[unit], road.truths[unit] = answer, truth

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, holdout_rows(road.yard.project("tumor").folder)[:UNITS]))
