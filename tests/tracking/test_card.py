"""The card: what people must say of a model before anybody is asked to approve it."""

from typing import Any

import pandas as pd
import pytest

from modelyard_tracking.card import make_card, observed
from modelyard_tracking.project import Project, load_project
from places import PROJECTS

SCHEMA = {"inputs": [{"name": name, "dtype": "float64"} for name in ("mean_area", "mean_radius", "city")],
          "classes": [0, 1]}  # fmt: skip
FULL = {
    "inputs": {"*_area": {"meaning": "area", "unit": "mm²", "range": [0, 100]}, "*_radius": "radius",
               "mean_*": "the mean", "city": "where"},
    "outputs": {"*": "as found later"},
}  # fmt: skip


def project(**parts: Any) -> Project:
    values: dict[str, Any] = {
        "folder": PROJECTS, "name": "wine", "owner": "me", "purpose": "to try", "limitations": "many",
        "metric": {"name": "auc", "direction": "max"}, "endpoint": {"unit": "u", "reward": "r"}, **FULL, **parts,
    }  # fmt: skip
    return Project(**values)


def test_an_input_is_described_by_every_pattern_that_fits_it() -> None:
    card = make_card(project(), SCHEMA, ())
    assert card.objections == ()
    area, radius, _ = card.facts["inputs"]
    assert (area["meaning"], area["unit"], area["range"]) == ("area, the mean", "mm²", [0, 100])
    assert (radius["meaning"], radius["unit"], radius["range"]) == ("radius, the mean", "", None)
    assert card.facts["outputs"] == [{"name": name, "meaning": "as found later"} for name in ("0", "1")]


def test_all_blanks_are_named_at_once() -> None:
    blank = project(owner="", purpose=" ", limitations="\n", inputs={"city": "where", "mean_area": " "}, outputs={})
    assert make_card(blank, SCHEMA, ()).objections == (
        "project.toml leaves owner blank",
        "project.toml leaves purpose blank",
        "project.toml leaves limitations blank",
        "project.toml does not say what these inputs mean, see [inputs]: mean_area, mean_radius",
        "project.toml does not say what these outputs mean, see [outputs]: 0, 1",
    )


def test_a_range_alone_is_no_description() -> None:
    [objection] = make_card(project(inputs=FULL["inputs"] | {"city": {"range": [0, 1]}}), SCHEMA, ()).objections
    assert objection.endswith("see [inputs]: city")


def test_a_name_that_the_model_does_not_know_is_refused() -> None:
    card = make_card(project(inputs=FULL["inputs"] | {"town": "x"}, outputs={"*": "x", "2": "y"}), SCHEMA, ())
    assert card.objections == (
        "[inputs] describes town, and the model takes nothing of this name",
        "[outputs] describes 2, and the model answers nothing of this name",
    )


def test_a_model_without_classes_answers_a_prediction() -> None:
    schema = {**SCHEMA, "classes": []}
    assert make_card(project(outputs={"prediction": "the price"}), schema, ()).facts["outputs"] == [
        {"name": "prediction", "meaning": "the price"}
    ]


def test_what_the_training_data_has_stands_in_the_card() -> None:
    frame = pd.DataFrame({"mean_area": [2.0, None, 7.5], "mean_radius": [1, 3, 2], "city": ["a", None, "b"]})
    area, radius, city = make_card(project(), SCHEMA, observed(frame)).facts["inputs"]
    assert (area["observed"], area["missing"]) == ([2.0, 7.5], 1)
    assert radius["observed"] == [1.0, 3.0]
    assert (city["observed"], city["missing"]) == (None, 1)


@pytest.mark.parametrize("values", [[float("nan")] * 3, [float("inf"), float("-inf"), float("nan")]])
def test_a_column_without_a_finite_number_has_no_range(values: list[float]) -> None:
    [seen] = observed(pd.DataFrame({"x": values}))
    assert (seen.low, seen.high) == (None, None)


def test_training_data_beyond_the_declared_range_is_an_objection() -> None:
    seen = observed(pd.DataFrame({"mean_area": [0.0, 101.0]}))
    assert make_card(project(), SCHEMA, seen).objections == (
        "[inputs] says mean_area lies between 0 and 100, and the training data has 0 to 101",
    )


@pytest.mark.parametrize("name", ["tumor", "digits"])
def test_the_example_projects_describe_everything(name: str) -> None:
    import importlib.util

    found = load_project(PROJECTS, name)
    spec = importlib.util.spec_from_file_location(f"{name}_data", found.folder / "dataset.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train = module.load().train
    target = {"tumor": "diagnosis", "digits": "digit"}[name]
    inputs = train.drop(columns=target)
    schema = {"inputs": [{"name": column} for column in inputs], "classes": sorted(train[target].unique())}
    card = make_card(found, schema, observed(inputs))
    assert card.objections == ()
    assert all(entry["observed"] and entry["meaning"] for entry in card.facts["inputs"])
