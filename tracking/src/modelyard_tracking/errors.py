"""What can go wrong while training and approving; each text says what happened and what to do next."""


class TrackingError(Exception):
    """Base of every error this package raises on purpose."""


class NotFound(TrackingError):
    """A project, run, sweep or model version that nobody knows."""


class Refused(TrackingError):
    """Asked for something the rules do not allow, such as approving what fails its gates; nothing was changed."""


class Unavailable(TrackingError):
    """A part that is needed does not answer: MongoDB, the registry, the disk."""
