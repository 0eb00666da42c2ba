"""The search space: read from a file or a table, checked by drawing from it, described, listed as a grid."""

import json
import math
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import Project, load_project
from modelyard_tracking.sweeping.space import Space, load_space
from places import PROJECTS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hyperopt import hp
    from hyperopt.pyll import scope
    from ray import tune

EVERYTHING = """
C = { loguniform = [1e-3, 1e2] }
momentum = { uniform = [0.5, 0.99] }
components = { quniform = [2, 30, 2] }
dropout = { quniform = [0.0, 0.5, 0.1] }
width = { qloguniform = [16, 512, 16] }
data_seed = { randint = [0, 1000] }
shift = { normal = [0, 1] }
gain = { lognormal = [100, 0.5] }
layers = { choice = [[64], [64, 32], []] }
epochs = 20
names = ["a", "b"]
stages = [{ units = { choice = [8, 16] } }, { units = 4 }]

[optimiser]
name = "sgd"
lr = { loguniform = [1e-5, 1e-1] }

[model]
choice = [
  { kind = "tree", depth = { quniform = [1, 9, 1] } },
  { kind = "linear", penalty = { choice = ["l1", { kind = "l2", strength = { uniform = [0, 1] } }] } },
  { kind = "tree", depth = { quniform = [10, 20, 5] } },
]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return load_project(PROJECTS, "tumor").model_copy(update={"folder": tmp_path})


def _space(project: Project, text: str) -> Space:
    plan = project.sweep.model_copy(update={"space": tomllib.loads(text)})
    return load_space(project.model_copy(update={"sweep": plan}))


def _python(**expression: Any) -> Space:
    return Space(expression, "search_space.py")


def _drawn(space: Space, count: int = 40) -> list[dict[str, Any]]:
    from modelyard_tracking.sweeping.search import OrderedSearch

    search = OrderedSearch(space, kind="random", trials=count, window=count, seed=3, metric="loss", mode="min")
    return [search.suggest(str(number)) for number in range(count)]


def test_the_example_projects_space_names_entries_of_its_configuration() -> None:
    space = load_space(load_project(PROJECTS, "tumor"))
    space.validate(["C", "components", "scaler", "seed"])


def test_a_missing_file_is_reported(project: Project) -> None:
    with pytest.raises(Refused, match=r"search_space\.py is missing"):
        load_space(project)


@pytest.mark.parametrize("text", ["", "def space(): return {}", "def space(): return 7"])
def test_a_file_without_a_space_is_reported(project: Project, text: str) -> None:
    (project.folder / "search_space.py").write_text(text)
    with pytest.raises(Refused, match="dictionary of hyperopt expressions"):
        load_space(project)


def test_a_file_that_does_not_run_is_reported_with_the_cause(project: Project) -> None:
    (project.folder / "search_space.py").write_text("def space(): return {'C': 1 / 0}")
    with pytest.raises(Refused, match=r"search_space\.py cannot be run: ZeroDivisionError"):
        load_space(project)


def test_a_table_says_everything_that_is_needed_and_keeps_its_bounds(project: Project) -> None:
    space = _space(project, EVERYTHING)
    space.validate(samples=40)
    for config in _drawn(space, 60):
        assert 1e-3 <= config["C"] <= 1e2 + 1e-9
        assert 0.5 <= config["momentum"] <= 0.99
        assert config["components"] in range(2, 31, 2)
        assert type(config["components"]) is int
        assert config["dropout"] in [step * 0.1 for step in range(6)]
        assert config["width"] in range(16, 513, 16)
        assert config["data_seed"] in range(1000)
        assert 10 < config["gain"] < 1000
        assert config["layers"] in ([64], [64, 32], [])
        assert config["epochs"] == 20
        assert config["names"] == ["a", "b"]
        assert [stage["units"] for stage in config["stages"]] in ([8, 4], [16, 4])
        assert config["optimiser"]["name"] == "sgd"
        if config["model"]["kind"] == "tree":
            assert config["model"]["depth"] in (*range(1, 10), 10, 15, 20)
        else:
            assert config["model"]["penalty"] == "l1" or config["model"]["penalty"]["kind"] == "l2"


def test_every_fault_of_a_table_is_named_by_its_place(project: Project) -> None:
    faults = {
        "C": "{ loguniform = [0, 1] }",
        "a": "{ uniform = [1, 0] }",
        "b": "{ uniform = [1] }",
        "c": "{ uniform = ['x', 2] }",
        "d": "{ quniform = [1, 10, 4] }",
        "e": "{ quniform = [0, 10, 0] }",
        "f": "{ randint = [0.5, 3] }",
        "g": "{ normal = [0, 0] }",
        "h": "{ choice = [] }",
        "i": "{ uniform = [0, 1], low = 2 }",
        "j": "{ loguniforn = [0.1, 1] }",
        "k": "1999-12-31",
        "l": "{ uniform = [0, inf] }",
        "m": "{ uniform = [false, true] }",
        "n": "{ choice = [1, { x = { lognormal = [-1, 1] } }] }",
        "o.p": "{ uniform = 3 }",
    }
    with pytest.raises(Refused) as caught:
        _space(project, "fine = 1\n" + "\n".join(f"{name} = {text}" for name, text in faults.items()))
    said = str(caught.value).splitlines()
    places = [line.strip().partition(":")[0] for line in said[1:]]
    assert places == [name if name != "n" else "n[1].x" for name in faults]
    assert "did you mean loguniform?" in str(caught.value)
    assert "fine" not in str(caught.value)


def test_a_table_is_described_by_itself(project: Project) -> None:
    text = EVERYTHING.replace("[optimiser]\nname", "[optimiser]\nnesterov = true\nname")
    described = _space(project, text).describe()
    written = tomllib.loads(text)
    optimiser = written.pop("optimiser")
    assert described == written | {f"optimiser.{name}": value for name, value in optimiser.items()}
    assert json.loads(json.dumps(described)) == described


def test_hyperopts_expressions_are_described_in_the_same_language() -> None:
    space = _python(
        C=hp.loguniform("C", math.log(1e-3), math.log(1e2)),
        a=hp.uniform("a", low=1, high=2),
        b=hp.quniform("b", 2, 30, 1),
        c=scope.int(hp.quniform("c", 2, 30, 1)),
        d=hp.uniformint("d", 1, 5),
        e=hp.randint("e", 5),
        f=hp.pchoice("f", [(0.25, "x"), (0.75, {"y": hp.normal("y", 0, 1)})]),
        g=2 ** hp.randint("g", 3),
        h=hp.lognormal("h", math.log(2), 1),
    )
    assert space.describe() == {
        "C": {"loguniform": [1e-3, 1e2]},
        "a": {"uniform": [1, 2]},
        "b": {"quniform": [2.0, 30.0, 1.0]},
        "c": {"quniform": [2, 30, 1]},
        "d": {"quniform": [1, 5, 1]},
        "e": {"randint": [0, 5]},
        "f": {"pchoice": [[0.25, "x"], [0.75, {"y": {"normal": [0, 1]}}]]},
        "g": {"expression": "0 pow 1 Literal{2} 2 int 3 hyperopt_param 4 Literal{g} 5 randint 6 Literal{3}"},
        "h": {"lognormal": [2.0, 1]},
    }
    assert isinstance(space.describe()["b"]["quniform"][0], float)
    assert isinstance(space.describe()["c"]["quniform"][0], int)


def test_a_choice_of_lists_stays_a_choice_of_lists() -> None:
    space = _python(layers=hp.choice("layers", [[64], [64, 32], []]), pair=hp.choice("pair", [(1, 2), (3, 4)]))
    space.validate()
    drawn = _drawn(space)
    assert {json.dumps(config["layers"]) for config in drawn} == {"[64]", "[64, 32]", "[]"}
    assert all(type(config["layers"]) is list and type(config["pair"]) is list for config in drawn)


def test_what_ray_would_turn_into_something_else_is_refused() -> None:
    with pytest.raises(Refused, match="no text, number, list or table"):
        _python(layers=tune.choice([[64], [64, 32]])).validate()


@pytest.mark.parametrize(
    "constant", [min, {1, 2}, 2**70, float("nan"), float("inf"), b"x", Path("x"), [1, [math]], {"a": {1j}}]
)
def test_a_value_that_no_run_would_record_as_it_is_is_refused_by_its_place(constant: Any) -> None:
    # One option of forty: that no sample happens to take it must not hide it.
    with pytest.raises(Refused, match=r"model\.inner"):
        _python(model={"inner": hp.choice("inner", [*range(40), constant])}).validate(samples=2)


def test_a_name_that_no_run_would_record_as_it_is_is_refused() -> None:
    with pytest.raises(Refused, match=r"a\.b: this name would be recorded as 'a,b'"):
        _python(x=hp.choice("x", [*range(40), {"a.b": 1}])).validate(samples=2)


def test_an_entry_that_the_experiment_does_not_have_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Refused) as caught:
        _python(componets=hp.uniform("c", 0, 1), C=1, zzz=1).validate(["C", "components"])
    assert "componets: the experiment has no such configuration entry; did you mean components?" in str(caught.value)
    assert "zzz: the experiment has no such configuration entry; there is: C, components" in str(caught.value)


def test_an_expression_that_hyperopt_refuses_is_reported() -> None:
    with pytest.raises(Refused, match="DuplicateLabel"):
        _python(a=hp.uniform("x", 0, 1), b=hp.uniform("x", 0, 2)).validate()


def test_an_expression_that_cannot_be_evaluated_is_reported() -> None:
    with pytest.raises(Refused, match="nothing can be drawn"):
        _python(a=hp.choice("a", ["x"]) + hp.uniform("b", 0, 1)).validate()


def test_a_grid_has_every_configuration_once(project: Project) -> None:
    text = """
    a = { choice = [[1, 2], { kind = "tree", depth = { quniform = [1, 3, 1] } }] }
    b = { randint = [0, 2] }
    c = 7
    [d]
    e = { quniform = [0.0, 0.5, 0.25] }
    f = { qloguniform = [16, 48, 16] }
    """
    space = _space(project, text)
    grid = space.grid(72)
    assert len(grid) == 72
    assert len({json.dumps(config) for config in grid}) == 72
    assert {"a": {"kind": "tree", "depth": 3}, "b": 1, "c": 7, "d": {"e": 0.25, "f": 48}} in grid
    for config in _drawn(space, 60):
        del config["__trial__"]
        assert config in grid


@pytest.mark.parametrize("bounds", [(2, 30, 4), (1, 10, 3), (0.05, 0.55, 0.1), (-3, 3, 2)])
def test_a_grid_has_the_values_that_hyperopt_rounds_to(bounds: tuple[float, float, float]) -> None:
    space = _python(x=hp.quniform("x", *bounds))
    assert {config["x"] for config in space.grid(100)} == {config["x"] for config in _drawn(space, 300)}


def test_a_grid_without_end_names_its_entries() -> None:
    space = _python(
        a=hp.uniform("a", 0, 1), b=hp.choice("b", [1, {"x": hp.normal("x", 0, 1)}]), c=2 ** hp.randint("c", 3)
    )
    with pytest.raises(Refused, match=r"a \(uniform\), b\.x \(normal\), c \(expression\)"):
        space.grid(100)


def test_a_grid_of_more_configurations_than_trials_says_how_many_it_has() -> None:
    with pytest.raises(Refused, match="Set trials = 2000000000"):
        _python(a=hp.randint("a", 10**9), b=hp.choice("b", "xy")).grid(20)


def test_a_grid_over_one_expression_in_two_places_is_refused() -> None:
    twice = hp.choice("twice", [1, 2])
    with pytest.raises(Refused, match="used twice"):
        _python(a=twice, b=twice).grid(20)


def test_a_configuration_is_flat_under_dotted_names() -> None:
    config = {"model": {"kind": "tree", "depth": 3}, "layers": [1, 2]}
    assert _python(C=1).flat(config) == {"model.kind": "tree", "model.depth": 3, "layers": [1, 2]}


def test_ray_draws_what_hyperopt_itself_draws_from_the_same_seed() -> None:
    space = load_space(load_project(PROJECTS, "tumor"))
    pairs = list(space._samples(20, 11))
    assert len({str(drawn) for drawn, _ in pairs}) == 20
    assert all(drawn == meant for drawn, meant in pairs)
