"""What a run prints goes to the terminal, and to a file."""

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard_tracking.recording.capture import captured

SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from modelyard_tracking.recording.capture import captured, default_mode
with captured(sys.argv[2] if sys.argv[2] != "default" else default_mode(), Path(sys.argv[1])):
    print("from python")
    print("to stderr", file=sys.stderr)
    subprocess.run(["echo", "from a child"], check=True)
    if sys.argv[3] == "die":
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
print("afterwards")
"""


@pytest.mark.parametrize(("mode", "lines"), [("fd", 3), ("sys", 2), ("default", 3), ("no", 0)])
def test_output_is_captured_and_still_seen(mode: str, lines: int, tmp_path: Path) -> None:
    file = tmp_path / "output.log"
    command = [sys.executable, "-c", SCRIPT, str(file), mode, "live"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert {"from python", "from a child", "afterwards"} <= set(done.stdout.splitlines())
    assert "to stderr" in done.stderr
    kept = file.read_text().splitlines() if file.exists() else []
    assert len(kept) == lines
    assert "afterwards" not in kept


def test_the_last_lines_before_a_kill_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "output.log"
    command = [sys.executable, "-c", SCRIPT, str(file), "fd", "die"]
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert "from python" in file.read_text()
    assert "from a child" in file.read_text()


def test_a_replaced_stdout_is_captured_where_it_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with captured("sys", tmp_path / "output.log"):
        print("in a notebook")
    assert (tmp_path / "output.log").read_text() == "in a notebook\n"
    assert capsys.readouterr().out == "in a notebook\n"
