"""The uploader: a process beside the training that brings every run of a spool to MongoDB, and files to a shared store.

A process, not a thread: it takes no time from the training, and it outlives it. So it also sees a training process
die, uploads what that one had written, and marks its run DIED. One uploader serves one spool; it is started by the
first run and ends when there is nothing left to do. If it is killed, the next heartbeat of a run starts another.
"""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard_tracking.recording.spool import try_lock
from modelyard_tracking.storing.sharer import Sharer

if TYPE_CHECKING:
    from modelyard_tracking.recording.spool import RunFolder
    from modelyard_tracking.recording.upload import RunUpload
    from modelyard_tracking.store import Home

log = logging.getLogger(__name__)

LOCK = "uploader.lock"  # held by the uploader for as long as it runs; its process number is inside
POLL_S = 0.05
IDLE_S = 3.0  # without a run, it ends
GIVE_UP_S = 20.0  # without a database and without a living run, it ends; the spool stays
WITHOUT_START_S = 60.0  # a folder that no run was ever begun in is rubbish


def ensure_uploader(home: "Home") -> None:
    """Start the uploader of this spool unless it runs."""
    home.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    with try_lock(home.spool / LOCK, fcntl.LOCK_SH) as nobody:
        if not nobody:
            return
    # It forks; the first process ends when the lock is held. The address goes through a pipe: it may hold a password.
    command = [sys.executable, "-P", "-m", "modelyard_tracking.recording.uploader"]
    try:
        with (home.spool / "uploader.log").open("ab") as out:
            subprocess.run(
                command,
                input=json.dumps(home.to_json()).encode(),
                stdout=out,
                stderr=out,
                cwd=home.spool,
                check=True,
                timeout=60,
                start_new_session=True,
            )
    except (OSError, subprocess.SubprocessError) as error:  # no reason to end a training: the run is in the spool
        log.warning("The uploader does not start: %s. See %s", error, home.spool / "uploader.log")


def stop_uploader(spool: Path) -> None:
    """End the uploader of this spool, if one runs; what is left stays in the spool."""
    with try_lock(spool / LOCK, fcntl.LOCK_SH) as nobody, suppress(OSError, ValueError):
        if not nobody:
            os.kill(int((spool / LOCK).read_text()), signal.SIGTERM)


def upload_all(home: "Home", on_run: Callable[["RunFolder", int | None], object] = lambda *_: None) -> int:
    """Upload every run of the spool whose training has ended; gives how many could not be.

    Raises:
        Unavailable: MongoDB does not answer.
    """
    from modelyard_tracking.recording.spool import Spool
    from modelyard_tracking.recording.upload import RunUpload, mark_died, prepare

    left = 0
    with home.connected() as db:
        prepare(db)
        mark_died(db)
        for folder in Spool(home.spool).runs():
            if folder.is_live() or not folder.exists:
                continue
            with folder.uploading() as mine:
                if not mine:
                    left += 1
                    continue
                upload = RunUpload(folder, db)
                if upload.step():
                    folder.remove()
                on_run(folder, upload.run_id)
    return left


class _Uploader:
    def __init__(self, home: "Home") -> None:
        self.home = home
        self.uploads: dict[str, RunUpload] = {}
        self.broken: set[str] = set()
        self.busy_at = self.reached_at = time.monotonic()
        self.looked_for_dead_at = 0.0
        self.retry_at = 0.0
        self.sharer = Sharer(home.files) if home.shared else None

    def run(self) -> None:
        from pymongo.errors import OperationFailure, PyMongoError

        from modelyard_tracking.errors import Unavailable
        from modelyard_tracking.recording.spool import Spool
        from modelyard_tracking.recording.upload import prepare

        spool = Spool(self.home.spool)
        db: Any = None
        if self.sharer is not None:
            self.sharer.start()
        while True:
            folders = [folder for folder in spool.runs() if folder.uuid not in self.broken]
            now = time.monotonic()
            if folders or (self.sharer is not None and self.sharer.busy(GIVE_UP_S)):
                self.busy_at = now
            if now - self.busy_at > IDLE_S:
                return
            if now >= self.retry_at:
                try:
                    if db is None:
                        db = self.home.connect()
                        prepare(db)
                    self.visit(folders, db)
                    self.reached_at = time.monotonic()
                except (Unavailable, PyMongoError) as error:
                    self.retry_at = time.monotonic() + 1
                    log.warning("MongoDB does not answer, or refuses: %.300r", error)
                    if isinstance(error.__cause__, OperationFailure):  # a wrong login: the next one comes with another
                        return
                    if now - self.reached_at > GIVE_UP_S and not any(folder.is_live() for folder in folders):
                        return
            time.sleep(POLL_S)

    def visit(self, folders: "list[RunFolder]", db: Any) -> None:
        from pymongo.errors import ConnectionFailure, PyMongoError

        from modelyard_tracking.recording.upload import RunUpload, mark_died

        if time.monotonic() - self.looked_for_dead_at > 10:
            mark_died(db)
            self.looked_for_dead_at = time.monotonic()
        for folder in folders:
            upload = self.uploads.get(folder.uuid) or RunUpload(folder, db)
            self.uploads[folder.uuid] = upload
            with folder.uploading() as mine:
                if not mine:
                    continue
                try:
                    done = upload.step()
                except ConnectionFailure:
                    raise
                except (PyMongoError, OSError, ValueError, KeyError, TypeError) as error:
                    # One run that cannot be stored must not keep the others from it. `yard runs push` says why again.
                    log.exception("run %s cannot be uploaded", folder.uuid)
                    del self.uploads[folder.uuid]
                    if not isinstance(error, PyMongoError) or not folder.is_live():
                        self.broken.add(folder.uuid)
                    continue
                if done:
                    folder.remove()
                    del self.uploads[folder.uuid]
                elif not upload.started and not folder.is_live() and _age_s(folder.path) > WITHOUT_START_S:
                    folder.remove()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def main() -> None:
    """Started in the folder of the spool. Who started it goes on once the lock is held: then it can be stopped."""
    order = json.loads(sys.stdin.buffer.read())
    for _ in range(5):  # somebody may hold the lock just to see whether an uploader runs
        with try_lock(Path(LOCK)) as alone:
            if alone:
                if child := os.fork():  # the lock is the child's, too
                    Path(LOCK).write_text(str(child))
                    os._exit(0)
                _upload(order)
                return
        time.sleep(0.1)


def _upload(order: dict[str, Any]) -> None:
    from modelyard_tracking.store import Home

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    _Uploader(Home.from_json(order)).run()


if __name__ == "__main__":
    main()
