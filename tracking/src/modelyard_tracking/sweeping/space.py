"""Space: what a sweep searches, as hyperopt expressions; from a Python file, or from a table in project.toml.

The table's language is also how every space is described, wherever it came from:

    C = { loguniform = [1e-3, 1e2] }              low and high; real values, no logarithms
    momentum = { uniform = [0.5, 0.99] }
    components = { quniform = [2, 30, 1] }        low, high, step; whole numbers, as all three are
    width = { qloguniform = [16, 512, 16] }
    data_seed = { randint = [0, 1000] }           without 1000; no order: for sizes take quniform
    shift = { normal = [0, 1] }                   mean and standard deviation
    gain = { lognormal = [1, 0.5] }               median, and standard deviation of the logarithm
    model = { choice = [{ kind = "tree", depth = { quniform = [1, 9, 1] } }, { kind = "linear" }] }
    layers = { choice = [[64], [64, 32]] }
    epochs = 20                                   anything else is a constant
"""

import difflib
import importlib.util
import math
import random
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import Project
from modelyard_tracking.recording.plain import flat, plain, plain_key
from modelyard_tracking.sweeping.expressions import (
    FINITE,
    described,
    draws,
    labels,
    literals,
    names,
    perturbed,
    size,
    values,
)
from modelyard_tracking.sweeping.language import expressions


@dataclass(frozen=True, slots=True)
class Space:
    """Configuration entries and what may be drawn for them."""

    expression: dict[str, Any]  # hyperopt expressions and constants by entry, possibly nested
    source: str  # the file it was read from

    def searcher(self, *, metric: str, mode: str, seed: int, initial: int) -> Any:
        """Ray's HyperOptSearch for this space; its first `initial` configurations are random.

        Raises:
            Refused: hyperopt does not accept the space.
        """
        with _quiet():
            from ray.tune.search.hyperopt import HyperOptSearch

            try:
                return HyperOptSearch(
                    self.expression, metric=metric, mode=mode, random_state_seed=seed, n_initial_points=initial
                )
            except Exception as error:
                raise Refused(f"{self.source}: hyperopt does not accept the space: {error!r}") from error

    def validate(self, entries: Collection[str] | None = None, samples: int = 25, seed: int = 0) -> None:
        """Draw configurations as a sweep does, and see that a trial gets, and its run records, what was meant.

        Args:
            entries: names of the experiment's configuration; not looked at where it is None.

        Raises:
            Refused: Ray makes something else of the space than hyperopt does, a value would not be recorded as it
                is, or an entry is unknown. Every fault is named.
        """
        faults = [] if entries is None else _unknown(self.expression, entries)
        # Also of options of a choice that no sample happens to take.
        faults += [fault for name in names(self.expression) for fault in _renamed(name)]
        faults += [fault for name, constant in literals(self.expression) for fault in _changed(name, constant)]
        if not faults:
            faults = [fault for drawn, meant in self._samples(samples, seed) for fault in _differing(drawn, meant)]
        if faults:
            raise Refused(f"{self.source}: the space has faults:\n" + "\n".join(f"  {text}" for text in _once(faults)))

    def describe(self) -> dict[str, Any]:
        """Each entry by its dotted name, in the table's language (see this module); plain values only."""
        return dict(described(self.expression))

    def grid(self, limit: int) -> list[dict[str, Any]]:
        """Every configuration of the space.

        Raises:
            Refused: there are more than `limit`, or infinitely many.
        """
        if endless := [f"{name} ({draw.kind})" for name, draw in draws(self.expression) if draw.kind not in FINITE]:
            raise Refused(
                f"{self.source}: a grid needs choice, randint or quniform; without end are {', '.join(endless)}.\n"
                'Change them, or set search = "random" or "tpe".'
            )
        self._check_labels("its values do not make a grid")
        count = size(self.expression)
        if count > limit:
            raise Refused(
                f"{self.source}: the grid has {count} configurations, and the sweep {limit} trials.\n"
                f"Set trials = {count}, or give the entries fewer values."
            )
        return [plain(config) for config in values(self.expression)]

    def sample(self, seed: int) -> dict[str, Any]:
        """One configuration."""
        return dict(plain(self.searcher(metric="score", mode="max", seed=seed, initial=1).suggest("0")))

    def perturbed(self, config: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        """A configuration of the space a little beside another one.

        Raises:
            Refused: an expression is used twice.
        """
        self._check_labels("its values cannot be changed one by one")
        return dict(perturbed(self.expression, dict(config), rng))

    def _check_labels(self, so: str) -> None:
        used = list(labels(self.expression))
        if len(set(used)) < len(used):
            raise Refused(f"{self.source}: an expression is used twice, so {so}. Use two.")

    def flat(self, config: dict[str, Any]) -> dict[str, Any]:
        """A configuration's values by dotted names, as columns of a table or axes of a plot."""
        return flat(config)

    def _samples(self, samples: int, seed: int) -> Iterator[tuple[Any, Any]]:
        """Configurations as Ray's searcher gives them, and as hyperopt itself evaluates the same drawn values."""
        searcher = self.searcher(metric="score", mode="max", seed=seed, initial=samples)
        with _quiet():
            from hyperopt import space_eval

            for number in range(samples):
                try:
                    drawn = searcher.suggest(str(number))
                    picked = searcher.get_state()["hyperopt_trials"].trials[-1]["misc"]["vals"]
                    meant = space_eval(self.expression, {label: at[0] for label, at in picked.items() if at})
                except Exception as error:
                    raise Refused(f"{self.source}: nothing can be drawn from the space: {error!r}") from error
                yield drawn, meant


def load_space(project: Project) -> Space:
    """The project's search space, from its file or its table.

    Raises:
        Refused: there is none, or it is wrong.
    """
    if isinstance(project.sweep.space, dict):
        with _quiet():
            return Space(expressions(project.sweep.space, "project.toml"), "project.toml")
    file = project.folder / project.sweep.space
    if not file.is_file():
        raise Refused(f"{file} is missing. It defines space(), a dictionary of hyperopt expressions.")
    spec = importlib.util.spec_from_file_location("search_space", file)
    if spec is None or spec.loader is None:
        raise Refused(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    with _quiet():
        try:
            spec.loader.exec_module(module)
            space = getattr(module, "space", lambda: None)()
        except Exception as error:
            raise Refused(f"{file} cannot be run: {error!r}") from error
    if not isinstance(space, dict) or not space:
        raise Refused(
            f"{file}: space() must give a dictionary of hyperopt expressions, such as hp.loguniform('C', -6, 4)."
        )
    return Space(space, str(file))


def _unknown(space: dict[str, Any], entries: Collection[str]) -> list[str]:
    faults = []
    for name in space:
        if name not in entries:
            close = difflib.get_close_matches(str(name), entries, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(sorted(entries))}"
            faults.append(f"{name}: the experiment has no such configuration entry; {hint}")
    return faults


def _changed(name: str, value: Any) -> Iterator[str]:
    """What of a value would be recorded as another one. hyperopt makes tuples of lists, which come back as lists."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _renamed(key)
            yield from _changed(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _changed(f"{name}[{index}]", item)
    else:
        value = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
        stored = plain(value)
        kept = type(stored) is type(value) and stored == value and isinstance(stored, str | int | float | None)
        if not kept or stored in (math.inf, -math.inf):
            yield f"{name}: {value!r} is no text, number, list or table that a run can record"


def _renamed(name: Any) -> Iterator[str]:
    if plain_key(name) != name:
        yield f"{name}: this name would be recorded as {plain_key(name)!r}"


def _differing(drawn: Any, meant: Any) -> Iterator[str]:
    if not isinstance(drawn, dict) or drawn.keys() != meant.keys():
        yield f"Ray draws {drawn!r} where hyperopt means {meant!r}; use expressions of hyperopt's hp only"
        return
    for name, value in meant.items():
        if plain(drawn[name]) != plain(value):
            yield f"{name}: Ray draws {drawn[name]!r} where hyperopt means {value!r}; use hyperopt's hp only"
        yield from _changed(name, drawn[name])


def _once(faults: list[str]) -> list[str]:
    return list(dict.fromkeys(faults))


@contextmanager
def _quiet() -> Iterator[None]:
    """hyperopt and Ray warn of their own imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
