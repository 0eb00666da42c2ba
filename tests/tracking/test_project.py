"""project.toml."""

from pathlib import Path

import pytest

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.project import load_project

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


def test_a_file_that_is_not_toml_is_said_to_be_none(tmp_path: Path) -> None:
    _write(tmp_path, "name = ")
    with pytest.raises(Refused, match="not valid TOML"):
        load_project(tmp_path, "wine")


def test_a_project_without_a_lock_is_told_how_to_make_one(tmp_path: Path) -> None:
    _write(tmp_path, GOOD)
    with pytest.raises(Refused, match="yard lock wine"):
        _ = load_project(tmp_path, "wine").lock
