"""Every error of the house, each with its exit code. The one place that knows both."""

from pymongo.errors import PyMongoError

import modelyard_build.errors as build
import modelyard_serving.errors as serving
import modelyard_tracking.errors as tracking
from modelyard.settings import SettingsError

FAILED, USAGE, NOT_FOUND, REFUSED, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (SettingsError, USAGE),
    (tracking.NotFound, NOT_FOUND),
    (serving.NotFound, NOT_FOUND),
    (tracking.Refused, REFUSED),
    (serving.Refused, REFUSED),
    (build.Refused, REFUSED),
    (tracking.Unavailable, UNAVAILABLE),
    (serving.Unavailable, UNAVAILABLE),
    (build.Unavailable, UNAVAILABLE),
    (PyMongoError, UNAVAILABLE),
    (KeyboardInterrupt, INTERRUPTED),
)

OURS = (SettingsError, tracking.TrackingError, serving.ServingError, build.BuildError, PyMongoError, OSError)


def exit_code(error: BaseException) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)
