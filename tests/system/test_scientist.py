"""The scientist's page: every command and every script on it is run, in its order, in a fresh repository."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.settings import read_settings
from modelyard.yard import Yard
from places import REPOSITORY

from .conftest import as_a_reader

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # the first time, npm installs Omniboard

PAGE = (REPOSITORY / "docs" / "scientist.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A repository with the example project, and the environment of a shell in it."""
    folder = tmp_path_factory.mktemp("scientist")
    env = as_a_reader(folder, "*.bundle\n") | {"MPLBACKEND": "Agg"}
    yield folder, env
    subprocess.run(["yard", "down"], cwd=folder, env=env, capture_output=True, timeout=120, check=False)


def steps() -> list[tuple[str, str]]:
    """(language, text) of each command and each script, in the page's order."""
    found = []
    for language, block in re.findall(r"```(console|python)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            found.append((language, block))
        else:
            found += [(language, line.removeprefix("$ ")) for line in block.splitlines() if line.startswith("$ ")]
    return found


def test_everything_on_the_page_works(place: tuple[Path, dict[str, str]]) -> None:
    folder, env = place
    assert len(steps()) > 15
    said = {}
    for language, text in steps():
        if language == "python":
            env["MONGO_URL"] = read_settings(env, folder).mongo_url
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said[text.strip()] = done.stdout + done.stderr
    yard = Yard(read_settings(env, folder))
    try:
        runs = yard.runs(limit=100)
        by_hand = next(run for run in runs if run.raw.get("meta", {}).get("comment") == "more components")
        assert (by_hand.config["components"], by_hand.experiment) == (10, "tumor")
        assert [len(yard.run_store.of_sweep(sweep)) for sweep in (1, 2)] == [4, 6]
        assert all(sweep.winner for sweep in yard.sweeps.latest())
        assert "<svg" in (folder / "sweep.html").read_text()
        assert [run.result for run in runs if run.experiment == "plain"] == [{"result": 0.7}]
        assert {run.status for run in runs} == {"COMPLETED"}
        assert [run.recorded.get("reproduces") for run in runs].count(runs[-1].recorded["uuid"]) == 1
        assert (folder / "best.bundle").stat().st_size > 1000
    finally:
        yard.close()
    assert "C" in said["yard compare 1 2"]
    assert "identical" in said["yard reproduce 1"]


def test_every_command_that_is_named_in_the_text_exists() -> None:
    named = set(re.findall(r"`yard ([a-z]+)", PAGE)) | {
        text.split()[1] for _, text in steps() if text.startswith("yard ")
    }
    done = subprocess.run([Path(sys.executable).parent / "yard", "--help"], capture_output=True, text=True, check=True)
    there = set(re.findall(r"^  ([a-z]+)", done.stdout, re.MULTILINE))
    assert named <= there
