"""What can go wrong for a caller: a base class, `CallFailed`, and one for each thing that is handled its own way."""

from collections.abc import Mapping, Sequence

from modelyard_serving.errors import ServingError


class CallFailed(ServingError):
    """Base of all of them.

    Attributes:
        status: HTTP's, or 0 where nothing was answered.
        faults: each place in the rows or the feedback that is wrong.
        retry_after_s: how long the server asked to wait, if it did.
        prediction_id: of the answer, if it has one; the operator finds the call in the audit by it.
    """

    next_step = "Look at the text above."
    retriable = False

    def __init__(
        self,
        message: str,
        status: int = 0,
        faults: Sequence[str] = (),
        retry_after_s: float | None = None,
        prediction_id: str | None = None,
    ) -> None:
        first = f"HTTP {status}: {message}" if status else message
        about = (f"prediction {prediction_id}",) if prediction_id else ()
        super().__init__("\n".join([first, *faults, *about, self.next_step]))
        self.status = status
        self.faults = list(faults)
        self.retry_after_s = retry_after_s
        self.prediction_id = prediction_id


class NotAuthenticated(CallFailed):
    """No key, or one that is expired, revoked or not of this gateway."""

    next_step = "Ask who runs the endpoint for a new key."


class NotAllowed(CallFailed):
    """The key lacks the scope, or the prediction is another caller's."""

    next_step = "Ask who runs the endpoint for a key with the scope that is named."


class BadRequest(CallFailed):
    """The request is wrong, and will be as often as it is sent; `faults` says where."""

    next_step = "Mend what is named, and send it again."


class NotFound(CallFailed):
    """There is no such endpoint or version."""

    next_step = "Look at the spelling, or ask who runs the endpoint which versions there are."


class RateLimited(CallFailed):
    """Too many requests with this key; tried again until the deadline."""

    next_step = "Send fewer requests, or more rows in each; or ask for a higher limit."
    retriable = True


class Overloaded(CallFailed):
    """The endpoint has more to do than it can; tried again until the deadline."""

    next_step = "Try again later; nothing is wrong with the request."
    retriable = True


class ServerFailed(CallFailed):
    """The endpoint failed on this request."""

    next_step = "Tell who runs the endpoint, with the prediction's id."


class GatewayFailed(ServerFailed):
    """The gateway had no answer from the endpoint (502, 504); tried again until the deadline."""

    next_step = "Try again later, and tell who runs the endpoint if it stays."
    retriable = True


class Timeout(CallFailed):
    """No answer came in time. The prediction may have been made and audited."""

    next_step = "Give it more time (timeout_s), or send fewer rows."


class ConnectionLost(CallFailed):
    """The gateway cannot be reached, or the connection broke; tried again until the deadline."""

    next_step = "Look at the address and the network."
    retriable = True


_BY_STATUS: Mapping[int, type[CallFailed]] = {
    401: NotAuthenticated, 403: NotAllowed, 404: NotFound, 429: RateLimited, 502: GatewayFailed, 503: Overloaded,
    504: GatewayFailed,
}  # fmt: skip


def error_class(status: int) -> type[CallFailed]:
    """What an answer with this status raises."""
    return _BY_STATUS.get(status, ServerFailed if status >= 500 else BadRequest)
