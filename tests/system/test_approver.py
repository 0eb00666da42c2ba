"""The approver's page: every command on it is run, in its order, in a fresh repository."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard_tracking.project import load_project
from places import REPOSITORY

from .conftest import as_a_reader, console_commands, said_by

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PAGE = (REPOSITORY / "docs" / "approver.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A repository with the example projects, and the environment of a shell in it."""
    folder = tmp_path_factory.mktemp("approver")
    env = as_a_reader(folder, "*.md\n")
    yield folder, env
    subprocess.run(["yard", "down"], cwd=folder, env=env, capture_output=True, timeout=120, check=False)


def test_everything_on_the_page_works(place: tuple[Path, dict[str, str]]) -> None:
    folder, env = place
    assert len(console_commands(PAGE)) > 10
    said = {}
    for text in console_commands(PAGE):
        done = said_by(text, folder, env, 120)
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
