"""A training beside a shared store: it neither waits for it nor loses anything by it."""

import json
import logging
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from modelyard_tracking import experiment
from modelyard_tracking.digests import check_folder
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.recording.uploader import stop_uploader
from modelyard_tracking.store import ArtifactStore, Home
from modelyard_tracking.storing.objects import Address
from modelyard_tracking.storing.share import Share
from store_tools import keep_model


def train(home: Home, folder: Path) -> str:
    """One run that uses a data set and keeps a model; gives the model's digest."""
    churn = Experiment("churn", home=lambda: home)
    churn.base_dir = str(folder)
    kept = []

    @churn.main
    def main(_run) -> float:
        churn.dataset("train", pd.DataFrame({"x": [1.0]}))
        kept.append(keep_model(home.files))
        _run.info["modelyard"]["model"] = {"sha256": kept[0]}
        return 0.5

    churn.run(options={"--capture": "no"})
    return kept[0]


def test_what_a_run_keeps_is_in_the_shared_store_when_it_is_over(home: Home, address: Address, tmp_path: Path) -> None:
    shared = replace(home, shared=address)
    try:
        digest = train(shared, tmp_path)
        assert shared.files.pending() == []
        away = ArtifactStore(tmp_path / "away", Share(address))
        check_folder(away.model(digest), digest)
    finally:
        stop_uploader(home.spool)


def test_a_training_ends_soon_without_the_shared_store_and_its_files_are_brought_later(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "SHARE_PATIENCE_S", 200.0)
    shared = replace(home, shared=Address(f"file://{tmp_path}/mount"))
    began = time.monotonic()
    try:
        with caplog.at_level(logging.WARNING):
            digest = train(shared, tmp_path)
    finally:
        stop_uploader(home.spool)
    assert time.monotonic() - began < 100
    [warning] = [record.getMessage() for record in caplog.records if "shared store" in record.getMessage()]
    assert "yard runs push" in warning
    assert len(shared.files.pending()) == 2
    (tmp_path / "mount").mkdir()
    for waiting in shared.files.pending():
        shared.files.bring(waiting)
    shutil.rmtree(home.artifacts)
    check_folder(shared.files.model(digest), digest)


def test_the_login_travels_with_the_home_and_is_not_shown(home: Home) -> None:
    whole = replace(home, shared=Address("s3://b/p", "http://ceph", key="k3y", secret="s3cret", token="t0ken"))
    assert Home.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert pickle.loads(pickle.dumps(whole)) == whole  # noqa: S301 - our own
    assert Home.from_json(json.loads(json.dumps(home.to_json()))) == home
    for secret in ("k3y", "s3cret", "t0ken"):
        assert secret not in repr(whole) + repr(whole.files) + str(whole.shared)
