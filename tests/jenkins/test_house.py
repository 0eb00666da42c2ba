"""The house's own Jenkinsfile, really run: from a clean checkout to an image in a registry, and on to who answers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_serving.local_stage import free_port
from own_engine import OwnEngine
from own_jenkins import Jenkins, Ran
from own_repository import as_it_stands
from places import REPOSITORY

pytestmark = [pytest.mark.jenkins, pytest.mark.docker, pytest.mark.system, pytest.mark.timeout(900)]

PASSWORD = "correct-horse-battery"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Agent:
    """A machine that builds of one job share: a checkout, a workspace that stays, and a yard outside of both."""

    house: Path
    jenkins: Jenkins
    env: dict[str, str]
    yard: Yard

    def build(self, *options: str, **parameters: str) -> Ran:
        return self.jenkins.run(
            self.house / "Jenkinsfile",
            parameters={"MODEL": "tumor", "VERSION": "1", **parameters},
            credentials={"images": f"robot:{PASSWORD}"},
            env=self.env,
            options=("--branch", "main", *options),
            timeout_s=850,
        )

    def command(self, *args: str) -> None:
        program = [str(Path(sys.executable).parent / "yard"), *args]
        env = {**os.environ, **self.env}
        done = subprocess.run(
            program, cwd=self.house, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr

    def variants(self) -> dict[str, str]:
        return dict(self.yard.endpoints.endpoint("tumor").variants)

    def entries(self) -> int:
        return len(list(self.yard.approvals.ledger.entries()))


@pytest.fixture(scope="module")
def agent(
    new_jenkins: Callable[[Path], Jenkins], engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    """A stack that runs, and in it a version that was approved."""
    folder = tmp_path_factory.mktemp("agent")
    names = ("GATEWAY", "CONSOLE", "MONGO", "MLFLOW", "OMNIBOARD", "JUPYTER")
    env = {
        **{f"YARD_{name}_PORT": str(free_port()) for name in names},
        "YARD_HOME": str(folder / "yard"),
        "YARD_BASE_IMAGE": engine.base,
        "YARD_IMAGES": f"{engine.registry}/team",
        "YARD_USER": "jenkins",
        "BUILD_TAG": "jenkins-house-1",
        **{name: value for name, value in os.environ.items() if name == "DOCKER_HOST"},
    }
    house = as_it_stands(folder / "house")
    yard = Yard(read_settings(env, house))
    agent = Agent(house, new_jenkins(folder / "jenkins"), env, yard)
    try:
        agent.command("up")
        agent.command("train", "tumor")
        agent.command("request", "1")
        agent.command("approve", "tumor:1", "--reason", "for the tests")
        yield agent
    finally:
        yard.close()
        yard.stack.down()


@pytest.fixture(scope="module")
def staged(agent: Agent) -> Ran:
    return agent.build(STAGE="staging")


def made(ran: Ran) -> Any:
    return json.loads((ran.workspace / "reports" / "build.json").read_text())


def test_the_linter_has_nothing_to_say(jenkins: Jenkins) -> None:
    assert jenkins.lint(REPOSITORY / "Jenkinsfile") == ""


def test_a_clean_checkout_ends_as_an_image_in_the_registry_and_a_variant_in_staging(agent: Agent, staged: Ran) -> None:
    assert staged.result == "SUCCESS", staged.log
    ran = {name for name, status in staged.statuses.items() if status == "SUCCESS"}
    assert ran == {"Check out", "Checks", "Build", "Image", "Push", "Deploy to staging", "Smoke"}
    assert agent.variants() == {"staging": "tumor-1"}
    assert agent.yard.endpoints.endpoint("tumor").table.shares() == {}, "it answers nobody"
    [said] = [entry for entry in agent.yard.approvals.ledger.entries(("deploy",)) if entry.subject == "tumor"]
    assert (said.by, said.reason) == ("jenkins", "jenkins-house-1")


def test_the_digest_in_the_report_is_the_one_that_the_registry_has(staged: Ran, engine: OwnEngine) -> None:
    image = made(staged)["image"]
    name, _, digest = image["digest"].partition("@")
    assert name == f"{engine.registry}/team/tumor"
    address = f"http://{engine.registry}/v2/team/tumor/manifests"
    for wanted in (digest, image["ref"].rpartition(":")[2]):
        found = httpx.get(f"{address}/{wanted}", headers={"accept": MANIFEST}, timeout=30)
        assert found.status_code == 200
        assert found.headers["docker-content-digest"] == digest


def test_what_was_found_is_kept_for_jenkins_to_show(staged: Ran) -> None:
    files = list(staged.workspace.glob("reports/*.xml"))
    reports = {file.name: list(ElementTree.parse(file).iter("testcase")) for file in files}  # noqa: S314 - our own
    assert reports.keys() == {"project.xml", "build.xml", "smoke.xml"}
    assert all(reports.values())
    suites = {case.get("classname") for case in reports["build.xml"]}
    assert suites == {"modelyard.tumor.1.bento", "modelyard.tumor.1.image"}
    assert {case.get("name") for case in reports["smoke.xml"]} == {"provenance", "golden", "cases"}
    archived = {file.name for file in staged.workspace.parent.rglob("archive/**/*") if file.is_file()}
    assert archived == {*reports, "build.json"}


def test_the_registrys_password_is_nowhere_to_be_read(agent: Agent, staged: Ran) -> None:
    assert PASSWORD not in staged.log
    written = [file for file in staged.workspace.glob("reports/*") if PASSWORD in file.read_text()]
    written += [file for file in (agent.yard.settings.home / "logs").rglob("*") if PASSWORD in file.read_text()]
    assert written == []


def test_production_is_not_reached_unless_somebody_says_yes(agent: Agent, staged: Ran) -> None:
    ran = agent.build(STAGE="production")
    assert ran.result == "ABORTED", ran.log
    assert ran.statuses["Smoke"] == "SUCCESS"
    assert ran.statuses["Approval"] == "ABORTED"
    assert "SUCCESS" not in (ran.statuses["Deploy"], ran.statuses["Verify"])
    assert "champion" not in agent.variants()
    assert made(ran)["image"] == made(staged)["image"], "an unchanged version is made and pushed once"


@pytest.mark.usefixtures("staged")
def test_with_a_yes_it_answers_callers(agent: Agent) -> None:
    ran = agent.build("--approve", STAGE="production")
    assert ran.result == "SUCCESS", ran.log
    assert set(ran.statuses.values()) == {"SUCCESS"}
    endpoint = agent.yard.endpoints.endpoint("tumor")
    assert (endpoint.variants["champion"], endpoint.table.shares()) == ("tumor-1", {"champion": 1.0})


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(
    ("parameters", "stage"),
    [
        ({"VERSION": "1; touch stolen $(touch stolen)"}, "Build"),
        ({"MODEL": "$(touch stolen)"}, "Checks"),
    ],
)
def test_a_parameter_is_an_argument_and_never_a_command(agent: Agent, parameters: dict[str, str], stage: str) -> None:
    before = agent.entries()
    ran = agent.build(**parameters)
    assert ran.result == "FAILURE", ran.log
    assert [name for name, status in ran.statuses.items() if status == "FAILURE"] == [stage]
    assert not list(ran.workspace.rglob("stolen"))
    assert agent.entries() == before


@pytest.mark.usefixtures("staged")
def test_a_stage_that_there_is_not_is_refused(agent: Agent) -> None:
    ran = agent.build(STAGE="moon")
    assert ran.result == "FAILURE"
    assert ran.statuses == {}
