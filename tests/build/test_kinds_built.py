"""An ONNX graph and a pickle on their way from training to a bento that passed its checks."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uv

from modelyard_build.builds import Build
from modelyard_build.errors import Refused
from modelyard_build.locks.locking import servable_parts, served_part
from modelyard_tracking.errors import Refused as NotSaved
from modelyard_tracking.evidence import gather
from modelyard_tracking.origin import locked_versions
from modelyard_tracking.store import Home
from places import PROJECTS
from workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path, home: Home, db: Any) -> Workshop:
    return Workshop(tmp_path / "workshop", home, db)


def said(build: Build) -> str:
    [finding] = [finding for finding in build.report["findings"] if finding["check"] == "model kind"]
    return str(finding["message"])


@pytest.mark.system
def test_a_graph_is_built_with_onnxruntime_and_without_what_only_training_wants(workshop: Workshop) -> None:
    project = workshop.project(allow_pickle=False)
    run = workshop.run()
    assert gather(project, run, allow_dirty=True).facts["kind"] == "onnx"
    build = workshop.builder.build(workshop.approved(project, run), project)
    assert build.report["passed"]
    assert said(build).startswith("onnx: an ONNX graph")
    listed = subprocess.run(
        [uv.find_uv_bin(), "pip", "list", "--python", str(build.environment / "bin" / "python"), "--format", "json"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    names = {package["name"] for package in json.loads(listed.stdout)}
    assert {"onnxruntime", "bentoml", "modelyard-serving"} <= names
    assert not names & {"onnx", "skl2onnx", "mlflow", "torch", "modelyard-tracking"}


@pytest.mark.system
def test_a_pickle_is_built_where_the_project_says_so_and_the_report_shows_it(workshop: Workshop) -> None:
    project = workshop.project(allow_pickle=True)
    run = workshop.run(as_pickle=True)
    version = workshop.approved(project, run)
    assert workshop.approvals.get(version.ref).evidence["kind"] == "pickle"
    with pytest.raises(Refused, match="is a pickle, which runs code"):
        workshop.builder.build(version, workshop.project(allow_pickle=False))
    assert not (workshop.builder.home / "bentoml").exists(), "nothing was served, so nothing was unpickled"
    build = workshop.builder.build(version, workshop.project(allow_pickle=True))
    assert build.report["passed"]
    assert said(build) == "pickle: A PICKLE: loading it runs code that came with it; project.toml allows that"


def test_a_run_with_a_pickle_is_not_put_forward_once_the_project_forbids_it(workshop: Workshop) -> None:
    workshop.project(allow_pickle=True)
    run = workshop.run(as_pickle=True)
    objections = gather(workshop.project(allow_pickle=False), run, allow_dirty=True).objections
    assert objections == ("its model is a pickle, which project.toml does not allow ([model] allow_pickle = true)",)


def test_a_model_whose_lock_lacks_what_it_is_served_with_is_refused_while_it_is_trained(workshop: Workshop) -> None:
    lock = workshop.folder / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^onnxruntime==.*\n(?: .*\n)*", "", lock.read_text()))
    with pytest.raises(NotSaved, match=r"Add onnxruntime to .*requirements\.in, then:  yard lock linear"):
        workshop.run()


@pytest.mark.parametrize("kind", ["sklearn", "onnx"])
def test_an_image_gets_the_lines_of_the_lock_that_its_kind_wants_and_no_others(kind: str) -> None:
    lock = (PROJECTS / "digits" / "requirements.lock").read_text()
    part = served_part(lock, kind)
    assert set(part.splitlines()) <= set(lock.splitlines())
    names = {line.partition("==")[0] for line in part.splitlines() if "==" in line and not line.startswith(" ")}
    assert {"bentoml", "pandas", "skops", "scikit-learn", "numpy"} <= names
    assert ("onnxruntime" in names) == (kind == "onnx")
    heavy = {name for name in names if name.startswith(("torch", "nvidia", "triton", "cuda"))}
    assert heavy <= {"nvidia-ml-py"}, "BentoML itself wants that one, and it is small"
    assert part.count("--hash=sha256:") >= len(names)


def test_a_wheelhouse_holds_what_any_kind_is_served_with_and_no_pickle_unless_it_is_allowed() -> None:
    lock = (PROJECTS / "digits" / "requirements.lock").read_text()
    parts = servable_parts(lock, with_pickle=False)
    assert served_part(lock, "onnx") in parts
    assert lock not in parts
    assert lock in servable_parts(lock, with_pickle=True)


def test_a_pickle_gets_the_whole_lock_and_so_does_a_lock_without_notes(tmp_path: Path) -> None:
    lock = PROJECTS / "digits" / "requirements.lock"
    assert served_part(lock.read_text(), "pickle") == lock.read_text()
    plain = tmp_path / "requirements.lock"
    plain.write_text("numpy==2.4.6 \\\n    --hash=sha256:00\norjson==3.13.0 \\\n    --hash=sha256:00\n")
    assert served_part(plain.read_text(), "onnx") == plain.read_text()
    assert set(locked_versions(plain)) == {"numpy", "orjson"}
