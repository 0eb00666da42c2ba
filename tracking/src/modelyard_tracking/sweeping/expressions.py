"""Expressions: what a hyperopt expression says, read from its graph: its draws, their bounds, all of its values.

hyperopt keeps a space as a graph of calls: `hp.uniform("x", 0, 1)` is float(hyperopt_param("x", uniform(0, 1))), and a
choice is a switch on a whole number. Everything here is a walk over that graph.
"""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelyard_tracking.recording.plain import plain

RESAMPLED = 0.25  # the share of values that are drawn anew where others are changed a little
FINITE = ("randint", "quniform", "qloguniform")  # kinds of draws with so many values and no more
_ARGUMENTS = ("low", "mu", "high", "sigma", "q")  # of hyperopt's calls, in their order


@dataclass(frozen=True, slots=True)
class Draw:
    """One number that is drawn."""

    kind: str  # hyperopt's: uniform, quniform, ...; "expression" where it is more than one call
    bounds: tuple[Any, ...] = ()  # what the call was given, in the language of `space`
    whole: bool = False  # the drawn number is made an int

    @property
    def step(self) -> Any:
        """Between two values of a finite draw."""
        return 1 if self.kind == "randint" else self.bounds[2]

    @property
    def steps(self) -> range:
        """The values of a finite draw, as multiples of its step."""
        low, high = self.bounds[:2]
        if self.kind == "randint":
            return range(low, high)
        return range(
            math.floor(low / self.step + 0.5), math.ceil(high / self.step - 0.5) + 1
        )  # hyperopt rounds what it draws

    @property
    def values(self) -> list[Any]:
        return [self._value(step) for step in self.steps]

    def nearest(self, value: float) -> Any:
        """The value next to `value` that could be drawn."""
        if self.kind in FINITE:
            return self._value(min(max(round(value / self.step), self.steps[0]), self.steps[-1]))
        if self.kind in ("uniform", "loguniform"):
            value = min(max(value, self.bounds[0]), self.bounds[1])
        return round(value) if self.whole else float(value)

    def beside(self, value: float, factor: float) -> Any:
        """The value that `factor` leads to; of a finite draw, another one than `value` where there is one."""
        changed = self.nearest(value * factor)
        if changed == value and self.kind in FINITE:
            return self.nearest(value + math.copysign(self.step, (factor - 1) * (value or 1)))
        return changed

    def _value(self, step: int) -> Any:
        value = step * self.step
        return int(value) if self.whole else float(value)


def draw_of(node: Any) -> Draw | None:
    """The draw that an expression is, if it is a single one whose bounds are constants."""
    node, whole = _apply(node), False
    while node.name in ("float", "int"):
        whole = whole or node.name == "int"
        node = node.pos_args[0]
    if node.name != "hyperopt_param":
        return None
    call = node.arg["obj"]
    given = [call.arg[name] for name in _ARGUMENTS if hasattr(call.arg.get(name), "name")]  # others are left out
    if not given or any(argument.name != "literal" for argument in given):
        return None
    bounds = [plain(argument.obj) for argument in given]
    kind = call.name
    if kind == "randint":
        return Draw(kind, (0, *bounds) if len(bounds) == 1 else tuple(bounds), True)
    logs = 2 if "loguniform" in kind else 1 if kind.endswith("lognormal") else 0  # given as logarithms
    # Of exp(log(0.001)) only the first digits are meant.
    bounds = [float(f"{math.exp(bound):.12g}") for bound in bounds[:logs]] + bounds[logs:]
    if kind.startswith("q"):
        bounds = [int(bound) if whole and float(bound).is_integer() else float(bound) for bound in bounds]
    return Draw(kind, tuple(bounds), whole)


def described(expression: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each entry in the language of `space`; tables of entries under dotted names."""
    for name, node in expression.items():
        if isinstance(node, dict) and node:
            yield from described(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _form(_apply(node))


def draws(expression: Any) -> Iterator[tuple[str, Draw]]:
    """Everything that is drawn besides choices, with its dotted name; also where a choice leads to it."""
    for name, node in _leaves("", _apply(expression)):
        if node.name != "literal":
            yield name, draw_of(node) or Draw("expression")


def names(expression: Any) -> Iterator[str]:
    """The names of entries, at every depth; those that only one option of a choice has, too."""
    node = _apply(expression)
    if node.name == "dict":
        yield from (name for name, _ in node.named_args)
    for part in node.inputs():
        yield from names(part)


def labels(expression: Any) -> Iterator[str]:
    """hyperopt's name of every draw and choice, as often as it is used."""
    node = _apply(expression)
    if node.name == "hyperopt_param":
        yield node.arg["label"].obj
    for part in node.inputs():
        yield from labels(part)


def literals(expression: Any) -> Iterator[tuple[str, Any]]:
    """Every constant, with its dotted name; those that only one option of a choice has, too."""
    for name, node in _leaves("", _apply(expression)):
        if node.name == "literal":
            yield name, node.obj


def size(expression: Any) -> int:
    """How many configurations a space has whose draws are all finite."""
    node = _apply(expression)
    match node.name:
        case "dict" | "pos_args":
            return math.prod(size(part) for _, part in _parts(node))
        case "switch":
            return sum(size(option) for option in node.pos_args[1:])
    draw = draw_of(node)
    return 1 if draw is None else len(draw.steps)


def values(expression: Any) -> list[Any]:
    """All configurations of a space whose draws are all finite; the last entry changes fastest."""
    node = _apply(expression)
    if isinstance(expression, dict):  # in the order in which they were written; a graph has them sorted
        combined = itertools.product(*(values(part) for part in expression.values()))
        return [dict(zip(expression, picked, strict=True)) for picked in combined]
    match node.name:
        case "dict":
            return values(dict(node.named_args))
        case "pos_args":
            return [list(picked) for picked in itertools.product(*(values(part) for part in node.pos_args))]
        case "switch":
            return [value for option in node.pos_args[1:] for value in values(option)]
        case "literal":
            return [node.obj]
    draw = draw_of(node)
    return draw.values if draw is not None else []


def perturbed(expression: Any, value: Any, rng: random.Random) -> Any:
    """A drawn value, changed: numbers by a fifth, or drawn anew; an option of a choice kept, or drawn anew."""
    node = _apply(expression)
    match node.name:
        case "dict" if isinstance(value, dict):
            return {name: perturbed(part, value[name], rng) for name, part in node.named_args}
        case "pos_args" if isinstance(value, list | tuple):
            return [perturbed(part, item, rng) for part, item in zip(node.pos_args, value, strict=False)]
        case "literal":
            return plain(node.obj)
        case "switch":
            chosen = next((option for option in node.pos_args[1:] if _could_give(option, value)), None)
            return _drawn(node, rng) if chosen is None or rng.random() < RESAMPLED else perturbed(chosen, value, rng)
    draw = draw_of(node)
    if draw is None or draw.kind == "randint" or isinstance(value, bool) or not isinstance(value, int | float):
        return _drawn(node, rng) if rng.random() < RESAMPLED else value  # it has no order, or none that we know
    return _drawn(node, rng) if rng.random() < RESAMPLED else draw.beside(value, rng.choice((0.8, 1.2)))


def _drawn(node: Any, rng: random.Random) -> Any:
    import numpy as np
    from hyperopt.pyll.stochastic import sample

    return plain(sample(node, rng=np.random.default_rng(rng.getrandbits(64))))


def _could_give(node: Any, value: Any) -> bool:
    """Whether an option of a choice is the one that a value came from."""
    match node.name:
        case "literal":
            return bool(plain(node.obj) == plain(value))
        case "dict":
            parts = dict(node.named_args)
            return (
                isinstance(value, dict)
                and parts.keys() == value.keys()
                and all(_could_give(part, value[name]) for name, part in parts.items())
            )
        case "pos_args":
            return (
                isinstance(value, list | tuple)
                and len(value) == len(node.pos_args)
                and all(_could_give(part, item) for part, item in zip(node.pos_args, value, strict=True))
            )
        case "switch":
            return any(_could_give(option, value) for option in node.pos_args[1:])
    return not isinstance(value, dict | list | str)


def _apply(expression: Any) -> Any:
    from hyperopt.pyll import as_apply

    return as_apply(expression)


def _parts(node: Any) -> list[tuple[str, Any]]:
    """What a table or a list is made of, with the end of its dotted name."""
    listed = [(f"[{index}]", part) for index, part in enumerate(node.pos_args)]
    return listed + [(f".{name}", part) for name, part in node.named_args]


def _leaves(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    if node.name in ("dict", "pos_args"):
        for end, part in _parts(node):
            yield from _leaves(f"{name}{end}".removeprefix("."), part)
    elif node.name == "switch":
        for option in node.pos_args[1:]:
            yield from _leaves(name, option)
    else:
        yield name, node


def _form(node: Any) -> Any:
    match node.name:
        case "literal":
            return plain(node.obj)
        case "dict":
            return {name: _form(part) for name, part in node.named_args}
        case "pos_args":
            return [_form(part) for part in node.pos_args]
        case "switch":
            options = [_form(option) for option in node.pos_args[1:]]
            picked = node.pos_args[0]
            if picked.name != "hyperopt_param" or picked.arg["obj"].name != "categorical":
                return {"choice": options}
            shares = _form(picked.arg["obj"].arg["p"])
            return {"pchoice": [list(pair) for pair in zip(shares, options, strict=True)]}
    draw = draw_of(node)
    if draw is None:
        return {"expression": " ".join(str(node).split())}
    return {draw.kind: list(draw.bounds)}
