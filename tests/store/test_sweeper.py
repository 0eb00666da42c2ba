"""What nothing refers to is found, wherever it lies; what anything refers to stays."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from modelyard_tracking.digests import INDEX
from modelyard_tracking.errors import Refused
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.store import ArtifactStore
from modelyard_tracking.storing import sweeper
from modelyard_tracking.storing.share import Share
from modelyard_tracking.storing.sweeper import Item, judge, reachable
from own_ceph import Ceph
from store_tools import address_of, bring_all, keep_model

NOW = datetime(2026, 11, 20, tzinfo=UTC)
WEEK = timedelta(days=7)
FRAME = pd.DataFrame({"x": [1.0, 2.0]})


def item(days_old: float, name: str = "a" * 64, leftover: str = "", live: str = "") -> Item:
    return Item("/store", "model", name, 10, NOW - timedelta(days=days_old), leftover, live)


@pytest.mark.parametrize(
    ("found", "goes", "why"),
    [
        (item(8), True, "nothing refers"),
        (item(6.9), False, "only 6 days old"),
        (item(-1), False, "only 0 days old"),  # another machine's clock is ahead
        (item(800, "b" * 64), False, "run 7 refers to it"),
        (item(8, "b" * 64, leftover="half a model"), True, "half a model"),
        (item(6, leftover="half a model"), False, "only 6 days old"),
        (item(800, leftover="half a model", live="a process runs from it"), False, "a process runs from it"),
    ],
)
def test_an_item_goes_when_it_is_old_and_nothing_refers_to_it(found: Item, goes: bool, why: str) -> None:
    [verdict] = judge([found], {"b" * 64: "run 7"}, NOW, WEEK)
    assert verdict.goes is goes
    assert why in verdict.why


def test_a_threshold_that_could_cost_a_training_its_files_is_refused() -> None:
    with pytest.raises(Refused, match="must be 1d or more"):
        judge([], {}, NOW, timedelta(hours=23))


def test_every_reference_counts(db, tmp_path: Path) -> None:
    digests = {name: char * 64 for name, char in zip(("model", "data", "lock", "patch"), "1234", strict=True)}
    facts = {
        "model": {"sha256": digests["model"]},
        "datasets": {"train": {"sha256": digests["data"]}},
        "lock_sha256": digests["lock"],
        "something": ["new", {"nested": f"sha256:{digests['patch']}"}],
    }
    db.runs.insert_one({"_id": 7, "info": {"modelyard": facts}})
    db.approvals.insert_one({"_id": "tumor:1", "evidence": {"data": {"a": "5" * 64}}})
    db.builds.insert_one({"_id": "6" * 64, "ref": "tumor:1", "report": {"model_sha256": "7" * 64}})
    db.deployments.insert_one({"_id": "tumor-1", "model_sha256": "8" * 64})
    db.sweeps.insert_one({"_id": 3})
    spooled = tmp_path / "database-1" / "20261120-x"
    spooled.mkdir(parents=True)
    (spooled / "events.jsonl").write_text(" " * (2**20 - 30) + '{"sha256": "' + "9" * 64 + '"}')  # across two blocks
    version = ModelVersion("tumor", 1, 7, "0" * 64, "requested", (), "", NOW, {"lock_sha256": "c" * 64})
    wanted = reachable(db, [version], tmp_path)
    assert {char for char in "0123456789c" if char * 64 in wanted} == set("0123456789c")
    assert wanted["1" * 64] == "run 7"
    assert wanted["5" * 64] == "approval tumor:1"
    assert wanted["9" * 64] == "run 20261120-x, in the spool,"
    assert wanted["sweep 3"] == "sweep 3"


def test_everything_here_is_listed_with_its_kind_and_leftovers_by_their_cause(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, owner="runs-1")
    (tmp_path / "some.lock").write_text("numpy==2.3.0\n")
    model, frame = keep_model(store), store.keep_frame(FRAME)
    file, lock = store.keep_file(tmp_path / "some.lock"), store.keep_lock(tmp_path / "some.lock")
    half = keep_model(store, weights=b"half")
    (store.path("model", half) / INDEX).unlink()
    (tmp_path / "incoming" / "0123").mkdir()
    (tmp_path / "incoming" / "0123" / "weights").write_bytes(b"w" * 5)
    (tmp_path / "data" / f"{frame}.1a2b").write_bytes(b"")
    (tmp_path / "sweeps" / "3").mkdir(parents=True)
    found = {(entry.kind, entry.name): entry for entry in sweeper.items_here(tmp_path)}
    assert {key for key, entry in found.items() if not entry.leftover} == {
        ("model", model), ("frame", frame), ("file", file), ("lock", lock), ("checkpoints", "sweep 3"),
    }  # fmt: skip
    leftovers = {key for key, entry in found.items() if entry.leftover}
    assert leftovers == {("model", half), ("leftover", "incoming/0123"), ("leftover", f"data/{frame}.1a2b")}
    assert found["leftover", "incoming/0123"].bytes == 5
    for entry in found.values():
        entry.remove()
    assert list(sweeper.items_here(tmp_path)) == []
    assert not any(path.is_file() for place in ("models", "data", "locks") for path in (tmp_path / place).rglob("*"))


def test_everything_in_the_shared_store_is_listed_and_can_be_removed(here: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "some.lock").write_text("numpy==2.3.0\n")
    model, frame, lock = keep_model(here), here.keep_frame(FRAME), here.keep_lock(tmp_path / "some.lock")
    half = keep_model(here, weights=b"half")
    bring_all(here)
    assert here.share is not None
    objects = here.share.objects
    objects.remove(f"models/{half}/{INDEX}")
    objects.put("notes/of-somebody-else", tmp_path / "some.lock")
    found = {(entry.kind, entry.name): entry for entry in sweeper.items_there(here.share)}
    assert set(found) == {("model", model), ("model", half), ("frame", frame), ("lock", lock)}
    assert {name for (_, name), entry in found.items() if entry.leftover} == {half}
    assert found["model", model].bytes == sum(
        path.stat().st_size for path in here.path("model", model).rglob("*") if path.is_file()
    )
    assert all(abs(entry.modified_at - datetime.now(UTC)) < timedelta(minutes=5) for entry in found.values())
    assert sweeper.owners_there(here.share) == ["runs-1"]
    for entry in found.values():
        entry.remove()
    assert list(sweeper.items_there(here.share)) == []
    assert [stored.name for stored in objects.list("")] == ["notes/of-somebody-else", "owners/runs-1"]


@pytest.mark.ceph
def test_an_unfinished_upload_is_listed_with_its_size_and_removed(ceph: Ceph) -> None:
    share = Share(address_of(ceph))
    bucket = share.address.url.split("/")[2]
    for name in (f"some/prefix/data/{'a' * 64}.file", "some/prefix/not/ours", f"other/data/{'a' * 64}.file"):
        upload = ceph.client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
        ceph.client.upload_part(Bucket=bucket, Key=name, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    [left] = sweeper.items_there(share)
    assert (left.kind, left.name, left.bytes) == ("leftover", f"data/{'a' * 64}.file", 1000)
    left.remove()
    left.remove()  # again, as two machines at once
    assert list(sweeper.items_there(share)) == []
    assert len(ceph.client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2


def test_what_is_kept_again_is_young_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    digest = keep_model(store)
    for path in (store.path("model", digest), *store.path("model", digest).rglob("*")):
        os.utime(path, (0, 0))
    assert next(sweeper.items_here(tmp_path)).modified_at.year == 1970
    assert keep_model(store) == digest
    assert time.time() - next(sweeper.items_here(tmp_path)).modified_at.timestamp() < 60


def test_what_is_brought_again_after_a_day_is_young_again(here: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_model(here)
    bring_all(here)
    assert here.share is not None
    [before] = sweeper.items_there(here.share)
    time.sleep(1.1)  # S3 tells whole seconds
    monkeypatch.setattr("modelyard_tracking.storing.share.REFRESHED_AFTER", timedelta(seconds=1))
    keep_model(here)
    bring_all(here)
    [after] = sweeper.items_there(here.share)
    assert after.modified_at > before.modified_at


def test_another_database_that_uses_a_store_is_seen(here: ArtifactStore) -> None:
    keep_model(here)
    other = replace(here, owner="runs-2")
    keep_model(other)
    bring_all(here)
    keep_model(other)
    bring_all(other)
    assert here.share is not None
    assert sweeper.other_owners(sweeper.owners_here(here.root), "runs-1") == ["runs-2"]
    assert sweeper.other_owners(sweeper.owners_there(here.share), "runs-1") == ["runs-2"]
