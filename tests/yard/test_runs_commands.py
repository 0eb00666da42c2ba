"""The commands about runs, as a person types them, over a real database."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard_tracking.experiment import Experiment
from modelyard_tracking.recording.spool import RunWriter, Spool, try_lock
from modelyard_tracking.recording.uploader import LOCK, stop_uploader
from modelyard_tracking.store import Home

YARD = str(Path(sys.executable).parent / "yard")


@pytest.fixture
def env(home: Home, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "YARD_HOME": str(tmp_path),
        "YARD_MONGO_URL": home.mongo_url,
        "YARD_DATABASE": home.database,
        "YARD_SPOOL": str(home.spool_root),
        "YARD_ARTIFACTS": str(home.artifacts),
    }


@pytest.fixture
def yard(env: dict[str, str], tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [YARD, *args], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def runs(home: Home, tmp_path: Path) -> None:
    """Three runs of a script; the second prints much, the third fails."""
    experiment = Experiment("churn", home=lambda: home)
    experiment.base_dir = str(tmp_path)
    experiment.add_config({"lr": 0.1, "lines": 1})

    @experiment.main
    def main(_run, lr, lines):
        for line in range(lines):
            print(f"line {line} {'x' * 50}")
        for step in range(20):
            _run.log_scalar("val.auc", lr * step)
        if lr > 0.2:
            raise ValueError("too steep")
        return {"auc": lr, "nothing": float("nan")}

    experiment.run(options={"--loglevel": "ERROR"})
    experiment.run(config_updates={"lr": 0.2, "lines": 3000}, options={"--loglevel": "ERROR"})
    with pytest.raises(ValueError, match="too steep"):
        experiment.run(config_updates={"lr": 0.3}, options={"--loglevel": "CRITICAL"})


def _free(lock: Path) -> bool:
    with try_lock(lock) as free:
        return free


@pytest.mark.usefixtures("runs")
class TestOverThreeRuns:
    def test_runs_lists_the_newest_first(self, yard) -> None:
        lines = yard("runs").stdout.splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [
            ["3", "churn", "FAILED"],
            ["2", "churn", "COMPLETED"],
            ["1", "churn", "COMPLETED"],
        ]

    def test_runs_sorts_filters_and_shows_columns(self, yard) -> None:
        said = yard("runs", "churn", "--sort", "val.auc", "-w", "status=COMPLETED", "-c", "lr,val.auc")
        assert [line.split()[0] for line in said.stdout.splitlines()] == ["run", "2", "1"]
        assert "3.8" in said.stdout.splitlines()[1]  # the last of 20 points
        assert [run["id"] for run in json.loads(yard("runs", "--sort", "lr", "--ascending", "--json").stdout)] == [
            1,
            2,
            3,
        ]

    def test_json_is_json_also_where_a_result_is_no_number(self, yard) -> None:
        [first] = json.loads(yard("runs", "-w", "id=1", "--json").stdout)
        assert first["result"] == {"auc": 0.1, "nothing": None}
        assert first["started_at"].endswith("+00:00")

    def test_a_filter_that_fits_nothing_says_so(self, yard) -> None:
        said = yard("runs", "-w", "lr>7")
        assert (said.returncode, said.stdout) == (0, "")
        assert "No run fits." in said.stderr

    def test_what_is_no_condition_or_no_project_is_one_sentence(self, yard) -> None:
        said = yard("runs", "-w", "lr!!7")
        assert said.returncode == 4
        assert "val_auc>0.9" in said.stderr
        assert yard("runs", "nosuch").returncode == 3

    def test_show_draws_the_curves_small(self, yard) -> None:
        said = yard("show", "1").stdout
        assert "1 of churn, COMPLETED" in said
        assert "▁" in said
        assert "█" in said
        assert "ValueError: too steep" in yard("show", "3").stdout

    def test_show_prints_all_that_a_run_printed(self, yard) -> None:
        said = yard("show", "2", "--output").stdout
        assert sum(line.startswith("line ") for line in said.splitlines()) == 3000

    def test_following_a_run_that_is_over_prints_its_output_and_ends(self, yard) -> None:
        said = yard("show", "1", "--follow")
        assert said.returncode == 0
        assert said.stdout.startswith("line 0 ")

    def test_compare_shows_what_differs(self, yard) -> None:
        said = yard("compare", "1", "2").stdout
        assert "lr" in said
        assert "+0.1" in said
        assert "more are the same" in said
        described = json.loads(yard("compare", "1", "2", "--json").stdout)
        assert described["config"]["lr"] == [0.1, 0.2]
        assert yard("compare", "1").returncode == 2
        assert yard("compare", "1", "99").returncode == 3

    def test_push_brings_up_what_a_dead_process_left(self, yard, home: Home) -> None:
        stop_uploader(home.spool)  # the one of the runs above, which would be faster
        while (home.spool / LOCK).exists() and not _free(home.spool / LOCK):
            time.sleep(0.05)
        folder = Spool(home.spool).new()
        writer = RunWriter(folder)
        info = {"modelyard": {"uuid": folder.uuid}}
        document = {"experiment": {"name": "churn", "sources": []}, "status": "RUNNING", "info": info}
        writer.event("started", document=document)
        writer.close()
        said = yard("runs", "push", "--json")
        assert json.loads(said.stdout) == {
            "pushed": [{"run": 4, "spooled": folder.uuid}],
            "left": 0,
            "live": 0,
            "shared": 0,
        }
        assert "DIED" in yard("runs", "-n", "1").stdout
        assert "0 pushed" in yard("runs", "push").stderr


def test_a_running_run_is_followed_line_by_line_until_it_ends(env, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\nfrom modelyard import Experiment\nex = Experiment('slow')\n"
        "@ex.automain\ndef main():\n"
        "    for i in range(4):\n        print('line', i, flush=True)\n"
        "        ends = time.monotonic() + 60\n"
        "        while not Path(f'shown-{i}').exists():\n"
        "            assert time.monotonic() < ends\n"
        "            time.sleep(0.05)\n"
    )
    training = subprocess.Popen(
        [sys.executable, "slow.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with training:
        assert training.stdout
        assert training.stdout.readline() == "line 0\n"
        with subprocess.Popen(
            [YARD, "show", "1", "-f"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
        ) as tail:
            assert tail.stdout
            seen = []
            for line in tail.stdout:
                if line.startswith("line "):
                    (tmp_path / f"shown-{len(seen)}").touch()  # the run goes on when its last line was shown
                    seen.append(line)
        training.stdout.read()
    assert seen == [f"line {i}\n" for i in range(4)]
    assert tail.returncode == 0
