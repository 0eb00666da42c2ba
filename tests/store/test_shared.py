"""A store that machines share: what comes out of it is what was put in, or nothing is."""

import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from modelyard_tracking import digests
from modelyard_tracking.digests import INDEX, check_folder, text_sha256
from modelyard_tracking.errors import NotFound, Refused, Unavailable
from modelyard_tracking.store import ArtifactStore
from modelyard_tracking.storing import s3, share
from modelyard_tracking.storing.objects import Address
from modelyard_tracking.storing.share import Share
from own_ceph import Ceph
from store_tools import address_of, bring_all, cut_line, keep_model

FRAME = pd.DataFrame({"x": [1.0, 2.0], "s": ["a", "ä"]})


def shared_model(here: ArtifactStore, **files: bytes) -> str:
    digest = keep_model(here, **files)
    bring_all(here)
    return digest


def put(store: ArtifactStore, name: str, content: bytes, tmp_path: Path) -> None:
    """What somebody with access to the shared store may do."""
    assert store.share is not None
    (tmp_path / "sent").write_bytes(content)
    store.share.objects.put(name, tmp_path / "sent")


def nothing_came(store: ArtifactStore) -> bool:
    return not any(path.is_file() for path in store.root.rglob("*"))


def test_what_one_machine_keeps_another_gets(here: ArtifactStore, there: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("a,b\n")
    (tmp_path / "requirements.lock").write_text("numpy==2.3.0\n")
    model, frame = keep_model(here), here.keep_frame(FRAME)
    file, lock = here.keep_file(tmp_path / "raw.csv"), here.keep_lock(tmp_path / "requirements.lock")
    assert len(here.pending()) == 4
    bring_all(here)
    assert here.pending() == []
    check_folder(there.model(model), model)
    pd.testing.assert_frame_equal(there.frame(frame), FRAME)
    assert there.check_data(file) == "4 bytes"
    assert there.check_data(frame) == "2 rows, 2 columns"
    assert there.lock(lock).read_text() == "numpy==2.3.0\n"
    assert there.pending() == []
    assert list((there.root / "incoming").iterdir()) == []


def test_what_is_nowhere_is_not_there(there: ArtifactStore) -> None:
    assert not there.model("0" * 64).exists()
    assert not there.lock("0" * 64).exists()
    with pytest.raises(NotFound, match="is not in"):
        there.check_data("0" * 64)


def test_what_is_here_is_used_without_asking_the_shared_store(here: ArtifactStore) -> None:
    digest = keep_model(here)
    away = replace(here, share=Share(Address("s3://bucket", "http://127.0.0.1:1", key="k", secret="s")))
    check_folder(away.model(digest), digest)


def test_bringing_twice_is_harmless(here: ArtifactStore, there: ArtifactStore) -> None:
    digest = shared_model(here)
    assert shared_model(here) == digest
    check_folder(there.model(digest), digest)


def test_a_model_is_no_model_before_its_index_is_there(here: ArtifactStore, there: ArtifactStore) -> None:
    digest = shared_model(here)
    assert here.share is not None
    here.share.objects.remove(f"models/{digest}/{INDEX}")
    assert not there.model(digest).exists()
    here.ensure_kept(digest, [], here.keep_lock(there_is_a_lock(here)))
    check_folder(there.model(digest), digest)


def there_is_a_lock(store: ArtifactStore) -> Path:
    file = store.root / "some.lock"
    file.write_text("numpy==2.3.0\n")
    return file


def _tampered(store: ArtifactStore, digest: str, tmp_path: Path) -> None:
    put(store, f"models/{digest}/mlflow/weights", b"v" + b"w" * 999, tmp_path)


def _truncated(store: ArtifactStore, digest: str, tmp_path: Path) -> None:
    put(store, f"models/{digest}/mlflow/weights", b"w" * 999, tmp_path)


def _empty(store: ArtifactStore, digest: str, tmp_path: Path) -> None:
    put(store, f"models/{digest}/mlflow/weights", b"", tmp_path)


def _missing(store: ArtifactStore, digest: str, _: Path) -> None:
    assert store.share is not None
    store.share.objects.remove(f"models/{digest}/mlflow/weights")


def _swapped(store: ArtifactStore, digest: str, tmp_path: Path) -> None:
    put(store, f"models/{digest}/mlflow/weights", b"{}", tmp_path)
    put(store, f"models/{digest}/schema.json", b"w" * 1000, tmp_path)


def _other_index(store: ArtifactStore, digest: str, tmp_path: Path) -> None:
    other = keep_model(store, weights=b"another")
    put(store, f"models/{digest}/{INDEX}", (store.path("model", other) / INDEX).read_bytes(), tmp_path)


def _endless_index(store: ArtifactStore, digest: str, tmp_path: Path) -> None:
    put(store, f"models/{digest}/{INDEX}", b"0" * (digests.MAX_INDEX_BYTES + 1), tmp_path)


@pytest.mark.parametrize("change", [_tampered, _truncated, _empty, _missing, _swapped, _other_index, _endless_index])
def test_a_model_that_was_changed_in_the_shared_store_is_refused(
    here: ArtifactStore, there: ArtifactStore, tmp_path: Path, change
) -> None:
    digest = shared_model(here)
    change(here, digest, tmp_path)
    with pytest.raises(Refused, match=r"(Nothing of it was used|It was not used)"):
        there.model(digest)
    assert nothing_came(there)


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "a//b", "./a", "a\x00b", "a\rb", "", INDEX, "a" * 300],
)
def test_an_index_that_leads_out_of_the_folder_is_refused(
    here: ArtifactStore, there: ArtifactStore, tmp_path: Path, name: str
) -> None:
    index = f"{text_sha256(b'evil')}  {name}\n".encode()
    digest = text_sha256(index)
    put(here, f"models/{digest}/{INDEX}", index, tmp_path)
    put(here, f"models/{digest}/evil", b"evil", tmp_path)
    with pytest.raises(Refused, match="Nothing was read"):
        there.model(digest)
    assert nothing_came(there)


def test_an_index_of_too_many_files_is_refused(here: ArtifactStore, there: ArtifactStore, tmp_path: Path) -> None:
    index = "".join(f"{text_sha256(b'')}  {n}\n" for n in range(digests.MAX_FILES + 1)).encode()
    digest = text_sha256(index)
    put(here, f"models/{digest}/{INDEX}", index, tmp_path)
    with pytest.raises(Refused, match="more than 10000 files"):
        there.model(digest)


def test_a_model_that_is_too_large_is_refused_before_it_is_fetched(
    here: ArtifactStore, there: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = shared_model(here)
    monkeypatch.setitem(share.MAX_BYTES, "model", 1001)
    with pytest.raises(Refused, match="has 1002 bytes; 1001 are the most"):
        there.model(digest)
    assert nothing_came(there)


@pytest.mark.parametrize("place", ["data/{}.file", "locks/{}.lock", "data/{}.parquet"])
def test_other_data_and_another_lock_are_refused(
    here: ArtifactStore, there: ArtifactStore, tmp_path: Path, place: str
) -> None:
    put(here, place.format("a" * 64), b"something else", tmp_path)
    fetch = {"data/{}.file": there.data_file, "locks/{}.lock": there.lock, "data/{}.parquet": there.frame_file}[place]
    with pytest.raises(Refused, match="its content is not what was recorded"):
        fetch("a" * 64)
    assert nothing_came(there)


@pytest.mark.parametrize("digest", ["../../etc", "a/b", "..", "a\\b", "a.b", "ä"])
def test_what_is_no_digest_leads_nowhere(here: ArtifactStore, digest: str) -> None:
    for place in (here.model, here.lock, here.data_file, here.frame_file):
        with pytest.raises(Refused, match="is no digest"):
            place(digest)


def test_a_link_in_a_shared_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    both = [ArtifactStore(tmp_path / name, Share(Address(f"file://{tmp_path}/share")), "runs-1") for name in ("a", "b")]
    digest = shared_model(both[0])
    weights = tmp_path / "share" / "models" / digest / "mlflow" / "weights"
    (tmp_path / "secret").write_bytes(b"w" * 1000)  # even with the same content
    weights.unlink()
    weights.symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match="behind, a link"):
        both[1].model(digest)
    assert nothing_came(both[1])


def test_a_shared_folder_that_is_not_mounted_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "here", Share(Address(f"file://{tmp_path}/mount")), "runs-1")
    digest = keep_model(store)
    with pytest.raises(Unavailable, match="is not there"):
        bring_all(store)
    assert not (tmp_path / "mount").exists()
    (tmp_path / "mount").mkdir()
    [waiting] = store.pending()
    assert "is not there" in waiting.problem
    bring_all(store)
    assert (tmp_path / "mount" / "models" / digest / INDEX).is_file()


def test_what_was_changed_here_is_not_shared(here: ArtifactStore) -> None:
    digest = keep_model(here)
    (here.path("model", digest) / "schema.json").write_text("{1}")
    with pytest.raises(Refused, match="is not what was recorded"):
        bring_all(here)
    assert here.share is not None
    assert list(here.share.objects.list("models/")) == []


def test_a_version_can_only_be_asked_for_once_its_files_are_shared(here: ArtifactStore, there: ArtifactStore) -> None:
    model, data, lock = keep_model(here), here.keep_frame(FRAME), here.keep_lock(there_is_a_lock(here))
    with pytest.raises(Refused, match="is gone or has no"):  # nothing was brought yet
        there.ensure_kept(model, [data], lock)
    here.ensure_kept(model, [data], lock)
    assert here.pending() == []
    there.ensure_kept(model, [data], lock)


def test_what_somebody_changed_in_the_shared_store_is_mended_before_a_version_is_made(
    here: ArtifactStore, there: ArtifactStore, tmp_path: Path
) -> None:
    digest = shared_model(here)
    _tampered(here, digest, tmp_path)
    here.ensure_kept(digest, [], here.keep_lock(there_is_a_lock(here)))
    check_folder(there.model(digest), digest)


def test_a_probe_leaves_nothing(address: Address) -> None:
    Share(address).probe()
    assert list(address.open().list("")) == []


@pytest.mark.ceph
def test_a_wrong_login_is_refused_in_a_sentence_that_does_not_hold_it(ceph: Ceph, tmp_path: Path) -> None:
    wrong = address_of(ceph, secret="hunter2hunter2")
    store = ArtifactStore(tmp_path, Share(wrong), "runs-1")
    digest = keep_model(store)
    for ask in (lambda: bring_all(store), Share(wrong).probe, lambda: store.model("0" * 64)):
        with pytest.raises(Unavailable, match=r"refuses the login.*\n.*AWS_ACCESS_KEY_ID") as caught:
            ask()
        assert "hunter2" not in str(caught.value) + repr(store) + repr(wrong)
    assert [waiting.digest for waiting in store.pending()] == [digest]


@pytest.mark.ceph
def test_a_bucket_that_is_not_there_is_named(ceph: Ceph) -> None:
    with pytest.raises(Unavailable, match="has no bucket 'nowhere'"):
        Share(Address("s3://nowhere/x", ceph.url, key=ceph.key, secret=ceph.secret)).probe()


def test_a_store_that_does_not_answer_is_said_within_seconds(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, Share(Address("s3://bucket", "http://127.0.0.1:1", key="k", secret="s")), "runs-1")
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        store.model("0" * 64)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "url", ["gs://bucket/x", "/a/folder", "s3://", "file://host/share", "file:share", "s3://b/x?versionId=1"]
)
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="is no shared store"):
        Address(url)


def test_a_login_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(Refused, match="AWS_SECRET_ACCESS_KEY") as caught:
        Address("s3://key:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.ceph
@pytest.mark.parametrize("after", [100_000, 6_000_000])
def test_an_upload_that_is_cut_off_leaves_no_model_and_can_be_gone_on_with(
    ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)
    whole = address_of(ceph)
    with cut_line(urlsplit(ceph.url).port or 0, after) as port:
        cut = replace(whole, endpoint=f"http://127.0.0.1:{port}")
        store = ArtifactStore(tmp_path / "here", Share(cut), "runs-1")
        digest = keep_model(store, weights=bytes(range(256)) * 2**16)  # 16 MiB
        with pytest.raises(Unavailable, match="does not answer"):
            bring_all(store)
    store = replace(store, share=Share(whole))
    there = ArtifactStore(tmp_path / "there", Share(whole), "runs-1")
    assert not there.model(digest).exists()
    bring_all(store)
    check_folder(there.model(digest), digest)


@pytest.mark.ceph
def test_a_large_file_goes_in_parts_and_is_known_again(
    ceph: Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)
    objects = address_of(ceph).open()
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * 2**16)
    objects.put("data/large", file)
    assert objects.holds("data/large", file)
    assert objects.get("data/large", tmp_path / "back", 2**24) == digests.file_sha256(file)
    monkeypatch.setattr(s3, "PART_BYTES", 6 * 2**20)  # as another version of ours may have cut it
    assert objects.holds("data/large", file)
    assert list(objects.unfinished()) == []
