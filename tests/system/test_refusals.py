"""Nothing reaches users that was not approved, or that answers otherwise than in training."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skops.io

from modelyard_build.errors import Refused as BuildRefused
from modelyard_build.served import serve
from modelyard_serving.runtime.model import TRUSTED_TYPES
from modelyard_tracking.errors import Refused

from .conftest import Road, commit_all

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def version_of(road: Road, change: Callable[[Path], None]) -> str:
    """An approved version whose model was saved, changed, and given a digest that fits the change."""
    files, db = road.yard.settings.tracking_home.files, road.yard.db
    commit_all(road.root)
    run = road.yard.train("tumor")
    with files.new_model() as scratch:
        shutil.copytree(files.model(run.model_sha256), scratch, dirs_exist_ok=True)
        change(scratch)
        digest = files.keep_model(scratch)
    db.runs.update_one({"_id": run.id}, {"$set": {"info.modelyard.model.sha256": digest}})
    ref = road.yard.request(run.id).ref
    road.yard.approve(ref, "does not know better")
    return ref


def _edit_model(folder: Path, edit: Callable[[Any], None]) -> None:
    file = folder / "mlflow" / "model.skops"
    model = skops.io.load(file, trusted=list(TRUSTED_TYPES))
    edit(model)
    skops.io.dump(model, file)


def _scale(model: Any) -> None:
    model.named_steps["standardscaler"].mean_ *= 1.000001


def _flip_classes(model: Any) -> None:
    model.named_steps["logisticregression"].coef_ *= -1


@pytest.mark.parametrize("edit", [_scale, _flip_classes], ids=["scaler", "sign"])
def test_a_model_that_was_changed_after_training_is_refused_by_its_golden_rows(road: Road, edit) -> None:
    ref = version_of(road, lambda folder: _edit_model(folder, edit))
    with pytest.raises(BuildRefused, match="golden: golden row 0: training's"):
        road.yard.build(ref, "bento")
    done = road.command("deploy", ref)
    assert done.returncode == 4
    assert "no build that passed" in done.stderr


def test_a_tampered_model_file_is_refused_by_its_digest(road: Road) -> None:
    ref = version_of(road, lambda _: None)
    folder = road.yard.settings.tracking_home.files.model(road.yard.resolve(ref).model_sha256)
    file = folder / "mlflow" / "model.skops"
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    done = road.command("build", ref)
    assert done.returncode == 4
    assert "mlflow/model.skops is not what was recorded" in done.stderr


def test_a_version_without_approval_is_not_built(road: Road) -> None:
    ref = road.yard.request(road.yard.train("tumor").id).ref
    done = road.command("build", ref)
    assert done.returncode == 4
    assert f"yard approve {ref}" in done.stderr


def test_a_bento_that_was_changed_after_its_checks_is_not_deployed(road: Road) -> None:
    ref = version_of(road, lambda _: None)
    service = road.yard.build(ref, "bento").bento.path / "src" / "service.py"
    service.write_text(service.read_text() + "\n# harmless?\n")
    done = road.command("deploy", ref)
    assert done.returncode == 4
    assert "is not the one that was checked" in done.stderr


def test_a_deployed_bento_that_was_changed_is_not_started_again_and_the_rest_is(road: Road) -> None:
    ref = version_of(road, lambda _: None)
    bento = road.yard.build(ref, "bento").bento
    road.yard.deploy(ref, variant="shadowed")
    deployment = road.yard.endpoints.deployment(road.yard.endpoints.endpoint("tumor").variants["shadowed"])
    road.yard.serving.stage.stop(deployment)
    service = bento.path / "src" / "service.py"
    before = service.read_text()
    service.write_text(before + "\n# changed while it was stopped\n")
    done = road.command("up")
    assert done.returncode == 4
    assert "is not the one that was checked" in done.stderr
    service.write_text(before)
    assert road.command("up").returncode == 0
    assert {process["state"] for process in road.json("status")["processes"]} == {"RUNNING"}


def test_a_bento_whose_model_file_was_changed_does_not_even_start(road: Road, tmp_path: Path) -> None:
    build = road.yard.builder.find("tumor:1")
    copy = tmp_path / "tumor" / "copy"
    shutil.copytree(build.bento.path, copy)
    model = copy / "src" / "model" / "mlflow" / "model.skops"
    model.write_bytes(model.read_bytes() + b"\0")
    with (
        pytest.raises(BuildRefused, match="is not the file that was recorded"),
        serve(copy, build.environment, tmp_path, 25),
    ):
        pass


def test_a_case_of_the_project_that_fails_refuses_the_bento(road: Road) -> None:
    cases = road.root / "projects" / "tumor" / "cases.json"
    before = cases.read_text()
    ref = version_of(road, lambda _: None)
    cases.write_text(before.replace('"benign"\n', '"malignant"\n', 1))
    assert cases.read_text() != before
    try:
        with pytest.raises(BuildRefused, match="case 'a typical benign finding': expected"):
            road.yard.build(ref, "bento")
    finally:
        cases.write_text(before)
    assert road.yard.build(ref, "bento").report["passed"]


def test_uncommitted_code_is_refused_unless_it_is_asked_for(road: Road) -> None:
    commit_all(road.root)
    script = road.root / "projects" / "tumor" / "train.py"
    before = script.read_text()
    script.write_text(before + "\n# not committed\n")
    try:
        run = road.yard.train("tumor")
        with pytest.raises(Refused, match=r"projects/tumor/train\.py .*--allow-dirty"):
            road.yard.request(run.id)
        assert road.yard.request(run.id, allow_dirty=True).ref
    finally:
        script.write_text(before)
