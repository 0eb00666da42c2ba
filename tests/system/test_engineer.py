"""The engineer's page: every command on it is run, in its order, in a fresh repository, on a real docker engine."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from modelyard.settings import read_settings
from modelyard_tracking.project import load_project
from own_engine import OwnEngine
from places import REPOSITORY

from .conftest import as_a_reader, console_commands, said_by

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(600)]

PAGE = (REPOSITORY / "docs" / "engineer.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, engine: OwnEngine) -> Iterator[tuple[Path, dict[str, str]]]:
    """A repository with the example projects, and the environment of a shell in it."""
    folder = tmp_path_factory.mktemp("engineer")
    env = as_a_reader(folder)
    env |= {"YARD_BASE_IMAGE": engine.base, "YARD_IMAGES": f"{engine.registry}/team"}
    yield folder, env
    if (folder / "container").is_file():  # where the page was left in between
        container = (folder / "container").read_text()
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, timeout=60, check=False)
    subprocess.run(["yard", "down"], cwd=folder, env=env, capture_output=True, timeout=120, check=False)


def first_column(heading: str) -> list[str]:
    [table] = re.findall(rf"\| {heading} \|.*?\n\|[- |]+\n(.*?)\n\n", PAGE, re.DOTALL)
    return [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()]


def test_everything_on_the_page_works(place: tuple[Path, dict[str, str]]) -> None:
    folder, env = place
    assert len(console_commands(PAGE)) > 20
    said = {}
    for text in console_commands(PAGE):
        done = said_by(text, folder, env, 300)
        said[text] = done.stdout + done.stderr
    steps = re.findall(r"(?m)^([a-z][^\n]*?) +\d+\.\d s *$", said["yard build tumor:1"])
    before = [first_column("step")[0], *first_column("step")[5:]]
    assert [step for step in steps if step in first_column("step")] == before, "the bento was made before"
    reports = folder / ".yard" / "reports"
    report = orjson.loads((reports / "tumor-1-image.json").read_bytes())
    assert sorted(finding["check"] for finding in report["findings"]) == sorted(first_column("check"))
    assert (reports / "tumor-1-image.xml").is_file()
    told = next(text for command, text in said.items() if command.startswith("curl"))
    assert orjson.loads(told)["model"] == "tumor"
    assert "@sha256:" in (folder / "image").read_text()
    assert '"io.modelyard.model-sha256"' in next(text for command, text in said.items() if "inspect" in command)


def test_what_the_page_declares_is_understood(tmp_path: Path) -> None:
    settings, declared = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "yard.toml").write_text(settings)
    found = read_settings({}, tmp_path)
    assert (found.images, found.wheelhouse) == ("registry.example/team", Path("/srv/wheels"))
    (tmp_path / "tumor").mkdir()
    head = 'name = "tumor"\nmetric = { name = "m", direction = "max" }\n'
    (tmp_path / "tumor" / "project.toml").write_text(head + declared)
    project = load_project(tmp_path, "tumor")
    assert (project.endpoint.breaks, project.build.image_mb) == ("tumor:3", 500)


def test_every_command_that_is_named_exists() -> None:
    typed = "\n".join(console_commands(PAGE))
    named = set(re.findall(r"`yard ([a-z]+)", PAGE)) | set(re.findall(r"\byard ([a-z]+)", typed))
    done = subprocess.run([Path(sys.executable).parent / "yard", "--help"], capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^  ([a-z]+)", done.stdout, re.MULTILINE))
