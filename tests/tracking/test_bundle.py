"""Runs on their way from one database and store to another."""

import gzip
import hashlib
import io
import json
import math
import random
import shutil
import tarfile
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymongo import MongoClient
from sklearn.linear_model import LogisticRegression

from modelyard_serving.runtime.model import TRUSTED_TYPES
from modelyard_tracking.digests import check_folder
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.evaluation import read_evaluations
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.moving import unbundle
from modelyard_tracking.moving.archive import unpack_archive, write_archive
from modelyard_tracking.moving.bundle import FORMAT, export_runs, metric_id, to_json
from modelyard_tracking.moving.unbundle import import_runs
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.store import Home

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sacred
    from sacred.observers import MongoObserver


@pytest.fixture
def there(mongo_url: str, tmp_path: Path) -> Iterator[Callable[[], Home]]:
    """Other databases, each with a store of its own."""
    with ExitStack() as at_end:

        def make() -> Home:
            name = f"test_{uuid.uuid4().hex}"
            client = at_end.enter_context(MongoClient(mongo_url))
            at_end.callback(client.drop_database, name)
            return Home(mongo_url, name, tmp_path / name / "artifacts", tmp_path / name / "spool")

        yield make


@pytest.fixture
def train(home: Home, db, tmp_path: Path) -> Callable[..., Run]:
    """A run with all there is: metrics, output, data, a model, artifacts, a resource."""
    script = tmp_path / "train.py"
    script.write_text("# the source\n")
    table = tmp_path / "table.bin"
    table.write_bytes(bytes(range(256)))

    def run(model: bool = True, info: dict | None = None, **config) -> Run:
        ex = Experiment("bundled", home=lambda: home, trusted_types=TRUSTED_TYPES)

        @ex.config
        def settings():
            lr = 0.1  # noqa: F841
            big = 2**40  # noqa: F841
            nothing = None  # noqa: F841

        @ex.main
        def main(_run, lr, seed):
            x = pd.DataFrame(np.random.default_rng(seed).normal(size=(30, 2)), columns=["a", "b"])
            ex.dataset("train", x)
            ex.dataset("table", table)
            ex.evaluation("train", truth=x["a"] > 0, prediction=x["b"] > 0)
            for step in range(50):
                _run.log_scalar("loss", math.exp(-lr * step), step)
            _run.log_scalar("val.auc", math.nan)
            ex.add_artifact(str(table), "table", metadata={"rows": 256})
            with ex.open_resource(str(table), "rb"):
                pass
            if model:
                ex.save_model(LogisticRegression().fit(x, x["a"] > 0), examples=x.head(3))
            print("a line")
            return {"loss": 0.25, "n": 3}

        ex.add_source_file(str(script))
        finished = ex.run(config_updates=config, info=info, options={"--capture": "sys"})
        return RunStore(db).get(finished._id)

    return run


def _documents(home: Home) -> list[dict]:
    with home.connected() as db:
        return list(db.runs.find().sort("_id", 1))


def _artifact(home: Home, run_id: int, name: str) -> bytes:
    with home.connected() as db:
        store = RunStore(db)
        return store.artifact(store.get(run_id), name)


def _bundle(home: Home, file: Path, *ids: int) -> Path:
    export_runs(home, ids, file)
    return file


def test_a_run_is_elsewhere_what_it_was_at_home(train, home: Home, there, tmp_path: Path, db) -> None:
    train(model=False)
    run = train(info={"sweep": {"id": 4, "trial": "x"}}, lr=0.5)
    exported = export_runs(home, [run.id], tmp_path / "runs.yard")
    assert exported.missing == ()
    away = there()
    imported = import_runs(away, tmp_path / "runs.yard")
    assert imported.digest == exported.digest
    assert [(r.uuid, r.was, r.id, r.new) for r in imported.runs] == [(run.recorded["uuid"], run.id, 1, True)]

    with away.connected() as other:
        store = RunStore(other)
        copy = store.get(1)
        assert {k: v for k, v in copy.raw.items() if k not in ("_id", "info", "artifacts", "experiment")} == {
            k: v for k, v in run.raw.items() if k not in ("_id", "info", "artifacts", "experiment")
        }
        assert copy.sweep_id is None, "a sweep's number means nothing here"
        assert copy.recorded["imported"] == {
            "id": run.id, "bundle": exported.digest, "sweep": {"id": 4, "trial": "x"},
        }  # fmt: skip
        recorded = {k: v for k, v in copy.recorded.items() if k != "imported"}
        assert to_json(recorded, sort_keys=True) == to_json(run.recorded, sort_keys=True)
        curves, before = store.curves(1), RunStore(db).curves(run.id)
        assert curves["loss"] == before["loss"]
        assert math.isnan(curves["val.auc"].values[0])
        assert copy.raw["info"]["metrics"] == run.raw["info"]["metrics"]
        assert other.metrics.find_one({"_id": metric_id(run.recorded["uuid"], "loss")})["run_id"] == 1
        [table] = [f for f in other.fs.files.find() if f["filename"] == "artifact://runs/1/table"]
        assert table["metadata"] == {"rows": 256}
        sources = [name for name, _ in copy.raw["experiment"]["sources"]]
        assert sources == [name for name, _ in run.raw["experiment"]["sources"]]
    assert _artifact(away, 1, "table") == bytes(range(256))
    assert "a line" in copy.raw["captured_out"]
    check_folder(away.files.model(run.model_sha256), run.model_sha256)
    assert len(away.files.frame(run.recorded["datasets"]["train"]["sha256"])) == 30
    [before], [after] = (read_evaluations(h.files, run.recorded).values() for h in (home, away))
    assert after.prediction.tolist() == before.prediction.tolist()
    assert away.files.data_file(run.recorded["datasets"]["table"]["sha256"]).read_bytes() == bytes(range(256))
    assert not list((away.artifacts / "incoming").iterdir())


def test_the_same_runs_are_the_same_bytes_from_wherever_they_are_exported(train, home: Home, there, tmp_path) -> None:
    runs = [train(model=False, info={"sweep": {"id": 1, "trial": "a"}}), train(), train(model=False)]
    one = _bundle(home, tmp_path / "one.yard", *(run.id for run in runs))
    two = _bundle(home, tmp_path / "two.yard", *(run.id for run in reversed(runs)), runs[0].id)
    assert one.read_bytes() == two.read_bytes()
    away, further = there(), there()
    import_runs(away, one)
    three = _bundle(away, tmp_path / "three.yard", 1, 2, 3)
    assert three.read_bytes() == one.read_bytes()
    import_runs(further, three)
    assert [d["info"]["modelyard"]["imported"]["id"] for d in _documents(further)] == [run.id for run in runs]


def test_importing_again_changes_nothing_also_at_home(train, home: Home, there, tmp_path: Path) -> None:
    run = train(model=False)
    file = _bundle(home, tmp_path / "runs.yard", run.id)
    away = there()
    import_runs(away, file)
    before = _documents(away)
    [again] = import_runs(away, file).runs
    assert (again.id, again.new) == (1, False)
    assert to_json(_documents(away)) == to_json(before)
    [at_home] = import_runs(home, file).runs
    assert (at_home.id, at_home.new) == (run.id, False)
    assert len(_documents(home)) == 1


def test_runs_get_free_numbers_in_the_order_they_were_made(train, home: Home, there, tmp_path: Path) -> None:
    first = train(model=False)
    second = train(model=False, info={"of": first.recorded["uuid"]})
    third = train(model=False)
    away = there()
    import_runs(away, _bundle(home, tmp_path / "a.yard", second.id))
    done = import_runs(away, _bundle(home, tmp_path / "b.yard", third.id, first.id, second.id))
    assert [(r.was, r.id, r.new) for r in done.runs] == [
        (second.id, 1, False),
        (first.id, 2, True),
        (third.id, 3, True),
    ]
    documents = _documents(away)
    assert documents[0]["info"]["of"] == documents[1]["info"]["modelyard"]["uuid"], "names hold where numbers do not"


def test_an_import_that_was_cut_off_is_done_again(train, home: Home, there, tmp_path: Path, monkeypatch) -> None:
    run = train(lr=0.3)
    file = _bundle(home, tmp_path / "runs.yard", run.id)
    away = there()
    with monkeypatch.context() as patch:
        patch.setattr(unbundle, "_summary", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_runs(away, file)
    assert _documents(away) == []
    [done] = import_runs(away, file).runs
    assert done.new
    with away.connected() as db:
        assert db.metrics.count_documents({}) == len(run.metrics)
        assert set(db.metrics.distinct("run_id")) == {done.id}
        assert set(db.fs.chunks.distinct("files_id")) == set(db.fs.files.distinct("_id"))
        assert f"artifact://runs/{done.id}/table" in db.fs.files.distinct("filename")
    assert _bundle(away, tmp_path / "back.yard", done.id).read_bytes() == file.read_bytes()


def _unpacked(packed: bytes) -> bytes | None:
    try:
        return gzip.decompress(packed) if packed.startswith(b"\x1f\x8b\x08\0\0\0\0\0\x04\xff") else None
    except (OSError, EOFError, zlib.error):
        return None


def test_a_changed_byte_is_refused_wherever_it_is(train, home: Home, there, tmp_path: Path) -> None:
    file = _bundle(home, tmp_path / "runs.yard", train(model=False).id)
    whole = file.read_bytes()
    away = there()
    choose = random.Random(1)  # noqa: S311 - any places will do
    for place in [*range(20), *choose.sample(range(len(whole)), 60), len(whole) - 1]:
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        if _unpacked(changed) == _unpacked(whole):
            continue  # bits of the compression that fill up a byte mean nothing
        file.write_bytes(changed)
        with pytest.raises(Refused, match=r"Nothing was imported|not a bundle"):
            import_runs(away, file)
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(Refused, match=r"Nothing was imported|not a bundle"):
            import_runs(away, file)
    file.write_bytes(whole + b"more")
    with pytest.raises(Refused):
        import_runs(away, file)
    with away.connected() as db:
        assert db.list_collection_names() == []
    assert [path for path in away.artifacts.rglob("*") if path.is_file()] == []
    file.write_bytes(whole)
    assert import_runs(away, file).runs[0].new


def test_a_bundle_whose_index_was_made_to_fit_is_refused_for_what_it_says(train, home, there, tmp_path: Path) -> None:
    """Digests prove that nothing was changed by accident; anybody can make a bundle, so its content is checked, too."""
    run = train()
    file = _bundle(home, tmp_path / "runs.yard", run.id)
    (tmp_path / "unpacked").mkdir()
    members = dict(unpack_archive(file, FORMAT, tmp_path / "unpacked").members)
    name = f"runs/{run.recorded['uuid']}.json"
    model = f"blobs/{run.model_sha256}"
    away = there()

    def refused(why: str, **changes: bytes) -> None:
        forged = dict(members)
        for number, (member, content) in enumerate(changes.items()):
            forged[member] = tmp_path / f"forged-{number}"
            forged[member].write_bytes(content)
        write_archive(file, FORMAT, forged)
        with pytest.raises(Refused, match=why):
            import_runs(away, file)

    text = members[name].read_text()
    index = members[model].read_bytes()
    lines = index.splitlines(keepends=True)
    outside = b"".join([*lines[:-1], lines[-1][:66] + b"../../outside\n"])
    digest = hashlib.sha256(outside).hexdigest()
    refused("nobody knows what", **{"elsewhere/x": b""})
    refused("nobody knows what", **{f"blobs/{'0' * 64}": b"x"})
    refused("another one than it is called", **{name: text.replace(run.recorded["uuid"], "20200101-000000-x").encode()})
    refused("cannot be read", **{name: b"{"})
    refused("lacks", **{name: b"{}"})
    refused("had not ended", **{name: text.replace('"COMPLETED"', '"RUNNING"').encode()})
    table = hashlib.sha256(bytes(range(256))).hexdigest()
    refused("222222222222 of the run .* is not in it", **{name: text.replace(table, "2" * 64).encode()})
    refused("a file named '../../outside'", **{name: text.replace(run.model_sha256, digest).encode(),
                                               f"blobs/{digest}": outside})  # fmt: skip
    frame = run.recorded["datasets"]["train"]["sha256"]
    refused("other data than it is called", **{name: text.replace(frame, "1" * 64).encode()})
    with away.connected() as db:
        assert db.list_collection_names() == []
    assert not list(tmp_path.rglob("outside"))


def test_an_archive_holds_what_its_index_says_and_no_links(tmp_path: Path) -> None:
    def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> Path:
        raw = io.BytesIO()
        with gzip.GzipFile("", "wb", 1, raw, 0) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
            for info, content in entries:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        (tmp_path / "x.yard").write_bytes(raw.getvalue())
        return tmp_path / "x.yard"

    def index(size: int = 1, kind: str = "k") -> tuple[tarfile.TarInfo, bytes]:
        facts = {"a": {"bytes": size, "sha256": hashlib.sha256(b"x").hexdigest()}}
        return tarfile.TarInfo("index.json"), json.dumps({"format": kind, "members": facts}).encode()

    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    into = tmp_path / "into"
    for why, entries in {
        "where its index has a": (index(), (link, b"")),
        "where its index has a, ": (index(), (tarfile.TarInfo("../a"), b"x")),
        "another size": (index(2), (tarfile.TarInfo("a"), b"x")),
        "sha256 differs": (index(), (tarfile.TarInfo("a"), b"y")),
        "more than its index": (index(), (tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("b"), b"x")),
        "it says it holds": (index(2**60), (tarfile.TarInfo("a"), b"x")),
        "reads 'k'": (index(kind="other"), (tarfile.TarInfo("a"), b"x")),
        "where its index has index.json": ((tarfile.TarInfo("a"), b"x"),),
    }.items():
        into.mkdir()
        with pytest.raises(Refused, match=why):
            unpack_archive(archive(*entries), "k", into)
        shutil.rmtree(into)
    into.mkdir()
    assert unpack_archive(archive(index(), (tarfile.TarInfo("a"), b"x")), "k", into).members["a"].read_bytes() == b"x"


def test_runs_that_cannot_be_exported_are_refused(train, home: Home, tmp_path: Path, db) -> None:
    run = train(model=False)
    file = tmp_path / "runs.yard"
    with pytest.raises(NotFound, match="no run 77"):
        export_runs(home, [run.id, 77], file)
    db.runs.update_one({"_id": run.id}, {"$set": {"status": "RUNNING"}})
    with pytest.raises(Refused, match="still runs"):
        export_runs(home, [run.id], file)
    db.runs.update_one({"_id": run.id}, {"$set": {"status": "COMPLETED"}})
    data = home.files.data_file(run.recorded["datasets"]["table"]["sha256"])
    data.write_bytes(b"changed")
    with pytest.raises(Refused, match="does not hold what it is named for"):
        export_runs(home, [run.id], file)
    data.unlink()
    assert "the data table" in export_runs(home, [run.id], file).missing[0]
    assert [path.name for path in tmp_path.glob("*.yard*")] == ["runs.yard"]
    with pytest.raises(NotFound, match="no file"):
        import_runs(home, tmp_path / "nothing")


def test_a_run_of_plain_sacred_gets_a_name_from_its_content(mongo_url: str, home: Home, there, tmp_path) -> None:
    ex = sacred.Experiment("plain", interactive=True, save_git_info=False)
    client: MongoClient[dict] = MongoClient(mongo_url)
    ex.observers.append(MongoObserver(client=client, db_name=home.database))

    @ex.main
    def main(_run, seed):  # noqa: ARG001
        _run.log_scalar("loss", 0.5)
        _run.log_scalar("loss", 0.25)
        _run.info["sweep"] = "my own"
        ex.add_artifact(__file__, "me.py")
        return 7

    for _ in range(2):
        ex.run(options={"--capture": "sys"})
    client.close()
    file = _bundle(home, tmp_path / "runs.yard", 1, 2)
    away = there()
    import_runs(away, file)
    with away.connected() as other:
        copy = RunStore(other).get(2)
        assert copy.recorded["uuid"].startswith("plain-")
        assert copy.metrics["loss"] == {"name": "loss", "last": 0.25, "min": 0.25, "max": 0.5, "points": 2}
        assert RunStore(other).curves(2)["loss"].values == [0.5, 0.25]
        assert copy.result == {"result": 7}
        assert copy.recorded["imported"]["sweep"] == "my own"
    assert _artifact(away, 2, "me.py") == Path(__file__).read_bytes()
    assert [run.new for run in import_runs(away, file).runs] == [False, False]
    assert [(run.id, run.new) for run in import_runs(home, file).runs] == [(1, False), (2, False)]
    assert _bundle(away, tmp_path / "back.yard", 1, 2).read_bytes() == file.read_bytes()
