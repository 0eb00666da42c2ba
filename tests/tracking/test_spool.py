"""The spool: what is written there is there, whatever happens next."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelyard_tracking.recording.spool import EventReader, RunFolder, RunWriter, Spool, number


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return Spool(tmp_path / "spool").new()


def test_what_is_written_is_read_back(folder: RunFolder) -> None:
    writer = RunWriter(folder)
    writer.event("started", document={"at": datetime(2026, 1, 1, tzinfo=UTC), "x": float("nan")})
    writer.point("val.auc", 0, 0.5)
    writer.point('a "name"\n', 3, float("inf"))
    writer.end(status="COMPLETED")
    writer.close()
    started, first, second, ended = EventReader(folder).read()
    assert started["event"] == "started"
    assert started["document"]["at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert started["document"]["x"] != started["document"]["x"]
    assert first[:3] == ["val.auc", 0, 0.5]
    assert abs(first[3] - time.time()) < 60
    assert second[:2] == ['a "name"\n', 3]
    assert number(second[2]) == float("inf")
    assert (ended["status"], ended["lost_lines"]) == ("COMPLETED", 0)


def test_a_reader_goes_on_where_it_was_and_leaves_a_line_that_is_not_whole(folder: RunFolder) -> None:
    writer = RunWriter(folder)
    reader = EventReader(folder)
    writer.point("a", 0, 1.0)
    assert len(reader.read()) == 1
    assert reader.read() == []
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'["a",1,2.0')
    assert reader.read() == []
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b",0.0]\n")
    assert [point[:3] for point in reader.read()] == [["a", 1, 2.0]]
    writer.close()


def test_one_line_that_is_longer_than_a_block_is_read_whole(folder: RunFolder) -> None:
    writer = RunWriter(folder)
    writer.event("info", info={"text": "x" * 5000})
    writer.close()
    assert len(EventReader(folder).read(limit=100)[0]["info"]["text"]) == 5000


def test_folders_sort_by_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    before = datetime.now(UTC)
    folders = [spool.new() for _ in range(3)]
    for folder in reversed(folders):
        RunWriter(folder).close()
    assert [folder.uuid for folder in spool.runs()] == [folder.uuid for folder in folders]
    assert spool.runs(since=before) == spool.runs()
    assert spool.runs(since=datetime.now(UTC)) == []


def test_a_run_lives_as_long_as_its_process(folder: RunFolder) -> None:
    code = (
        "import sys, time; from pathlib import Path; from modelyard_tracking.recording.spool import *\n"
        "writer = RunWriter(RunFolder(Path(sys.argv[1]))); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        assert folder.is_live()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not folder.is_live()


def test_a_forked_child_does_not_keep_a_run_alive(folder: RunFolder) -> None:
    writer = RunWriter(folder)
    read_end, write_end = os.pipe()
    ready_end, child_end = os.pipe()
    child = os.fork()
    if child == 0:  # as a data loader's worker does
        os.close(write_end)
        os.write(child_end, b"x")
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    os.read(ready_end, 1)
    os.close(ready_end)
    os.close(child_end)
    writer.close()
    try:
        assert not folder.is_live()
    finally:
        os.close(write_end)
        os.waitpid(child, 0)


def test_a_file_that_is_kept_is_a_copy_under_its_digest(folder: RunFolder, tmp_path: Path) -> None:
    writer = RunWriter(folder)
    original = tmp_path / "model.bin"
    original.write_bytes(b"weights")
    digest = writer.keep(original)
    original.write_bytes(b"others")
    assert folder.file(digest).read_bytes() == b"weights"
    writer.close()


def test_a_folder_is_removed_in_one_step(folder: RunFolder) -> None:
    RunWriter(folder).close()
    folder.remove()
    assert not folder.path.exists()
    assert Spool(folder.path.parent).runs() == []
    assert not folder.is_live()
