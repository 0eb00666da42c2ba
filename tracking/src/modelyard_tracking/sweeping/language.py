"""Language: a search space as a table in project.toml, made hyperopt expressions. `space` shows what can be written."""

import difflib
import math
from typing import Any

from modelyard_tracking.errors import Refused

_TAKES = {
    "uniform": "[low, high]",
    "quniform": "[low, high, step]",
    "loguniform": "[low, high]",
    "qloguniform": "[low, high, step]",
    "randint": "[low, high]",
    "normal": "[mean, sigma]",
    "lognormal": "[median, sigma]",
    "choice": "[option, ...]",
}


def expressions(table: dict[str, Any], source: str) -> dict[str, Any]:
    """The table as hyperopt expressions, each labelled with its dotted name.

    Raises:
        Refused: the table is wrong; every fault is named.
    """
    faults: list[str] = []
    space = {name: _expression(name, value, faults) for name, value in table.items()}
    if faults:
        raise Refused(f"{source}: [sweep.space] has faults:\n" + "\n".join(f"  {fault}" for fault in faults))
    return space


def _expression(name: str, value: Any, faults: list[str]) -> Any:
    if isinstance(value, list):
        return [_expression(f"{name}[{index}]", item, faults) for index, item in enumerate(value)]
    if isinstance(value, dict):
        kinds = sorted(_TAKES.keys() & value.keys())
        if kinds and len(value) > 1:
            others = ", ".join(key for key in value if key != kinds[0])
            faults.append(f"{name}: {kinds[0]} stands alone in its table; beside it is {others}")
        elif kinds:
            return _draw(name, kinds[0], value[kinds[0]], faults)
        elif len(value) == 1 and (close := _misspelt(*value.items())):
            faults.append(f"{name}: there is no {next(iter(value))}; did you mean {close}?")
        else:
            return {key: _expression(f"{name}.{key}", item, faults) for key, item in value.items()}
    elif not isinstance(value, str | int | float):
        faults.append(f"{name}: a date or time has no place in a configuration; put it in quotes")
    return value


def _misspelt(entry: tuple[str, Any]) -> str | None:
    key, value = entry
    close = difflib.get_close_matches(key, _TAKES, n=1, cutoff=0.75) if isinstance(value, list) else []
    return close[0] if close else None


def _draw(name: str, kind: str, given: Any, faults: list[str]) -> Any:
    """The expression of one draw; None, and a fault, where what it is given makes no sense."""
    from hyperopt import hp
    from hyperopt.pyll import scope

    if kind == "choice":
        if not isinstance(given, list) or not given:
            faults.append(f"{name}: choice takes {_TAKES[kind]}, at least one")
            return None
        return hp.choice(name, [_expression(f"{name}[{index}]", option, faults) for index, option in enumerate(given)])
    fault = _fault(kind, given)
    if fault is not None:
        faults.append(f"{name}: {kind} {fault}")
        return None
    logs = 2 if "loguniform" in kind else 1 if kind == "lognormal" else 0  # hyperopt takes these as logarithms
    drawn = getattr(hp, kind)(name, *map(math.log, given[:logs]), *given[logs:])
    return scope.int(drawn) if kind.startswith("q") and all(isinstance(number, int) for number in given) else drawn


def _fault(kind: str, given: Any) -> str | None:
    """What is wrong with the numbers of a draw."""
    count = _TAKES[kind].count(",") + 1
    if not isinstance(given, list) or len(given) != count or not all(_is_number(number) for number in given):
        return f"takes {count} numbers, {_TAKES[kind]}; this is {given!r}"
    first, second = given[:2]
    if kind in ("loguniform", "qloguniform", "lognormal") and first <= 0:
        return f"{_TAKES[kind]}: {first} is not above 0, where logarithms begin"
    if kind in ("normal", "lognormal"):
        return None if second > 0 else f"{_TAKES[kind]}: sigma is {second}, and must be above 0"
    if first >= second:
        return f"{_TAKES[kind]}: {first} is not below {second}"
    if kind == "randint" and not all(isinstance(number, int) for number in given):
        return f"{_TAKES[kind]}: takes whole numbers; this is {given!r}"
    if kind.startswith("q"):
        step = given[2]
        if step <= 0:
            return f"{_TAKES[kind]}: step is {step}, and must be above 0"
        if not all(math.isclose(bound / step, round(bound / step), abs_tol=1e-9) for bound in (first, second)):
            # hyperopt draws multiples of the step: bounds that are none would be overstepped.
            return f"{_TAKES[kind]}: {first} and {second} must be multiples of the step {step}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
