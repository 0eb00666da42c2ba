"""kill -9 at every step of keeping, bringing, fetching and removing."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from modelyard_tracking.storing.objects import Address

PROGRAM = Path(__file__).with_name("killed_everywhere.py")


def kills(work: str, folder: Path, address: Address | None) -> int:
    shared = json.dumps(asdict(address) if address else None)
    command = [sys.executable, str(PROGRAM), work, str(folder / "store"), shared]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(json.loads(done.stdout)["kills"])


@pytest.mark.parametrize(("work", "least"), [("keep_model", 8), ("keep_frame", 3)])
def test_a_kill_while_something_is_kept_leaves_all_of_it_or_nothing(tmp_path: Path, work: str, least: int) -> None:
    assert kills(work, tmp_path, None) >= least


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("work", ["bring", "fetch", "remove"])
def test_a_kill_on_the_way_leaves_no_half_model_that_looks_whole(tmp_path: Path, address: Address, work: str) -> None:
    assert kills(work, tmp_path, address) >= 20
