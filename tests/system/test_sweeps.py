"""Sweeps on a real Ray: what is searched, what survives, and what the winner is worth."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import Project, load_project
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.store import Home
from modelyard_tracking.sweeping.sweep import SweepResult, run_sweep
from modelyard_tracking.sweeping.sweeps import SweepStore
from modelyard_tracking.sweeping.watch import TrialEvent

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

YARD = str(Path(sys.executable).parent / "yard")

TRAIN = """
import os, signal, tempfile, time
from pathlib import Path
from modelyard import Experiment

ex = Experiment("bowl")

@ex.config
def config():
    x = 0.0
    steps = 1
    pause = 0.0
    fail_at = -1.0
    kill_once = ""
    hold = ""

@ex.holdout
def holdout(model):
    return -((model - 0.3) ** 2) - 0.5  # worse than the sweep's own score, by a known amount

@ex.automain
def main(_run, x, steps, pause, fail_at, kill_once, hold, seed):
    if hold:  # a folder; whoever comes after two others waits until `go` is in it
        (Path(hold) / str(time.time_ns())).touch()
        while len(list(Path(hold).iterdir())) > 2 and not (Path(hold) / "go").exists():
            time.sleep(0.05)
    if x > fail_at > -1:
        raise ValueError(f"x = {x} is too far")
    start, value = 1, 0.0
    before = ex.checkpoint()
    if before:
        start = int((before / "step").read_text()) + 1
    for step in range(start, steps + 1):
        time.sleep(pause)
        value = -((x - 0.3) ** 2) - 0.1 * (steps - step) / steps
        if steps > 1:
            folder = Path(tempfile.mkdtemp())
            (folder / "step").write_text(str(step))
            ex.report(step, value, checkpoint=folder)
        if kill_once and step == 3 and not Path(kill_once).exists():
            Path(kill_once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    ex.hand_over(x)
    return {"score": value, "first_step": start}
"""


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    """Write a project that is a bowl, whose bottom is at x = 0.3."""

    def write(**sweep: object) -> Project:
        folder = tmp_path / "projects" / "bowl"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.py").write_text(TRAIN)
        table = {"trials": 6, "concurrent": 2, "fresh_seeds": 2, **sweep}
        space = table.pop("space", {"x": {"uniform": [-1.0, 1.0]}})
        lines = [f"{name} = {_toml(value)}" for name, value in table.items()]
        lines += ["[sweep.space]", *(f"{name} = {_toml(value)}" for name, value in space.items())]
        (folder / "project.toml").write_text(
            'name = "bowl"\n[metric]\nname = "score"\ndirection = "max"\n'
            '[endpoint]\nunit = "u"\nreward = "r"\n[sweep]\n' + "\n".join(lines)
        )
        return load_project(tmp_path / "projects", "bowl")

    return write


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    return json.dumps(value)


def configs(runs: tuple[Run, ...] | list[Run]) -> dict[int, dict]:
    return {run.raw["info"]["sweep"]["trial"]: run.raw["info"]["sweep"]["config"] for run in runs}


def test_the_same_seed_gives_the_same_configurations_and_each_trial_is_one_run(project, home: Home, db) -> None:
    bowl = project(trials=8, concurrent=2)
    first: SweepResult = run_sweep(bowl, home, seed=3)
    second = run_sweep(bowl, home, seed=3)
    assert configs(first.trials) == configs(second.trials)
    assert len(configs(first.trials)) == len({str(config) for config in configs(first.trials).values()}) == 8
    assert db.runs.count_documents({"info.sweep.id": first.id, "info.sweep.trial": {"$exists": True}}) == 8
    assert {run.status for run in first.trials} == {"COMPLETED"}
    sweep = SweepStore(db).get(first.id)
    assert (sweep.state, sweep.trials, sweep.space) == ("COMPLETED", 8, {"x": {"uniform": [-1.0, 1.0]}})
    # The winner was trained anew, with seeds that no trial had, on rows that no trial saw.
    winner = first.winner
    assert winner is not None
    assert winner.on_holdout
    assert winner.optimism == pytest.approx(0.5)
    fresh = [RunStore(db).get(run) for run in winner.runs]
    assert {run.config["x"] for run in fresh} == {first.best.config["x"]}
    assert not {run.config["seed"] for run in fresh} & {run.config["seed"] for run in first.trials}
    assert all("holdout" not in run.result for run in first.trials)
    assert first.promotable in winner.runs


def test_trials_that_fail_are_tried_again_and_reported_and_the_sweep_goes_on(project, home: Home, db) -> None:
    bowl = project(space={"x": {"uniform": [-1.0, 1.0]}, "fail_at": 0.5}, max_failures=1)
    said: list = []
    result = run_sweep(bowl, home, seed=1, on_event=said.append)
    failed = [number for number, config in configs(result.trials).items() if config["x"] > 0.5]
    assert failed
    assert result.failed == len(failed)
    for number in failed:
        attempts = list(db.runs.find({"info.sweep.id": result.id, "info.sweep.trial": number}))
        assert [(run["status"], run["info"]["sweep"]["attempt"]) for run in attempts] == [("FAILED", 0), ("FAILED", 1)]
        assert "is too far" in "".join(attempts[0]["fail_trace"])
    assert any("is too far" in event.fault for event in said if event.kind == "failed")
    assert result.best.config["x"] <= 0.5


def test_a_worker_that_is_killed_goes_on_from_its_last_checkpoint(project, home: Home, db, tmp_path: Path) -> None:
    bowl = project(trials=2, concurrent=1, space={"x": {"uniform": [-1.0, 1.0]}, "steps": 6,
                                                  "kill_once": str(tmp_path / "killed")}, max_steps=6)  # fmt: skip
    result = run_sweep(bowl, home)
    assert {run.status for run in result.trials} == {"COMPLETED"}
    attempts = list(db.runs.find({"info.sweep.id": result.id, "info.sweep.trial": 0}).sort("_id", 1))
    assert [run["status"] for run in attempts] == ["DIED", "COMPLETED"]
    assert attempts[1]["result"]["first_step"] in (3, 4)  # at most one step is done again
    assert len(configs(result.trials)) == 2


def test_asha_stops_the_hopeless_early_and_their_runs_say_so(project, home: Home) -> None:
    bowl = project(trials=9, concurrent=2, scheduler="asha", max_steps=9, grace_steps=1, reduction=3,
                   space={"x": {"uniform": [-1.0, 1.0]}, "steps": 9})  # fmt: skip
    result = run_sweep(bowl, home, seed=2)
    stopped = [run for run in result.trials if run.status == "INTERRUPTED"]
    assert stopped
    assert {run.raw["info"]["sweep"]["stopped_by"] for run in stopped} == {"asha"}
    assert all(run.raw["info"]["sweep"]["step"] < 9 for run in stopped)
    assert result.best.status == "COMPLETED"
    assert result.best.raw["info"]["sweep"]["step"] == 9
    assert len(result.trials) == 9


def test_more_than_there_is_is_said_at_once_with_what_there_is(project, home: Home, db) -> None:
    bowl = project(resources={"cpu": 1, "gpu": 0.5})
    with pytest.raises(Refused, match=r"asks for 1 CPU, 0\.5 GPU.*\n.*: 1 CPU"):
        run_sweep(bowl, home, cpus=1)
    assert SweepStore(db).latest()[0].state == "FAILED"
    assert db.runs.count_documents({}) == 0


def test_an_entry_that_the_experiment_does_not_know_is_refused_before_anything_runs(project, home: Home, db) -> None:
    bowl = project(space={"y": {"uniform": [0.0, 1.0]}})
    with pytest.raises(Refused, match="y"):
        run_sweep(bowl, home)
    assert db.sweeps.count_documents({}) == 0


class Driver:
    """`yard sweep bowl` in a process of its own."""

    def __init__(self, project: Project, home: Home) -> None:
        self.root, self.home = project.folder.parents[1], home
        (project.folder / "requirements.lock").touch()
        self.env = {
            **os.environ,
            "YARD_MONGO_URL": home.mongo_url,
            "YARD_DATABASE": home.database,
            "YARD_ARTIFACTS": str(home.artifacts),
            "YARD_SPOOL": str(home.spool_root),
            "YARD_HOME": str(self.root / ".yard"),
        }

    def start(self, *args: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [YARD, "sweep", "bowl", *args], cwd=self.root, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_whose_driver_is_ended_goes_on_without_running_a_finished_trial_again(
    project, home: Home, db, tmp_path: Path, how: signal.Signals
) -> None:
    hold = tmp_path / "hold"  # so that the driver does not end by itself before it is seen that two trials have ended
    hold.mkdir()
    driver = Driver(project(trials=6, concurrent=2, space={"x": {"uniform": [-1.0, 1.0]}, "hold": str(hold)}), home)
    finished = {"info.sweep.trial": {"$exists": True}, "status": "COMPLETED"}
    with driver.start("--seed", "5") as first:
        deadline = time.monotonic() + 120
        while db.runs.count_documents(finished) < 2:
            assert time.monotonic() < deadline
            assert first.poll() is None, first.stderr and first.stderr.read()
            time.sleep(0.1)
        children = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(how)
        (hold / "go").touch()  # Ray lets a trial that runs end its step
        _, said = first.communicate(timeout=60)
    psutil.wait_procs(children, timeout=30)
    before = {run["_id"] for run in db.runs.find(finished)}
    if how == signal.SIGINT:
        assert first.returncode == 130
        assert "yard sweep bowl --resume 1" in said
        assert SweepStore(db).get(1).state == "INTERRUPTED"
    with driver.start("--resume", "1", "--json") as second:
        out, said = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert json.loads(out)["state"] == "COMPLETED"
    done = list(db.runs.find(finished))
    assert before <= {run["_id"] for run in done}
    assert sorted(run["info"]["sweep"]["trial"] for run in done) == list(range(6))  # each exactly once
    cut_off = {
        run["status"] for run in db.runs.find({"info.sweep.trial": {"$exists": True}, "status": {"$ne": "COMPLETED"}})
    }
    assert cut_off <= ({"INTERRUPTED"} if how == signal.SIGINT else {"DIED"})


THETA = """
import json, tempfile
from pathlib import Path
from modelyard import Experiment

ex = Experiment("bowl")

@ex.config
def config():
    h0 = 0.5
    h1 = 0.5
    checkpoints = True

@ex.automain
def main(_run, h0, h1, checkpoints, seed):
    "The example of the paper: what is trained climbs only along the axes that the configuration opens."
    start, theta = 1, [0.9, 0.9]
    before = ex.checkpoint()
    if before:
        start, theta = json.loads((before / "state.json").read_text())
    for step in range(start, 13):
        theta = [theta[0] - 0.1 * h0 * theta[0], theta[1] - 0.1 * h1 * theta[1]]
        folder = Path(tempfile.mkdtemp())
        (folder / "state.json").write_text(json.dumps([step + 1, theta]))
        value = 1.2 - theta[0] ** 2 - theta[1] ** 2
        ex.report(step, value, checkpoint=folder if checkpoints else None)
    return {"score": value, "first_step": start}
"""


@pytest.fixture
def population(project) -> Callable[..., Project]:
    def write(trials: int = 18, perturb_every: int = 4, *, checkpoints: bool = True) -> Project:
        space = {"h0": {"uniform": [0.0, 1.0]}, "h1": {"uniform": [0.0, 1.0]}, "checkpoints": checkpoints}
        plan = {"trials": trials, "max_steps": 12, "perturb_every": perturb_every, "max_failures": 0}
        found = project(scheduler="pbt", fresh_seeds=1, space=space, **plan)
        (found.folder / "train.py").write_text(THETA)
        return found

    return write


def test_a_population_goes_on_from_the_checkpoints_of_its_best_also_after_it_was_cut_off(
    population, home: Home, db
) -> None:
    runs = _by_number(run_sweep(population(), home, seed=2).trials)
    links = [runs[number].raw["info"]["sweep"] for number in range(18)]
    assert [link["step"] for link in links] == [4] * 6 + [8] * 6 + [12] * 6
    assert [run.status for run in runs.values()] == ["INTERRUPTED"] * 12 + ["COMPLETED"] * 6
    assert {runs[number].result["first_step"] for number in range(12, 18)} == {9}
    sources = [link.get("goes_on_from") for link in links]
    assert sources[:6] == [None] * 6
    assert all(sources[number] // 6 == number // 6 - 1 for number in range(6, 18))
    exploited = [number for number in range(6, 18) if sources[number] != number - 6]
    assert exploited
    for number in exploited:
        assert links[number]["config"] != links[sources[number]]["config"]
        assert links[number]["value"] > links[sources[number]]["value"]  # it went on where the other one was

    ended = []

    def cut_off(event: TrialEvent) -> None:
        ended.extend([event.number] * (event.kind == "ended"))
        if len(ended) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(population(), home, seed=2, on_event=cut_off)
    cut = SweepStore(db).latest()[0]
    whole = _by_number(run_sweep(population(), home, resume=cut.id).trials)
    assert [run.raw["info"]["sweep"]["config"] for run in whole.values()] == [link["config"] for link in links]
    attempts = RunStore(db).of_sweep(cut.id, all_attempts=True)
    assert [ended.count(run.raw["info"]["sweep"]["trial"]) for run in attempts].count(1) == 9  # none ran again


def _by_number(trials: Sequence[Run]) -> dict[int, Run]:
    return dict(sorted((run.raw["info"]["sweep"]["trial"], run) for run in trials))


def test_a_hundred_trials_four_at_a_time_are_a_hundred_runs(project, home: Home, db) -> None:
    result = run_sweep(project(trials=100, concurrent=4, resources={"cpu": 0.5}, fresh_seeds=1), home)
    assert len(result.trials) == 100
    assert len(_by_number(result.trials)) == 100
    assert db.runs.count_documents({"info.sweep.trial": {"$exists": True}}) == 100
    assert db.runs.count_documents({}) == 101  # and the winner's


def test_a_generation_that_leaves_no_checkpoint_fails_and_says_so(population, home: Home) -> None:
    runs = _by_number(run_sweep(population(trials=8, perturb_every=6, checkpoints=False), home).trials)
    assert [run.status for run in runs.values()] == ["FAILED"] * 4 + ["COMPLETED"] * 4
    assert all("pbt goes on from checkpoints. Report one at step" in runs[number].fail_trace for number in range(4))
