"""Every error of the house, each with its exit code and its sentence. The one place that knows them."""

import re

from pymongo.errors import OperationFailure, PyMongoError

import modelyard_build.errors as build
import modelyard_serving.errors as serving
import modelyard_tracking.errors as tracking
from modelyard.roles import UNAUTHORIZED, action_of, refusal
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


_NOT_AUTHORIZED = re.compile(r'not authorized on \S+ to execute command \{ (\w+): "?([^", ]+)')


def exit_code(error: BaseException) -> int:
    if _forbidden(error):
        return REFUSED
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)


def sentence(error: BaseException, mongo_user: str | None = None) -> str:
    """What a person is told. `mongo_user` is who was logged in to MongoDB."""
    if not _forbidden(error):
        return str(error)
    found = _NOT_AUTHORIZED.search(str(error))
    if found is None:
        said = str(error).partition(", full error")[0]
        return f"MongoDB does not allow this: {said}. Who you are there:  yard config"
    command, collection = found.groups()
    return refusal(mongo_user, action_of(command), collection)


def _forbidden(error: BaseException) -> bool:
    return isinstance(error, OperationFailure) and error.code == UNAUTHORIZED
