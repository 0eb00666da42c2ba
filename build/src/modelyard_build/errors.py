"""What can go wrong while building; each text says what happened and what to do next."""


class BuildError(Exception):
    """Base of every error this package raises on purpose."""


class Refused(BuildError):
    """A check said no: the bento is not to be used."""


class Unavailable(BuildError):
    """A tool or a package that the build needs cannot be had."""
