"""`yard build` as a person types it, where there is no docker engine; with one: tests/build/test_images.py."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")


def test_without_an_engine_the_build_ends_with_the_checked_bento_and_says_what_is_missing(road) -> None:
    done = road.command("build", "tumor:1")
    assert done.returncode == 0
    assert done.stdout.startswith("tumor:1-")
    assert "unchanged: all of it was made and checked before" in done.stderr
    assert "ends here: No docker engine answers, so no image can be made" in done.stderr
    said = road.json("build", "tumor:1")
    assert said["image"] is None
    assert said["ended"].startswith("No docker engine answers")


def test_an_image_that_was_asked_for_and_cannot_be_made_is_an_error(road) -> None:
    done = road.command("build", "tumor:1", "--until", "image")
    assert done.returncode != 0
    assert "No docker engine answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_checks_found_is_written_for_jenkins_and_also_when_nothing_was_done_again(
    road, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "report.xml"
    assert road.command("build", "tumor:1", "--until", "bento", "--junit", str(file)).returncode == 0
    [suite] = ElementTree.parse(file).getroot()  # noqa: S314 - our own
    assert suite.get("name") == "modelyard.tumor.1.bento"
    names = {case.get("name") for case in suite}
    assert {"golden", "cases", "bad input", "budget", "licences", "signature"} <= names
    assert all(case.get("classname") for case in suite)


def test_a_bento_says_how_it_was_made_and_its_signature_is_good(road) -> None:
    from modelyard_build.build import SBOM, SIGNATURE
    from modelyard_build.supply.signing import key_pair, verify

    source = road.yard.builder.find("tumor:1").bento.path / "src"
    bill = json.loads((source / SBOM).read_bytes())
    assert bill["bomFormat"] == "CycloneDX"
    kinds = {component["type"] for component in bill["components"]}
    assert kinds == {"machine-learning-model", "data", "library"}
    verify(source / "model", key_pair(road.yard.settings.signing_keys).public, source / SIGNATURE)
