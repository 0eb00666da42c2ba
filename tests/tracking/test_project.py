"""project.toml."""

from pathlib import Path

import pytest

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.project import SweepPlan, load_project

GOOD = """
name = "wine"
[metric]
name = "auc"
direction = "max"
[endpoint]
unit = "the bottle"
reward = "1 if right"
"""


def _write(projects: Path, text: str) -> None:
    (projects / "wine").mkdir()
    (projects / "wine" / "project.toml").write_text(text)


def test_a_project_is_read(tmp_path: Path) -> None:
    _write(tmp_path, GOOD)
    project = load_project(tmp_path, "wine")
    assert (project.name, project.metric.direction, project.folder) == ("wine", "max", tmp_path / "wine")


def test_an_unknown_project_is_reported_with_those_there_are(tmp_path: Path) -> None:
    _write(tmp_path, GOOD)
    with pytest.raises(NotFound, match=r"no project 'beer' in .*There is: wine"):
        load_project(tmp_path, "beer")


@pytest.mark.parametrize("name", ["../wine", "wine/../wine", "", "."])
def test_a_name_cannot_lead_out_of_the_projects_folder(tmp_path: Path, name: str) -> None:
    _write(tmp_path, GOOD)
    with pytest.raises(NotFound):
        load_project(tmp_path, name)


def test_all_faults_of_the_file_are_reported_at_once(tmp_path: Path) -> None:
    _write(tmp_path, GOOD.replace('"max"', '"up"').replace('"wine"', '"Wine 7"') + "tolerance = -1\nmore = 1\n")
    with pytest.raises(Refused) as caught:
        load_project(tmp_path, "wine")
    for place in ("metric.direction", "name", "endpoint.tolerance", "endpoint.more"):
        assert f"  {place}: " in str(caught.value)


def test_an_endpoint_says_its_budget_and_what_it_breaks_with(tmp_path: Path) -> None:
    _write(tmp_path, GOOD + 'p99_ms = 50\nmemory_mb = 300.5\nbreaks = "wine:3"\n')
    endpoint = load_project(tmp_path, "wine").endpoint
    assert (endpoint.p99_ms, endpoint.memory_mb, endpoint.breaks) == (50.0, 300.5, "wine:3")


def test_an_endpoint_that_says_nothing_of_it_has_a_budget_and_breaks_with_nobody(tmp_path: Path) -> None:
    _write(tmp_path, GOOD)
    endpoint = load_project(tmp_path, "wine").endpoint
    assert (endpoint.p99_ms, endpoint.memory_mb, endpoint.breaks) == (200.0, 1024.0, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("p99_ms = 0", "endpoint.p99_ms: "),
        ("p99_ms = inf", "endpoint.p99_ms: "),
        ('memory_mb = "1 GB"', "endpoint.memory_mb: "),
        ('breaks = "3"', "endpoint.breaks: name the version that it breaks with, such as tumor:3, not '3'"),
        ('breaks = "wine:0"', "endpoint.breaks: name the version"),
        ('breaks = "wine:latest"', "endpoint.breaks: name the version"),
        ('breaks = "beer:3"', "endpoint: breaks: name a version of wine, not of beer: "),
    ],
)
def test_an_endpoints_setting_that_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    _write(tmp_path, GOOD + line + "\n")
    with pytest.raises(Refused) as caught:
        load_project(tmp_path, "wine")
    assert f"  {said}" in str(caught.value)


def test_a_file_that_is_not_toml_is_said_to_be_none(tmp_path: Path) -> None:
    _write(tmp_path, "name = ")
    with pytest.raises(Refused, match="not valid TOML"):
        load_project(tmp_path, "wine")


def test_a_project_without_a_lock_is_told_how_to_make_one(tmp_path: Path) -> None:
    _write(tmp_path, GOOD)
    with pytest.raises(Refused, match="yard lock wine"):
        _ = load_project(tmp_path, "wine").lock


def _sweep(tmp_path: Path, text: str) -> SweepPlan:
    _write(tmp_path, f"{GOOD}[sweep]\n{text}")
    return load_project(tmp_path, "wine").sweep


def test_a_project_that_says_nothing_of_sweeps_has_a_plan() -> None:
    plan = SweepPlan()
    assert (plan.trials, plan.concurrent, plan.space, plan.search) == (20, 2, "search_space.py", "tpe")
    assert (plan.scheduler, plan.resources, plan.max_failures, plan.fresh_seeds) == ("none", {"cpu": 1}, 1, 5)


def test_a_space_may_be_a_table(tmp_path: Path) -> None:
    assert _sweep(tmp_path, "space = { C = { uniform = [0, 1] } }").space == {"C": {"uniform": [0, 1]}}


@pytest.mark.parametrize("space", ["{}", "''", "7", "['a.py']"])
def test_a_space_that_is_neither_a_file_nor_a_table_is_refused(tmp_path: Path, space: str) -> None:
    with pytest.raises(Refused, match=r"sweep\.space: give the name of a Python file"):
        _sweep(tmp_path, f"space = {space}")


def test_resources_may_be_fractions_and_of_any_name(tmp_path: Path) -> None:
    resources = {"cpu": 0, "gpu": 0.25, "licence": 2}
    assert _sweep(tmp_path, "resources = { cpu = 0, gpu = 0.25, licence = 2 }").resources == resources


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("trials = 0", "sweep.trials"),
        ("concurrent = 1.5", "sweep.concurrent"),
        ("search = 'guess'", "sweep.search"),
        ("scheduler = 'fifo'", "sweep.scheduler"),
        ("resources = { gpu = -1 }", "sweep.resources.gpu"),
        ("resources = { gpu = inf }", "sweep.resources.gpu"),
        ("resources = { gpu = true }", "sweep.resources.gpu"),
        ("max_failures = -1", "sweep.max_failures"),
        ("max_steps = 0", "sweep.max_steps"),
        ("reduction = 1", "sweep.reduction"),
        ("fresh_seeds = 0", "sweep.fresh_seeds"),
        ("trails = 8", "sweep.trails"),
    ],
)
def test_a_faulty_entry_of_the_plan_is_named(tmp_path: Path, line: str, place: str) -> None:
    with pytest.raises(Refused) as caught:
        _sweep(tmp_path, line)
    assert f"  {place}: " in str(caught.value)


def test_a_scheduler_needs_to_know_the_last_step(tmp_path: Path) -> None:
    with pytest.raises(Refused, match='scheduler = "asha" needs max_steps'):
        _sweep(tmp_path, "scheduler = 'asha'")


def test_entries_that_do_not_fit_together_are_said_together(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        _sweep(
            tmp_path,
            """
            scheduler = "asha"
            resources = { GPU = 1, gpu = 1.5 }
            """,
        )
    for fault in ("needs max_steps", "write gpu in lower case", "gpu = 1.5"):
        assert fault in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_asha_may_not_wait_longer_than_a_trial_lasts(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="grace_steps = 6 is beyond max_steps = 5"):
        _sweep(tmp_path, "scheduler = 'asha'\nmax_steps = 5\ngrace_steps = 6")


def test_a_trial_that_asks_for_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="needs something above 0"):
        _sweep(tmp_path, "resources = { cpu = 0 }")


EVIDENCE = """
[gates]
auc = { at_least = 0.9 }
"holdout.roc_auc" = { at_least = 0.9 }
[comparison]
evaluation = "holdout"
metric = "roc_auc"
min_difference = -0.01
[slices]
evaluation = "groups"
metric = "accuracy"
columns = ["age"]
max_gap = 0.1
[inputs]
"a*" = "an area"
b = { meaning = "a weight", unit = "kg", range = [0, 10] }
"""


def test_what_is_asked_of_evidence_is_read(tmp_path: Path) -> None:
    _write(tmp_path, GOOD + EVIDENCE)
    project = load_project(tmp_path, "wine")
    assert project.evaluations == {"holdout", "groups"}
    assert project.comparison is not None
    assert (project.comparison.confidence, project.comparison.min_difference) == (0.95, -0.01)
    assert project.slices is not None
    assert (project.slices.min_rows, project.slices.bound) == (30, "")
    assert project.inputs["a*"].meaning == "an area"
    assert (project.inputs["b"].unit, project.inputs["b"].range) == ("kg", [0, 10])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{ at_least = 0.9 }\n[comp", "{}\n[comp", "gates.holdout.roc_auc: give at_least, at_most or both"),
        ("auc = { at_least = 0.9 }", "auc = { at_least = nan }", "gates.auc.at_least: "),
        ('"holdout.roc_auc"', '"holdout.gini"', "gates: holdout.gini: behind the dot stands one of roc_auc, accuracy"),
        ('metric = "roc_auc"', 'metric = "auc"', "comparison.metric: "),
        ("min_difference = -0.01", "min_difference = -0.01\nconfidence = 95", "comparison.confidence: "),
        ("max_gap = 0.1", "", "slices: give at_least, at_most or max_gap: else no slice could fail"),
        ("max_gap = 0.1", "max_gap = 0", "slices.max_gap: "),
        ('["age"]', "[]", "slices.columns: "),
        ("[0, 10]", "[10, 0]", "inputs.b.range: give the least first"),
        ("[0, 10]", "[0]", "inputs.b.range: "),
        ('unit = "kg"', 'units = "kg"', "inputs.b.units: "),
    ],
)
def test_a_faulty_demand_on_evidence_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in EVIDENCE
    _write(tmp_path, GOOD + EVIDENCE.replace(old, new))
    with pytest.raises(Refused) as caught:
        load_project(tmp_path, "wine")
    assert f"  {said}" in str(caught.value)


def test_the_measures_that_a_project_can_name_are_those_there_are() -> None:
    from typing import get_args

    from modelyard_tracking.measures import MEASURES
    from modelyard_tracking.project import MeasureName

    assert set(get_args(MeasureName)) == set(MEASURES)
