"""What every door has: it reads a body into rows, writes answers into a body, and refuses in its own words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from modelyard_serving.manifest import Manifest


class Headers:
    """A request's headers, each decoded when it is asked for."""

    __slots__ = ("raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.raw = dict(raw)  # ASGI gives names in lower case

    def get(self, name: str, default: str = "") -> str:
        value = self.raw.get(name.encode())
        return default if value is None else value.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    body: bytes
    headers: Headers
    path: Mapping[str, str]  # what the address itself says, such as a model's name


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, by the names of `METHODS`; each list is as long as the rows."""

    prediction_id: str
    manifest: Manifest
    values: Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A body, and what belongs to it."""

    content: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Any) -> "Reply":
        return cls(orjson.dumps(document))


class Question(Protocol):
    """Rows, not yet checked against the model's inputs, and how whoever sent them wants the answer.

    A row is what the caller sent; or, where the door itself has put values into the declared order, a tuple.
    """

    @property
    def rows(self) -> list[Any]: ...

    def methods(self, manifest: Manifest) -> tuple[str, ...]: ...

    def reply(self, answer: Answer) -> Reply: ...


class Door(Protocol):
    """A module of this package.

    `parse` raises BadRequest for what is no question in this door's form. What `refuse` gives says the same
    for every cause: too large, not this model's, the model's own failure.
    """

    @property
    def NAME(self) -> str: ...

    def parse(self, asked: Asked, manifest: Manifest) -> Question: ...

    def refuse(self, status: int, message: str, faults: Sequence[str] = ()) -> Reply: ...


def in_one_line(message: str, faults: Sequence[str]) -> str:
    """For bodies that have room for one text only."""
    return f"{message}: {'; '.join(faults)}" if faults else message
