"""The Jenkinsfile that `yard new` makes: linted, and really run on a clean checkout."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_tracking.store import Home
from own_jenkins import Jenkins
from own_repository import filled_in

pytestmark = pytest.mark.jenkins


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_in(tmp_path_factory.mktemp("scaffolded") / "churn")


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(repository), str(tmp_path / "churn")], check=True)
    return tmp_path / "churn"


@pytest.fixture
def approved(home: Home, clone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A version churn:1 that was approved, and where a job finds it."""
    env = {
        "YARD_DATABASE": home.database,
        "YARD_REGISTRY_URI": f"sqlite:///{clone.parent / 'registry.db'}",
        "YARD_ARTIFACTS": str(home.artifacts),
        "YARD_USER": "jenkins",
    }
    monkeypatch.chdir(clone)
    for name, value in {**env, "YARD_MONGO_URL": home.mongo_url}.items():
        monkeypatch.setenv(name, value)
    yard = Yard(read_settings())
    try:
        yard.approve(yard.request(yard.train("churn").id).ref, "for the tests")
        yield env
    finally:
        yard.close()


def cases_of(file: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(file).iter("testcase"))  # noqa: S314 - our own


def test_the_linter_has_nothing_to_say(jenkins: Jenkins, clone: Path) -> None:
    assert jenkins.lint(clone / "Jenkinsfile") == ""


def test_without_a_version_it_checks_and_tests(jenkins: Jenkins, clone: Path) -> None:
    ran = jenkins.run(clone / "Jenkinsfile")
    assert ran.result == "SUCCESS", ran.log
    assert ran.statuses == {"Check": "SUCCESS", "Test": "SUCCESS", "Build": "NOT_EXECUTED"}
    assert {case.get("classname") for case in cases_of(ran.workspace / "reports" / "check.xml")} == {
        "modelyard.churn.project"
    }
    assert len(cases_of(ran.workspace / "reports" / "tests.xml")) == 3


def test_what_yard_check_finds_ends_the_build_and_is_in_its_report(jenkins: Jenkins, clone: Path) -> None:
    file = clone / "projects" / "churn" / "project.toml"
    file.write_text(file.read_text().replace('limitations = "For the tests."', 'limitations = ""'))
    ran = jenkins.run(clone / "Jenkinsfile")
    assert ran.result == "FAILURE"
    assert ran.statuses["Check"] == "FAILURE"
    assert ran.stages["Check"]["sh"][-1]["rc"] == 4
    failures = [case.find("failure") for case in cases_of(ran.workspace / "reports" / "check.xml")]
    assert [f.get("message") for f in failures if f is not None] == ["project.toml leaves limitations blank"]


def test_a_test_that_fails_ends_the_build(jenkins: Jenkins, clone: Path) -> None:
    (clone / "tests" / "test_wrong.py").write_text("def test_wrong():\n    assert 1 == 2\n")
    ran = jenkins.run(clone / "Jenkinsfile", parameters={"VERSION": "1"})
    assert ran.result == "FAILURE"
    assert ran.statuses.get("Build") != "SUCCESS"
    assert "assert 1 == 2" in ran.log


def test_a_version_is_an_argument_and_never_a_command(jenkins: Jenkins, clone: Path, home: Home) -> None:
    ran = jenkins.run(
        clone / "Jenkinsfile",
        parameters={"VERSION": "1; touch stolen $(touch stolen)"},
        credentials={"modelyard-mongo": home.mongo_url},
    )
    assert ran.result == "FAILURE"
    assert ran.statuses["Build"] == "FAILURE"
    assert not (ran.workspace / "stolen").exists()


@pytest.mark.system
@pytest.mark.timeout(900)
def test_an_approved_version_is_built(jenkins: Jenkins, clone: Path, home: Home, approved: dict[str, str]) -> None:
    ran = jenkins.run(
        clone / "Jenkinsfile",
        parameters={"VERSION": "1"},
        credentials={"modelyard-mongo": home.mongo_url},
        env=approved,
    )
    assert ran.result == "SUCCESS", ran.log
    assert set(ran.statuses.values()) == {"SUCCESS"}
    assert home.mongo_url not in ran.log, "a credential is masked"
    assert len(cases_of(ran.workspace / "reports" / "build.xml")) > 4
