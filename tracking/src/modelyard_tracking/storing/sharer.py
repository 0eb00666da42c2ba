"""Sharer: a thread of the uploader that brings what is kept here to the shared store."""

import logging
import time
from threading import Thread
from typing import TYPE_CHECKING

from modelyard_tracking.errors import TrackingError, Unavailable

if TYPE_CHECKING:
    from modelyard_tracking.store import ArtifactStore, Pending

log = logging.getLogger(__name__)

POLL_S = 0.1
LONGEST_PAUSE_S = 10.0


class Sharer(Thread):
    """Goes through `pending/` for as long as its process lives. What it is in the middle of then is begun again."""

    def __init__(self, files: "ArtifactStore") -> None:
        super().__init__(name="sharer", daemon=True)
        self._files = files
        self._failing_since: float | None = None
        self._refused: set[tuple[str, str]] = set()

    def busy(self, patience_s: float) -> bool:
        """Is there something to bring, and did the last `patience_s` seconds not all fail?"""
        failing = self._failing_since
        return (failing is None or time.monotonic() - failing < patience_s) and bool(self._waiting())

    def run(self) -> None:
        pause_s = POLL_S
        while True:
            time.sleep(pause_s)
            pause_s = POLL_S
            for waiting in self._waiting():
                try:
                    self._files.bring(waiting)
                    self._failing_since = None
                except Unavailable as error:
                    log.warning("the shared store: %s", error)
                    self._failing_since = self._failing_since or time.monotonic()
                    pause_s = min(LONGEST_PAUSE_S, 1 + time.monotonic() - self._failing_since)
                    break
                except (TrackingError, OSError) as error:  # no reason to keep the others from it
                    log.warning("%s %s is not shared: %s", waiting.kind, waiting.digest, error)
                    self._refused.add((waiting.kind, waiting.digest))

    def _waiting(self) -> "list[Pending]":
        return [entry for entry in self._files.pending() if (entry.kind, entry.digest) not in self._refused]
