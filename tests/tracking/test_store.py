"""Files by digest."""

from pathlib import Path

import pandas as pd
import pytest

from modelyard_tracking.errors import NotFound, Refused, Unavailable
from modelyard_tracking.store import ArtifactStore, Home

FRAME = pd.DataFrame({"x": [1.0, 2.0], "s": ["a", "ä"]})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_a_data_set_comes_back_as_it_was_kept(store: ArtifactStore) -> None:
    digest = store.keep_frame(FRAME)
    assert store.keep_frame(FRAME) == digest
    pd.testing.assert_frame_equal(store.frame(digest), FRAME)


def test_a_data_set_that_was_changed_on_disk_is_refused(store: ArtifactStore) -> None:
    digest = store.keep_frame(FRAME)
    FRAME.assign(x=0.0).to_parquet(store.root / "data" / f"{digest}.parquet")
    with pytest.raises(Refused, match="does not hold the data"):
        store.frame(digest)


def test_a_data_set_whose_file_is_damaged_is_refused(store: ArtifactStore) -> None:
    digest = store.keep_frame(FRAME)
    (store.root / "data" / f"{digest}.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(Refused, match="cannot be read"):
        store.frame(digest)


def test_a_data_set_that_is_not_there_is_reported(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="0123456789ab"):
        store.frame("0123456789abcdef")


def test_a_file_of_data_is_kept_and_checked_by_its_bytes(store: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "raw.csv"
    file.write_text("a,b\n")
    digest = store.keep_file(file)
    assert store.check_data(digest) == "4 bytes"
    assert store.check_data(store.keep_frame(FRAME)) == "2 rows, 2 columns"
    store.data_file(digest).write_text("b,a\n")
    with pytest.raises(Refused, match="does not hold the data"):
        store.check_data(digest)


def test_a_file_of_data_that_is_very_large_is_only_digested(store: ArtifactStore, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("modelyard_tracking.store.MAX_KEPT_BYTES", 3)
    (tmp_path / "raw.csv").write_text("a,b\n")
    with pytest.raises(NotFound, match="is not in"):
        store.check_data(store.keep_file(tmp_path / "raw.csv"))


def test_a_model_is_moved_in_whole_or_not_at_all(store: ArtifactStore) -> None:
    def save_half() -> None:
        with store.new_model() as folder:
            (folder / "weights").write_bytes(b"1")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        save_half()
    assert not (store.root / "models").exists()
    assert list((store.root / "incoming").iterdir()) == []


def test_the_same_model_kept_twice_is_one_model(store: ArtifactStore) -> None:
    digests = set()
    for _ in range(2):
        with store.new_model() as folder:
            (folder / "weights").write_bytes(b"1")
            digests.add(store.keep_model(folder))
    assert len(digests) == len(list((store.root / "models").iterdir())) == 1


def test_a_database_that_does_not_answer_is_said_within_seconds_and_without_its_password(tmp_path: Path) -> None:
    home = Home("mongodb://me:hunter2@127.0.0.1:1/", "db", tmp_path, tmp_path / "spool")
    with pytest.raises(Unavailable, match=r"mongodb://me:\.\.\.@127\.0\.0\.1:1/ does not answer") as caught:
        home.connect()
    assert "hunter2" not in str(caught.value)
