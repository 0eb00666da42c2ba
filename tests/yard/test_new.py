"""`yard new`: a repository of its own that works as it stands, but for what only a person can say."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from modelyard import errors
from modelyard.scaffold import Scaffold, new_repository
from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_build.ahead.examine import examine
from modelyard_tracking.errors import Refused
from modelyard_tracking.origin import locked_versions
from modelyard_tracking.store import Home
from own_repository import filled_in
from places import REPOSITORY

FILES = [
    ".github/workflows/churn.yml",
    ".gitignore",
    ".gitlab-ci.yml",
    "Jenkinsfile",
    "README.md",
    "ci/setup",
    "projects/churn/cases.json",
    "projects/churn/dataset.py",
    "projects/churn/explore.ipynb",
    "projects/churn/project.toml",
    "projects/churn/requirements.in",
    "projects/churn/requirements.lock",
    "projects/churn/train.py",
    "pytest.ini",
    "tests/test_churn.py",
    "yard.toml",
]
BLANKS = ["projects/churn/project.toml: purpose", "projects/churn/project.toml: limitations"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scaffold:
    return new_repository("churn", tmp_path_factory.mktemp("new") / "churn")


def run(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("YARD_")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=250, check=False)


def test_every_file_is_there_and_nothing_of_a_template_is_left(made: Scaffold) -> None:
    there = [path for path in made.folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert sorted(path.relative_to(made.folder).as_posix() for path in there) == FILES == list(made.files)
    for path in there:
        text = path.read_text()
        assert "{=" not in text
        assert "NAME" not in text
        assert "://" not in text or path.name in ("yard.toml", "requirements.lock")
    assert (made.folder / ".git").is_dir()


def test_only_what_a_person_has_to_say_is_missing(made: Scaffold) -> None:
    assert list(made.blanks) == BLANKS
    found = examine(made.folder / "projects", "churn")
    faults = [finding.message for finding in found if not finding.passed and finding.severity == "error"]
    assert faults == ["project.toml leaves purpose blank", "project.toml leaves limitations blank"]


def test_its_lock_stays_with_what_is_installed_here_and_names_no_place_on_this_machine(made: Scaffold) -> None:
    lock = made.folder / "projects" / "churn" / "requirements.lock"
    assert locked_versions(lock).items() <= locked_versions(REPOSITORY / "requirements.lock").items()
    assert str(made.folder.parent) not in lock.read_text()
    assert "-r projects/churn/requirements.in" in lock.read_text()


def test_its_own_tests_pass_and_its_code_is_tidy(made: Scaffold) -> None:
    done = run("pytest", "-q", "-p", "no:cacheprovider", folder=made.folder)
    assert done.returncode == 0, done.stdout
    tidy = ["--no-cache", "--config", "line-length=120", "."]
    ignored = ["--ignore", "F841"]  # Sacred reads a config function's local variables
    assert run("ruff", "check", *ignored, *tidy, folder=made.folder).returncode == 0
    assert run("ruff", "format", "--check", *tidy, folder=made.folder).returncode == 0


def test_workflows_are_what_github_and_gitlab_take(made: Scaffold) -> None:
    for schema, file in (("github-workflows", ".github/workflows/churn.yml"), ("gitlab-ci", ".gitlab-ci.yml")):
        done = run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", file, folder=made.folder)
        assert done.returncode == 0, done.stdout
    done = run("zizmor", "--offline", "--no-progress", ".github/workflows/churn.yml", folder=made.folder)
    assert done.returncode == 0, done.stdout


def test_all_three_pipelines_run_the_same_commands(made: Scaffold) -> None:
    for file in ("Jenkinsfile", ".github/workflows/churn.yml", ".gitlab-ci.yml"):
        text = (made.folder / file).read_text()
        assert all(command in text for command in ('yard check "$MODEL"', "pytest", 'yard build "$MODEL:$VERSION"'))


@pytest.mark.parametrize("name", ["Churn", "churn model", "../churn", "-churn", "7up", "", "x" * 42])
def test_a_name_that_cannot_be_a_models_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="is no name for a model"):
        new_repository(name, tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match="nothing is overwritten"):
        new_repository("churn", tmp_path / "churn")
    assert [path.name for path in tmp_path.rglob("*")] == ["churn", "notes.txt"]


def test_without_a_package_index_everything_but_the_lock_is_made(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    env = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "cache")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        made = new_repository("churn", tmp_path / "churn")
    assert "cannot be locked" in made.lock_fault
    assert list(made.files) == [file for file in FILES if not file.endswith(".lock")]
    faults = {finding.check for finding in examine(made.folder / "projects", "churn") if not finding.passed}
    assert faults == {"card", "lock", "git"}


def test_the_folder_is_as_readable_as_any_other(made: Scaffold) -> None:
    (made.folder.parent / "other").mkdir()
    modes = [stat.S_IMODE((made.folder.parent / name).stat().st_mode) for name in ("other", made.folder.name)]
    assert modes[0] == modes[1]


def test_at_the_command_line_what_is_to_be_filled_in_is_listed(tmp_path: Path) -> None:
    done = run("yard", "new", "churn", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "churn")
    assert all(blank in done.stderr for blank in BLANKS)
    refused = run("yard", "check", "churn", "--json", folder=tmp_path / "churn")
    assert refused.returncode == errors.REFUSED
    said = json.loads(refused.stdout)
    assert (said["project"], said["passed"]) == ("churn", False)
    again = run("yard", "new", "churn", folder=tmp_path)
    assert again.returncode == errors.REFUSED
    assert "--folder DIR" in again.stderr


def test_once_filled_in_it_is_trained_requested_and_approved(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled_in(tmp_path / "churn")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("YARD_MONGO_URL", home.mongo_url)
    monkeypatch.setenv("YARD_DATABASE", home.database)
    assert all(finding.passed for finding in examine(folder / "projects", "churn"))
    yard = Yard(read_settings())
    try:
        run = yard.train("churn")
        approval = yard.approve(yard.request(run.id).ref, "it is the example")
    finally:
        yard.close()
    assert run.result["holdout"] > 0.75
    assert approval.state == "approved"
    notebook = nbformat.read(folder / "projects" / "churn" / "explore.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(folder / "projects" / "churn"))
    shown = [cell.outputs[-1]["data"]["text/html"] for cell in notebook.cells if cell.cell_type == "code"]
    assert "churn is ready to be trained" in shown[0]
    assert "COMPLETED" in shown[-1]
