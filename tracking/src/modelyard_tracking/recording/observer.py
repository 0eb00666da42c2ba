"""The observer: what Sacred tells of a run goes to the spool first, and never makes the training wait or fail.

The documents are Sacred's own, as its MongoObserver would write them, so that Omniboard and plain pymongo code work.
"""

import json
import logging
import mimetypes
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import bson
from sacred.dependencies import get_digest
from sacred.metrics_logger import MetricsLogger
from sacred.observers import RunObserver
from sacred.run import Run
from sacred.utils import SacredInterrupt

from modelyard_tracking.errors import Refused
from modelyard_tracking.origin import PATCH_ARTIFACT
from modelyard_tracking.recording.plain import plain, plain_number
from modelyard_tracking.recording.redaction import Redactor
from modelyard_tracking.recording.spool import RunFolder, RunWriter

log = logging.getLogger(__name__)

FORMAT = "MongoObserver-0.7.0"  # the schema that these documents follow; readers look at it
MAX_DOCUMENT_BYTES = 12 * 2**20  # of the 16 MB that MongoDB allows; the rest is for what comes while the run lasts
MAX_ENTRY_BYTES = 2**20  # of one entry of `info` or `result`; a larger one becomes an artifact
MAX_RESOURCE_BYTES = 256 * 2**20  # a larger resource is recorded by name and md5 only


class Terminated(SacredInterrupt):  # type: ignore[misc]
    """SIGTERM: from docker stop, Kubernetes, or a batch system."""

    STATUS = "INTERRUPTED"


class SpoolMetrics(MetricsLogger):  # type: ignore[misc]
    """Sacred's metrics logger, with a shorter way: each point is in the spool when `log_scalar` returns."""

    def __init__(self, point: Callable[[str, Any, Any], None], others: bool) -> None:
        super().__init__()
        self._point = point
        self._others = others  # further observers want Sacred's own queue
        self._steps: dict[str, Any] = {}

    def log_scalar_metric(self, metric_name: str, value: Any, step: Any = None) -> None:
        if step is None:
            step = self._steps.get(metric_name, -1) + 1
        elif type(step) is not int:
            step = plain_number(step)
        self._steps[metric_name] = step
        self._point(metric_name, step, value if type(value) is float else plain_number(value))
        if self._others:
            super().log_scalar_metric(metric_name, value, step)


class SpoolObserver(RunObserver):  # type: ignore[misc]
    """Writes one run to the spool.

    Args:
        folder: where; made when the run starts.
        info: what the run's `info` starts with.
        patch: what was changed since the commit; kept as an artifact.
        begin: called with the folder once the start is written; gives the run's number, or None while there is none.
        beat: called at every heartbeat.
    """

    priority = 40  # before Sacred's own observers: the first one gives the run its number

    def __init__(
        self,
        folder: RunFolder,
        info: Mapping[str, Any],
        patch: bytes,
        begin: Callable[[RunFolder], int | None],
        beat: Callable[[], object],
    ) -> None:
        self.folder = folder
        self.writer: RunWriter | None = None
        self._info = info
        self._patch = patch
        self._begin = begin
        self._beat = beat
        self._redactor = Redactor()
        self._snapshot: bytes = b""
        self._run: Run | None = None
        self._filters_output = False
        self._too_large: dict[str, str] = {}  # entry of info or result -> digest of the artifact it became

    def attach(self, run: Run) -> None:
        """Take over a run's metrics before it starts."""
        self._run = run
        run._metrics = SpoolMetrics(self._point, others=len(run.observers) > 1)
        self._filters_output = run.captured_out_filter is not None

    # Sacred's events. None of them raises once the run has started: Sacred would silence this observer for good.

    def queued_event(
        self, ex_info: Any, command: str, host_info: Any, queue_time: datetime, config: Any, meta_info: Any, _id: Any
    ) -> Any:
        document = self._document(ex_info, command, host_info, config, meta_info)
        self._start({**document, "status": "QUEUED", "meta": {**document["meta"], "queue_time": queue_time}})
        self._final(lambda writer: writer.end(status="QUEUED"))
        return self._begin(self.folder) or self.folder.uuid

    def started_event(
        self, ex_info: Any, command: str, host_info: Any, start_time: datetime, config: Any, meta_info: Any, _id: Any
    ) -> Any:
        document = self._document(ex_info, command, host_info, config, meta_info)
        self._start({**document, "status": "RUNNING", "start_time": start_time})
        return self._begin(self.folder) or self.folder.uuid

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: Any, result: Any) -> None:  # noqa: ARG002
        with self._unharmed("the heartbeat"):
            if self.writer is not None:
                self.writer.flush()
                self._take_snapshot(info, result)
                if self._filters_output:  # then Sacred captures, and what is kept is what the filter let through
                    self.folder.output.write_text(captured_out, errors="replace")
                self._beat()

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._final(
            lambda writer: writer.end(status="COMPLETED", stop_time=stop_time, result=self._fit("result", result))
        )

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._final(lambda writer: writer.end(status=status, stop_time=interrupt_time))

    def failed_event(self, fail_time: datetime, fail_trace: Any) -> None:
        trace = self._redactor.everywhere(plain(fail_trace))
        self._final(lambda writer: writer.end(status="FAILED", stop_time=fail_time, fail_trace=trace))

    def artifact_event(self, name: str, filename: str, metadata: Any = None, content_type: str | None = None) -> None:
        with self._unharmed(f"the artifact {name}"):
            self._artifact(name, self._writer.keep(Path(filename)), metadata, content_type or _content_type(filename))

    def resource_event(self, filename: str) -> None:
        with self._unharmed(f"the resource {filename}"):
            path = Path(filename)
            kept = self._writer.keep(path) if path.stat().st_size <= MAX_RESOURCE_BYTES else None
            self._writer.event("resource", name=filename, md5=get_digest(filename), file=kept)

    def log_metrics(self, metrics_by_name: Any, info: Any) -> None:
        """Nothing: the points are in the spool already."""

    @property
    def _writer(self) -> RunWriter:
        if self.writer is None:
            raise Refused("The run has not started yet, or has ended.")
        return self.writer

    def _point(self, name: str, step: Any, value: Any) -> None:
        if self.writer is not None:
            self.writer.point(name, step, value)

    def _document(self, ex_info: Any, command: str, host_info: Any, config: Any, meta_info: Any) -> dict[str, Any]:
        """Sacred's document of a run.

        Raises:
            Refused: it would be larger than MongoDB allows; said before any training is done.
        """
        redact = self._redactor
        cleaned = redact.config(plain(config))
        meta = plain(meta_info)
        options = meta.get("options")
        if isinstance(options, dict) and "UPDATE" in options:
            options["UPDATE"] = redact.updates(options["UPDATE"])
        experiment = plain({key: value for key, value in dict(ex_info).items() if key != "sources"})
        info = redact.everywhere(plain(self._info))
        info["modelyard"] = {**info["modelyard"], "uuid": self.folder.uuid, "redacted": sorted(redact.names)}
        document = {
            "experiment": experiment,
            "format": FORMAT,
            "command": command,
            "host": redact.everywhere(plain(host_info)),
            "config": cleaned,
            "meta": redact.everywhere(meta),
            "resources": [],
            "artifacts": [],
            "captured_out": "",
            "info": info,
            "heartbeat": None,
        }
        if (size := _size(document)) > MAX_DOCUMENT_BYTES:
            entries = [*(("config entry", *item) for item in cleaned.items()), ("host", "host", document["host"])]
            kind, name, value = max(entries, key=lambda entry: _size({"": entry[2]}))
            raise Refused(
                f"This run's document would have {size / 2**20:.1f} MB; MongoDB takes 16. Its largest part is the "
                f"{kind} {name!r} with {_size({'': value}) / 2**20:.1f} MB.\n"
                "Put it into a file, and the file's path into the configuration:  _run.open_resource(path)"
            )
        document["experiment"]["sources"] = [
            [name, str(Path(ex_info["base_dir"]) / name)] for name, _ in ex_info.get("sources", ())
        ]
        return document

    def _start(self, document: dict[str, Any]) -> None:
        try:
            self.writer = writer = RunWriter(self.folder)
            document["experiment"]["sources"] = [
                [name, path, writer.keep(Path(path))] for name, path in document["experiment"]["sources"]
            ]
            patch = writer.keep_bytes(self._patch) if self._patch else None
        except OSError as error:
            self.close()
            self.folder.remove()
            raise Refused(
                f"The run cannot be written to the spool {self.folder.path.parent}: {error.strerror or error}.\n"
                "Make room there, or set YARD_SPOOL to a folder on another disk. Nothing was trained."
            ) from error
        writer.event("started", document=document)
        if patch:
            self._artifact(PATCH_ARTIFACT, patch, None, "text/x-diff")

    def _artifact(self, name: str, digest: str, metadata: Any, content_type: str | None) -> None:
        self._writer.event("artifact", name=name, file=digest, metadata=plain(metadata), content_type=content_type)

    def _take_snapshot(self, info: Any, result: Any) -> None:
        """Write `info` and `result` down, if they have changed."""
        for _ in range(3):
            try:
                snapshot = {"info": self._fit("info", info), "result": self._fit("result", result)}
                break
            except RuntimeError:  # the training changed a dictionary just now
                continue
        else:
            return
        encoded = bson.encode(snapshot)
        if encoded != self._snapshot:
            self._snapshot = encoded
            self._writer.event("info", **snapshot)

    def _fit(self, what: str, value: Any) -> Any:
        """`value` as it is stored; entries too large for the run's document become artifacts."""
        value = self._redactor.everywhere(plain(value))
        if not isinstance(value, dict):
            value = {"": value}
        fitting = {}
        for name, entry in value.items():
            size = _size({"": entry})
            if size > MAX_ENTRY_BYTES and name != "modelyard":
                where = self._outside(f"{what}.{name or 'value'}.json", entry)
                entry = f"<{size / 2**20:.1f} MB, {where}>"
            fitting[name] = entry
        return fitting[""] if set(fitting) == {""} else fitting

    def _outside(self, artifact: str, entry: Any) -> str:
        """Keep an entry as an artifact; says where it is."""
        try:
            digest = self._writer.keep_bytes(json.dumps(entry, default=str).encode())
        except OSError as error:
            return f"not kept: {error.strerror}"
        if self._too_large.get(artifact) != digest:
            self._too_large[artifact] = digest
            self._artifact(artifact, digest, None, "application/json")
        return f"in the artifact {artifact}"

    def _final(self, end: Callable[[RunWriter], object]) -> None:
        with self._unharmed("the end of the run"):
            if self._run is not None:
                self._take_snapshot(self._run.info, self._run.result)
        with self._unharmed("the end of the run"):
            end(self._writer)

    @contextmanager
    def _unharmed(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            log.warning("%s of run %s was not recorded: %s", what, self.folder.uuid, error)
            log.debug("%s", traceback.format_exc())

    def close(self) -> None:
        """The run is over and nothing will be printed any more."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, with its last points and a status, where nobody else handles it."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def terminate(signum: int, frame: object) -> None:  # noqa: ARG001 - the signal module passes them
        raise Terminated

    if mine:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _size(document: Mapping[str, Any]) -> int:
    return len(bson.encode(document))


def _content_type(filename: str | os.PathLike[str]) -> str | None:
    return mimetypes.guess_type(str(filename))[0]
