"""The search space; the search itself is in tests/system."""

from pathlib import Path

import pytest

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import Project, load_project
from modelyard_tracking.sweep import load_space
from places import PROJECTS


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return load_project(PROJECTS, "tumor").model_copy(update={"folder": tmp_path})


def test_the_example_projects_space_names_entries_of_its_configuration() -> None:
    assert set(load_space(load_project(PROJECTS, "tumor"))) == {"C", "components", "scaler"}


def test_a_missing_space_is_reported(project: Project) -> None:
    with pytest.raises(Refused, match=r"search_space\.py is missing"):
        load_space(project)


@pytest.mark.parametrize("text", ["", "def space(): return {}", "def space(): return 7"])
def test_a_space_that_is_none_is_reported(project: Project, text: str) -> None:
    (project.folder / "search_space.py").write_text(text)
    with pytest.raises(Refused, match="dictionary of hyperopt expressions"):
        load_space(project)
