"""What can go wrong while serving; each text says what happened and what to do next."""


class ServingError(Exception):
    """Base of every error this package raises on purpose."""


class NotFound(ServingError):
    """A deployment, endpoint, variant, key or prediction that nobody knows."""


class Refused(ServingError):
    """Asked for something the rules do not allow; nothing was changed."""


class Unavailable(ServingError):
    """A part that is needed does not answer: MongoDB, Envoy, a port, a process."""
