"""Charts as SVG, drawn here: lines with bands over time, and ranges on a scale. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

WIDTH, HEIGHT = 680, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 12, 34
# Okabe and Ito: told apart by who sees few colours, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time; None where there is none yet, and a band around them where there is one."""

    name: str
    colour: str
    values: Sequence[float | None]
    bands: Sequence[tuple[float, float] | None]


def over_time(title: str, moments: Sequence[datetime], lines: Sequence[Line]) -> str:
    """Lines with their bands over time."""
    known = [value for line in lines for value in line.values if value is not None]
    known += [end for line in lines for band in line.bands if band for end in band]
    if not known or len(moments) < 2:
        return _nothing(title)
    low, high = _bounds(min(known), max(known))
    places = [_LEFT + (WIDTH - _LEFT - _RIGHT) * n / (len(moments) - 1) for n in range(len(moments))]

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))

    parts = [_grid(y(tick), _short(tick)) for tick in _ticks(low, high)]
    form = "%H:%M:%S" if (moments[-1] - moments[0]).total_seconds() < 600 else "%m-%d %H:%M"
    for number, anchor in ((0, "start"), (len(moments) // 2, "middle"), (len(moments) - 1, "end")):
        parts.append(_text(places[number], HEIGHT - 10, moments[number].strftime(form), anchor))
    for line in lines:
        band = [(x, ends) for x, ends in zip(places, line.bands, strict=True) if ends]
        if len(band) > 1:
            edge = [f"{x:.1f},{y(ends[1]):.1f}" for x, ends in band]
            edge += [f"{x:.1f},{y(ends[0]):.1f}" for x, ends in reversed(band)]
            parts.append(f"<polygon points='{' '.join(edge)}' fill='{line.colour}' opacity='0.15'/>")
        points = [f"{x:.1f},{y(v):.1f}" for x, v in zip(places, line.values, strict=True) if v is not None]
        parts.append(f"<polyline points='{' '.join(points)}' fill='none' stroke='{line.colour}' stroke-width='2'/>")
    return _svg(title, parts, HEIGHT)


def ranges(title: str, rows: Mapping[str, tuple[str, Sequence[float]]], unit: str) -> str:
    """A line from the least to the greatest of a row's values, with a dot at each, on a logarithmic scale."""
    known = [value for _, values in rows.values() for value in values if value > 0]
    if not known:
        return _nothing(title)
    low, high = math.log10(min(known)) - 0.08, math.log10(max(known)) + 0.08
    height = _TOP + 34 * len(rows) + _BOTTOM

    def x(value: float) -> float:
        return 150 + (WIDTH - 150 - 40) * (math.log10(max(value, 1e-9)) - low) / (high - low)

    parts = []
    for number, (name, (colour, values)) in enumerate(rows.items()):
        y = _TOP + 34 * number + 20
        parts.append(_text(140, y + 4, name, "end"))
        ends = f"x1='{x(min(values)):.1f}' x2='{x(max(values)):.1f}' y1='{y}' y2='{y}'"
        parts.append(f"<line {ends} stroke='{colour}' stroke-width='3' opacity='0.5'/>")
        for value in values:
            parts.append(f"<circle cx='{x(value):.1f}' cy='{y}' r='5' fill='{colour}'/>")
            parts.append(_text(x(value), y - 9, _short(value), "middle"))
    parts.append(_text(WIDTH - 40, height - 8, unit, "end"))
    return _svg(title, parts, height)


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    head = f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(title, quote=True)}'>"
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>"


def _nothing(title: str) -> str:
    return _svg(title, [_text(WIDTH / 2, 40, "nothing to draw yet", "middle")], 70)


def _grid(y: float, label: str) -> str:
    ends = f"x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'"
    return f"<line class='grid' {ends}/>{_text(_LEFT - 8, y + 4, label, 'end')}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(text)}</text>"


def _bounds(low: float, high: float) -> tuple[float, float]:
    space = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - space), high + space


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the bounds, about five."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
