"""Asking: what every kind of model becomes once it is loaded."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

# (table, methods) -> one array per method, each as long as the table: a DataFrame, or the array of its values where
# `golden.check` has seen that it is answered the same
Ask = Callable[[Any, Sequence[str]], list[Any]]


class Loader(Protocol):
    """A module of this package: the name of the one file it loads, how large that may be, and how it is loaded."""

    @property
    def FILE(self) -> str: ...

    @property
    def MAX_BYTES(self) -> int: ...

    def load(self, content: bytes) -> Ask: ...


def methods_of(estimator: Any) -> Ask:
    """Ask an object that has the methods themselves."""
    return lambda table, methods: [getattr(estimator, method)(table) for method in methods]
