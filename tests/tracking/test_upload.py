"""From the spool to a real MongoDB, in part, twice, and after crashes: always once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import gridfs
import psutil
import pytest

from modelyard_tracking.recording import upload
from modelyard_tracking.recording.spool import RunFolder, RunWriter, Spool, try_lock
from modelyard_tracking.recording.upload import RunUpload, insert_run, mark_died, prepare, take_id
from modelyard_tracking.recording.uploader import LOCK, ensure_uploader, stop_uploader, upload_all
from modelyard_tracking.runs import RunStore


def start(home, **document) -> RunWriter:
    folder = Spool(home.spool).new()
    writer = RunWriter(folder)
    started = {
        "experiment": {"name": "churn", "sources": []},
        "config": {"lr": 0.1},
        "status": "RUNNING",
        "start_time": datetime.now(UTC),
        "info": {"modelyard": {"uuid": folder.uuid}},
        **document,
    }
    writer.event("started", document=started)
    return writer


def finish(writer: RunWriter, **document) -> RunFolder:
    writer.end(**{"status": "COMPLETED", "stop_time": datetime.now(UTC), "result": 1.0, **document})
    writer.close()
    return writer.folder


@pytest.fixture
def ready(db):
    prepare(db)
    return db


def test_a_run_arrives_once_however_often_it_is_uploaded(home, ready, tmp_path: Path) -> None:
    writer = start(home)
    artifact = tmp_path / "plot.png"
    artifact.write_bytes(b"png")
    writer.event("artifact", name="plot.png", file=writer.keep(artifact), metadata={"a": 1}, content_type="image/png")
    for step in range(100):
        writer.point("loss", step, step / 100)
    finish(writer)
    for _ in range(3):  # as if the folder had survived each upload
        upload = RunUpload(writer.folder, ready)
        assert upload.step() is True
    assert ready.runs.count_documents({}) == 1
    assert ready.metrics.count_documents({}) == 1
    assert ready.metrics.find_one()["steps"] == list(range(100))
    assert ready.fs.files.count_documents({}) == 1
    run = RunStore(ready).get(1)
    assert run.status == "COMPLETED"
    assert RunStore(ready).artifact(run, "plot.png") == b"png"
    assert len(run.raw["artifacts"]) == 1


def test_a_live_run_is_uploaded_piece_by_piece(home, ready) -> None:
    writer = start(home)
    upload = RunUpload(writer.folder, ready)
    for step in range(5):
        writer.point("loss", step, 1.0)
        upload._flushed_at = 0.0
        assert upload.step() is False
        assert ready.metrics.find_one()["steps"] == list(range(step + 1))
    assert ready.runs.find_one()["status"] == "RUNNING"
    assert ready.runs.find_one()["info"]["modelyard"]["metrics"]["loss"]["points"] == 5
    finish(writer)
    assert upload.step() is True


def test_an_uploader_can_be_stopped_from_the_moment_it_is_started(home) -> None:
    ensure_uploader(home)
    lock = home.spool / LOCK
    uploader = psutil.Process(int(lock.read_text()))
    stop_uploader(home.spool)
    assert psutil.wait_procs([uploader], timeout=20)[1] == []
    with try_lock(lock) as free:
        assert free


def test_a_second_uploader_takes_over_in_the_middle_without_a_gap_or_a_double(home, ready) -> None:
    writer = start(home)
    first = RunUpload(writer.folder, ready)
    for step in range(50):
        writer.point("loss", step, 1.0)
    first.step()
    for step in range(50, 100):
        writer.point("loss", step, 1.0)
    finish(writer)
    RunUpload(writer.folder, ready).step()  # the first one was killed
    assert ready.metrics.find_one()["steps"] == list(range(100))


def test_a_batch_whose_answer_was_lost_is_not_appended_again(home, ready) -> None:
    writer = start(home)
    upload = RunUpload(writer.folder, ready)
    writer.point("loss", 0, 1.0)
    upload.step()
    writer.point("loss", 1, 1.0)
    writer.point("acc", 0, 1.0)
    for event in upload._reader.read():
        upload._take(event)
    batch = upload._next_batch()
    ready.metrics.bulk_write([update for _, _, update in batch], ordered=False)  # it arrived, and nobody was told
    finish(writer)
    upload.step()
    assert {m["name"]: m["steps"] for m in ready.metrics.find()} == {"loss": [0, 1], "acc": [0]}


def test_a_dead_process_leaves_a_run_that_is_died_with_all_it_had_written(home, ready) -> None:
    writer = start(home)
    writer.point("loss", 0, 0.5)
    writer.folder.output.write_text("the last line\n")
    writer.close()  # without an end, as a kill does
    RunUpload(writer.folder, ready).step()
    document = ready.runs.find_one()
    assert document["status"] == "DIED"
    assert document["stop_time"] is not None
    assert document["captured_out"] == "the last line\n"
    assert ready.metrics.count_documents({}) == 1


def test_a_long_metric_goes_on_in_further_documents_and_is_read_as_one(home, ready, monkeypatch) -> None:
    monkeypatch.setattr(upload, "MAX_POINTS", 1000)
    writer = start(home)
    for step in range(2500):
        writer.point("loss", step, float(step))
    finish(writer)
    RunUpload(writer.folder, ready).step()
    assert sorted(m["name"] for m in ready.metrics.find()) == ["loss", "loss (part 2)", "loss (part 3)"]
    curve = RunStore(ready).curves(1)["loss"]
    assert curve.values == [float(step) for step in range(2500)]
    assert [entry["name"] for entry in ready.runs.find_one()["info"]["metrics"]] == [
        "loss", "loss (part 2)", "loss (part 3)",
    ]  # fmt: skip


def test_fifty_megabytes_of_output_cost_the_run_document_nothing(home, ready) -> None:
    writer = start(home)
    line = "x" * 99 + "\n"
    writer.folder.output.write_text(line * 500_000)
    finish(writer)
    RunUpload(writer.folder, ready).step()
    document = ready.runs.find_one()
    assert len(document["captured_out"]) <= upload.TAIL_BYTES
    assert document["captured_out"].startswith("x" * 99 + "\n")
    assert document["info"]["modelyard"]["output_bytes"] == 50_000_000
    assert RunStore(ready).artifact(RunStore(ready).get(1), "captured_out.txt") == (line * 500_000).encode()


def test_a_progress_bar_is_kept_as_it_was_seen_last(home, ready) -> None:
    writer = start(home)
    writer.folder.output.write_bytes(b"start\n 1%\r50%\r100%\nend\r\n")
    finish(writer)
    RunUpload(writer.folder, ready).step()
    assert ready.runs.find_one()["captured_out"] == "start\n100%\nend\r\n"


def test_the_same_source_is_stored_once_for_many_runs(home, ready, tmp_path: Path) -> None:
    source = tmp_path / "train.py"
    source.write_text("x = 1\n")
    for _ in range(3):
        folder = Spool(home.spool).new()
        writer = RunWriter(folder)
        experiment = {"name": "churn", "sources": [["train.py", str(source), writer.keep(source)]]}
        document = {"experiment": experiment, "status": "RUNNING", "info": {"modelyard": {"uuid": folder.uuid}}}
        writer.event("started", document=document)
        finish(writer)
        RunUpload(folder, ready).step()
    assert ready.fs.files.count_documents({}) == 1
    [[name, file_id]] = ready.runs.find_one()["experiment"]["sources"]
    assert (name, gridfs.GridFS(ready).get(file_id).read()) == ("train.py", b"x = 1\n")


def test_a_resource_is_stored_with_its_content(home, ready, tmp_path: Path) -> None:
    writer = start(home)
    data = tmp_path / "data.csv"
    data.write_text("a,b\n")
    writer.event("resource", name=str(data), md5="abc", file=writer.keep(data))
    finish(writer)
    RunUpload(writer.folder, ready).step()
    assert ready.runs.find_one()["resources"] == [[str(data), "abc"]]
    assert gridfs.GridFS(ready).find_one({"filename": str(data)}).read() == b"a,b\n"


def test_numbers_are_never_given_twice_also_not_beside_plain_sacred(ready) -> None:
    assert take_id(ready) == 1
    ready.runs.insert_one({"_id": 7, "status": "COMPLETED"})  # plain Sacred takes the largest and one more
    assert [take_id(ready) for _ in range(7)] == [2, 3, 4, 5, 6, 8, 9]
    ready.runs.delete_many({})
    assert take_id(ready) == 10


def test_the_first_of_our_numbers_comes_after_those_of_plain_sacred(ready) -> None:
    ready.runs.insert_one({"_id": 7, "status": "COMPLETED"})
    assert take_id(ready) == 8


def test_inserting_the_same_run_twice_gives_the_same_number(ready) -> None:
    document = {"status": "RUNNING", "info": {"modelyard": {"uuid": "20260101-a"}}}
    assert insert_run(ready, document) == insert_run(ready, document) == 1
    assert ready.runs.count_documents({}) == 1


@pytest.mark.usefixtures("ready")
def test_push_uploads_what_was_left_and_leaves_what_runs(home) -> None:
    live = start(home)
    left = [finish(start(home)) for _ in range(2)]
    told: list = []
    assert upload_all(home, lambda folder, run_id: told.append((folder.uuid, run_id))) == 0
    assert told == [(left[0].uuid, 1), (left[1].uuid, 2)]
    assert [folder.uuid for folder in Spool(home.spool).runs()] == [live.folder.uuid]
    assert upload_all(home) == 0
    live.close()


def silent(db, run_id: int, seconds: float, **document) -> None:
    heard = datetime.now(UTC) - timedelta(seconds=seconds)
    db.runs.insert_one({"_id": run_id, "status": "RUNNING", "start_time": heard, "heartbeat": heard, **document})


def test_a_run_without_a_sign_of_life_is_marked_died(ready) -> None:
    silent(ready, 1, 40, info={"modelyard": {"uuid": "a"}})
    silent(ready, 2, 10, info={"modelyard": {"uuid": "b"}})
    assert mark_died(ready) == 1
    assert [run["status"] for run in ready.runs.find().sort("_id", 1)] == ["DIED", "RUNNING"]


def test_plain_sacreds_slower_heartbeat_is_waited_for(ready) -> None:
    silent(ready, 1, 40)
    silent(ready, 2, 100)
    silent(ready, 3, 100, meta={"options": {"--beat-interval": "60"}})
    silent(ready, 4, 100, meta={"options": {"--beat-interval": None}})
    silent(ready, 5, 100, heartbeat=None)
    mark_died(ready)
    assert [run["status"] for run in ready.runs.find().sort("_id", 1)] == ["RUNNING", "DIED", "RUNNING", "DIED", "DIED"]


def test_a_run_that_was_only_cut_off_is_set_right_when_it_is_heard_again(home, ready) -> None:
    writer = start(home)
    upload = RunUpload(writer.folder, ready)
    upload.step()
    ready.runs.update_one({}, {"$set": {"status": "DIED"}})
    writer.point("loss", 0, 1.0)
    upload._flushed_at = 0.0
    upload.step()
    assert ready.runs.find_one()["status"] == "RUNNING"
    finish(writer)


def test_a_line_that_cannot_be_read_harms_no_other(home, ready) -> None:
    writer = start(home)
    with (writer.folder.path / "events.jsonl").open("ab") as file:
        file.write(b"\x00\xffgarbage\n")
    writer.point("loss", 0, 1.0)
    finish(writer)
    assert RunUpload(writer.folder, ready).step() is True
    assert ready.metrics.find_one()["values"] == [1.0]


def test_a_thousand_metrics_arrive(home, ready) -> None:
    writer = start(home)
    for name in range(1000):
        writer.point(f"m{name}.x", 0, float(name))
    finish(writer)
    RunUpload(writer.folder, ready).step()
    assert ready.metrics.count_documents({"run_id": 1}) == 1000
    assert ready.runs.find_one()["info"]["modelyard"]["metrics"]["m7,x"]["last"] == 7.0
