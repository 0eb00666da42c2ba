"""A sweep as a page or a picture."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelyard.sweep_report import best_so_far, facts, importance, tried, write_report
from modelyard_serving.errors import Refused
from modelyard_tracking.runs import Run
from modelyard_tracking.sweeping.sweeps import Sweep
from modelyard_tracking.sweeping.winner import Winner


def run(number: int, value: float | None, **config) -> Run:
    link = {"id": 1, "trial": number, "config": config, "value": value}
    raw = {"info": {"sweep": link}}
    return Run(number + 1, "bowl", "COMPLETED", None, None, config, {}, {}, 1, "", raw)


@pytest.fixture
def runs() -> list[Run]:
    """Only x matters; one trial failed, and one took another branch of a choice."""
    made = [run(n, -((n / 20 - 0.3) ** 2), x=n / 20, noise=(n * 7919) % 13, kind="<b>tree</b>") for n in range(20)]
    return [
        *made,
        run(20, None, x=0.5, noise=1, kind="<b>tree</b>"),
        run(21, -0.2, x=0.7, noise=3, kind="linear", depth=2),
    ]


@pytest.fixture
def sweep() -> Sweep:
    winner = Winner({"x": 0.3}, 7, 22, 0.0, (-0.02, -0.01, -0.03), (31, 32, 33), True, "max")
    raw = {"plan": {"search": "tpe", "scheduler": "none"}}
    return Sweep(1, "bowl", "score", "max", {}, 0, 22, "COMPLETED", datetime.now(UTC), None, 7, 0.0, winner, raw)


def test_what_mattered_is_the_parameter_that_did(sweep: Sweep, runs: list[Run]) -> None:
    weights = importance(tried(sweep, runs))
    assert next(iter(weights)) == "x"
    assert weights["x"] > 0.7
    assert sum(weights.values()) == pytest.approx(1)


def test_few_trials_are_too_few_to_tell(sweep: Sweep, runs: list[Run]) -> None:
    assert importance(tried(sweep, runs[:9])) == {}


@pytest.mark.parametrize(("direction", "best"), [("max", [1, 1, 3]), ("min", [1, 0, 0])])
def test_the_best_so_far_leaves_out_trials_without_a_score(sweep: Sweep, direction: str, best: list[float]) -> None:
    trials = tried(sweep, [run(0, 1.0), run(1, None), run(2, math.nan), run(3, 0.0), run(4, 3.0)])
    assert best_so_far(trials, direction) == best


def test_the_facts_say_how_much_the_sweep_flattered(sweep: Sweep, runs: list[Run]) -> None:
    said = dict(facts(sweep, tried(sweep, runs)))
    assert said["optimism"].startswith("+0.02")
    assert "3 fresh seeds, on a holdout that no trial saw" in said["fresh score"]
    assert said["to promote"].startswith("run 31")  # the middle one of the three


def test_the_page_is_one_file_in_which_nothing_of_a_run_is_html(sweep: Sweep, runs: list[Run], tmp_path: Path) -> None:
    write_report(sweep, runs, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert "<svg" in page
    assert "<b>tree</b>" not in page.replace("&lt;", "")
    assert "&lt;b&gt;tree" in page
    assert "src=" not in page


def test_a_picture_is_written_and_another_kind_of_file_refused(sweep: Sweep, runs: list[Run], tmp_path: Path) -> None:
    write_report(sweep, runs, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Refused, match=r"\.html, \.png or \.svg"):
        write_report(sweep, runs, tmp_path / "sweep.pdf")
    with pytest.raises(Refused, match="nothing to draw"):
        write_report(sweep, [run(0, None)], tmp_path / "sweep.png")


@pytest.mark.parametrize(("fresh", "interval"), [((0.5,), None), ((0.5, 0.5), (0.5, 0.5))])
def test_an_interval_needs_seeds_that_differ(fresh: tuple[float, ...], interval) -> None:
    assert Winner({}, 1, 5, 0.9, fresh, tuple(range(len(fresh))), False, "max").interval == interval


def test_the_interval_is_students() -> None:
    low, high = Winner({}, 1, 5, 0.9, (1.0, 2.0, 3.0), (1, 2, 3), True, "min").interval or (0, 0)
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-5)


def test_flattery_is_positive_whichever_way_the_metric_points() -> None:
    assert Winner({}, 1, 5, 0.9, (0.8,), (1,), True, "max").optimism == pytest.approx(0.1)
    assert Winner({}, 1, 5, 0.1, (0.2,), (1,), True, "min").optimism == pytest.approx(0.1)
