"""The caller's page: every command and every script on it is run, in its order, against the stack of the road."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from modelyard.demo import holdout_rows
from modelyard_serving import call_errors
from modelyard_serving.call_errors import error_class
from places import REPOSITORY

from .conftest import Road

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PAGE = (REPOSITORY / "docs" / "caller.md").read_text()
WRITTEN = "http://127.0.0.1:7400"  # the gateway's address as the page has it


def steps() -> list[tuple[str, str]]:
    """(language, text) of each command and each script, in the page's order."""
    found = []
    for language, block in re.findall(r"```(console|python)\n(.*?)```", PAGE, re.DOTALL):
        lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        found += [(language, text) for text in (lines if language == "console" else [block])]
    return found


@pytest.fixture(scope="module")
def folder(road: Road) -> Iterator[Path]:
    """A folder with the request that the page speaks of; git does not see it. Others' results stay."""
    folder = road.root / ".yard" / "caller"
    folder.mkdir()
    _, row, _ = holdout_rows(road.yard.project("tumor").folder)[0]
    (folder / "row.json").write_bytes(orjson.dumps({"rows": [row]}))
    yield folder
    road.yard.db.feedback.delete_many({"caller": "alice"})


def test_everything_on_the_page_works(road: Road, folder: Path) -> None:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert len(steps()) > 12
    said = {}
    for language, text in steps():
        here = text.replace(WRITTEN, road.yard.settings.gateway_url)
        command = [sys.executable, "-c", here] if language == "python" else ["bash", "-euc", here]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said[text] = done.stdout + done.stderr
    asked = orjson.loads((folder / "answer.json").read_bytes())
    assert len(asked["predictions"]) == 1
    assert any("'accepted': 20" in text for text in said.values())
    assert any('"duplicates":1' in text for text in said.values())
    assert "mean reward" in said["yard results tumor"]
    assert (folder / "results.html").read_text().count("<svg") == 3
    deadline = time.monotonic() + 30
    while (found := road.yard.db.feedback.find_one({"_id": asked["prediction_id"]}))["state"] == "waiting":
        assert time.monotonic() < deadline, "its audit record has not come"
        time.sleep(0.2)
    assert (found["state"], found["caller"], found["unit"], found["duplicates"]) == ("counted", "alice", "patient-7", 1)


def test_the_table_of_errors_is_the_clients() -> None:
    [table] = re.findall(r"\| status \| class \|.*?\n\|[- |]+\n(.*?)\n\n", PAGE, re.DOTALL)
    for row in table.splitlines():
        statuses, name, _, again = (cell.strip(" `") for cell in row.strip("|").split("|"))
        kind = getattr(call_errors, name)
        assert kind.retriable == (again == "yes")
        for status in re.findall(r"\d+", statuses):
            assert error_class(int(status)) is kind


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:`|^\$ )yard ([a-z]+)", PAGE, re.MULTILINE))
    done = subprocess.run([Path(sys.executable).parent / "yard", "--help"], capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^  ([a-z]+)", done.stdout, re.MULTILINE))
