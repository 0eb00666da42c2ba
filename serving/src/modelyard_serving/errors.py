"""What can go wrong while serving; each text says what happened and what to do next."""


class ServingError(Exception):
    """Base of every error this package raises on purpose."""


class NotFound(ServingError):
    """A deployment, endpoint, variant, key or prediction that nobody knows."""


class Refused(ServingError):
    """Asked for something the rules do not allow; nothing was changed."""


class Unavailable(ServingError):
    """A part that is needed does not answer: MongoDB, Envoy, a port, a process."""


# What MLflow calls a refusal, by the status of HTTP that it comes with: the model's own, and the gateway's before it.
MLFLOW_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
MLFLOW_OTHERWISE = "BAD_REQUEST"
