"""The approver's page: every command on it is run, in its order, in a fresh repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard_tracking.project import load_project
from places import PROJECTS, REPOSITORY

from .conftest import commit_all, ports

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PAGE = (REPOSITORY / "docs" / "approver.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A repository with the example projects, and the environment of a shell in it."""
    folder = tmp_path_factory.mktemp("approver")
    shutil.copytree(PROJECTS, folder / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text(".yard/\n__pycache__/\n*.md\n")
    commit_all(folder)
    env = {name: value for name, value in os.environ.items() if not name.startswith("YARD_")}
    env |= ports() | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    yield folder, env
    subprocess.run(["yard", "down"], cwd=folder, env=env, capture_output=True, timeout=120, check=False)


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_everything_on_the_page_works(place: tuple[Path, dict[str, str]]) -> None:
    folder, env = place
    assert len(commands()) > 10
    said = {}
    for text in commands():
        done = subprocess.run(
            ["bash", "-euc", text], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said[text] = done.stdout
    [block] = re.findall(r"```\n(✓.*?)```", PAGE, re.DOTALL)
    shown = said["yard models show tumor:2"]
    comparison, interval, bar = block.splitlines()
    for line in (comparison, interval):  # another processor may move the last digits
        assert re.sub(r"\d", "0", line) in re.sub(r"\d", "0", shown), "the page shows something else than the command"
    assert f"\n{bar[:7]}" in shown
    assert (folder / "tumor-2.md").read_text() == said["yard models card tumor:2"]


def test_what_the_page_declares_is_understood(tmp_path: Path) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    whole = f"""
name = "page"
{block}
[metric]
name = "val_auc"
direction = "max"
[endpoint]
unit = "u"
reward = "r"
"""
    assert tomllib.loads(block)["slices"]["min_rows"] == 30
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "project.toml").write_text(whole)
    assert load_project(tmp_path, "page").evaluations == {"holdout"}
