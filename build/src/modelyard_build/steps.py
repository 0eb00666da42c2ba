"""Steps: what a long work does now is said, and how long each step took is kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

Say = Callable[[str], object]


class Until(StrEnum):
    """How far a build goes."""

    BENTO = "bento"
    IMAGE = "image"
    PUSH = "push"


@dataclass(frozen=True, slots=True)
class Steps:
    """`say` is told each step as it begins."""

    say: Say = lambda _: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.say(name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 3)
