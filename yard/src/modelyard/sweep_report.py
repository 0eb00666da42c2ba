"""A sweep as a page or a picture: best so far, every trial as a line through its parameters, what mattered, the winner.

One file without outside parts: an HTML page with its drawing inside, or that drawing as PNG or SVG.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard_serving.errors import Refused
from modelyard_tracking.recording.plain import flat
from modelyard_tracking.runs import Run
from modelyard_tracking.sweeping.sweeps import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_FOR_IMPORTANCE = 10  # trials; below, what mattered is a guess
_MAX_PARAMETERS = 8


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial: its parameters by dotted name, and what it came to."""

    number: int
    run: int
    status: str
    parameters: Mapping[str, Any]
    value: float | None


def tried(sweep: Sweep, runs: Sequence[Run]) -> list[Tried]:
    found = []
    for run in runs:
        link = run.raw["info"]["sweep"]
        value = link.get("value", run.result.get(sweep.metric))
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        parameters = flat(link.get("config") or {})
        found.append(Tried(link["trial"], run.id, run.status, parameters, float(value) if known else None))
    return found


def best_so_far(trials: Sequence[Tried], direction: str) -> list[float]:
    """After each trial with a value, in the order of their numbers, the best until then."""
    better = max if direction == "max" else min
    best: list[float] = []
    for trial in trials:
        if trial.value is not None:
            best.append(better(best[-1], trial.value) if best else trial.value)
    return best


def importance(trials: Sequence[Tried]) -> dict[str, float]:
    """How much of the metric's differences each parameter explains, from 0 to 1, the largest first.

    By permutation in a random forest over the trials (Breiman, 2001): a description of these trials, not a law. Empty
    with fewer than `MIN_FOR_IMPORTANCE` of them.
    """
    scored = [trial for trial in trials if trial.value is not None]
    names = sorted({name for trial in scored for name in trial.parameters})
    if len(scored) < MIN_FOR_IMPORTANCE or not names:
        return {}
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    table = np.array([[_place(trial.parameters.get(name), name, scored) for name in names] for trial in scored])
    values = np.array([trial.value for trial in scored])
    if np.ptp(values) == 0:
        return {}
    forest = RandomForestRegressor(200, random_state=0).fit(table, values)
    drops = permutation_importance(forest, table, values, n_repeats=10, random_state=0).importances_mean.clip(0)
    total = float(drops.sum()) or 1.0
    return dict(sorted(((name, float(d) / total) for name, d in zip(names, drops, strict=True)), key=lambda p: -p[1]))


def write_report(sweep: Sweep, runs: Sequence[Run], target: Path) -> None:
    """Write the report to `target`: .html, .png or .svg.

    Raises:
        Refused: another kind of file, or a sweep without a single score.
    """
    if target.suffix not in (".html", ".png", ".svg"):
        raise Refused(f"A report is an .html, .png or .svg, not {target.name!r}.")
    trials = tried(sweep, runs)
    if not any(trial.value is not None for trial in trials):
        raise Refused(f"Sweep {sweep.id} has no trial with a score yet, so there is nothing to draw.")
    figure = _draw(sweep, trials)
    if target.suffix == ".html":
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", bbox_inches="tight")
        target.write_text(_page(sweep, trials, drawing.getvalue()))
    else:
        figure.savefig(target, bbox_inches="tight", dpi=120)


def facts(sweep: Sweep, trials: Sequence[Tried]) -> list[tuple[str, str]]:
    """What a person reads first; also in the terminal."""
    ended = sum(trial.value is not None for trial in trials)
    pairs = [
        ("sweep", f"{sweep.id} of {sweep.project}, {sweep.state}, {ended} of {sweep.trials} trials with a score"),
        ("search", f"{sweep.raw['plan']['search']}, scheduler {sweep.raw['plan']['scheduler']}, seed {sweep.seed}"),
    ]
    winner = sweep.winner
    if winner is None:
        if sweep.best_value is not None:
            pairs.append(("best so far", f"{sweep.metric} {sweep.best_value:.5g}, run {sweep.best_run}"))
        return pairs
    interval = f" ({winner.interval[0]:.5g} to {winner.interval[1]:.5g})" if winner.interval else ""
    on = "a holdout that no trial saw" if winner.on_holdout else "the same rows as in the sweep: there is no holdout"
    return [
        *pairs,
        ("winner", ", ".join(f"{name}={value}" for name, value in flat(winner.config).items())),
        (
            "sweep score",
            f"{sweep.metric} {winner.sweep_score:.5g}, the best of {winner.trials_seen}: run {winner.trial_run}",
        ),
        ("fresh score", f"{winner.fresh_score:.5g}{interval}, {len(winner.fresh)} fresh seeds, on {on}"),
        ("optimism", f"{winner.optimism:+.5g}: how much better the sweep made it look"),
        ("to promote", f"run {winner.run}, the middle one of the fresh seeds"),
    ]


def _draw(sweep: Sweep, trials: Sequence[Tried]) -> "Figure":
    from matplotlib.figure import Figure

    weights = importance(trials)
    figure = Figure(figsize=(11, 8.5))
    above = figure.add_gridspec(2, 2, height_ratios=(1, 1.3), hspace=0.35, wspace=0.3)
    _draw_best(figure.add_subplot(above[0, 0]), sweep, trials)
    _draw_importance(figure.add_subplot(above[0, 1]), weights, len(trials))
    _draw_parallel(figure.add_subplot(above[1, :]), sweep, trials, weights)
    return figure


def _draw_best(axes: "Axes", sweep: Sweep, trials: Sequence[Tried]) -> None:
    scored = [trial for trial in trials if trial.value is not None]
    axes.plot([t.number for t in scored], [t.value or 0.0 for t in scored], "o", alpha=0.5, markersize=4, label="trial")
    axes.step([t.number for t in scored], best_so_far(trials, sweep.direction), where="post", label="best so far")
    winner = sweep.winner
    if winner is not None:
        axes.axhline(winner.fresh_score, color="black", linestyle="--", linewidth=1, label="winner, fresh")
        if winner.interval:
            axes.axhspan(*winner.interval, color="black", alpha=0.1)
    axes.set(xlabel="trial", ylabel=sweep.metric, title="Best so far")
    axes.legend(fontsize=8)


def _draw_importance(axes: "Axes", weights: Mapping[str, float], trials: int) -> None:
    axes.set_title("What mattered")
    if not weights:
        axes.text(0.5, 0.5, f"{trials} trials are too few to tell", ha="center", va="center")
        axes.set_axis_off()
        return
    names = list(weights)[:_MAX_PARAMETERS][::-1]
    axes.barh(names, [weights[name] for name in names])
    axes.set_xlabel("share of what the parameters explain")


def _draw_parallel(axes: "Axes", sweep: Sweep, trials: Sequence[Tried], weights: Mapping[str, float]) -> None:
    """Each trial as a line through its parameters, coloured by its value; the best ones above the others."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scored = [trial for trial in trials if trial.value is not None]
    names = list(weights) or sorted({name for trial in scored for name in trial.parameters})
    names = names[:_MAX_PARAMETERS]
    values = [trial.value for trial in scored if trial.value is not None]
    norm = Normalize(min(values), max(values))
    colours = colormaps["viridis" if sweep.direction == "max" else "viridis_r"]
    for trial in sorted(scored, key=lambda t: (t.value or 0) * (1 if sweep.direction == "max" else -1)):
        places = [_place(trial.parameters.get(name), name, scored, scaled=True) for name in names]
        axes.plot(range(len(names)), places, color=colours(norm(trial.value or 0)), alpha=0.75, linewidth=1.2)
    for x, name in enumerate(names):
        axes.axvline(x, color="gray", linewidth=0.8)
        for place, label in _ticks(name, scored):
            axes.text(x, place, f" {label}", fontsize=7, va="center")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_title("Trials through their parameters")
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=sweep.metric, pad=0.02)


def _place(value: Any, name: str, trials: Sequence[Tried], *, scaled: bool = False) -> float:
    """A parameter's value as a number; `scaled`: between 0 and 1 over all trials, logarithmic where it spans much."""
    every = [trial.parameters[name] for trial in trials if name in trial.parameters]
    if value is None:
        return -0.08 if scaled else -1.0  # nested choices: this branch was not taken
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in every):
        kinds = sorted({str(item) for item in every})
        return kinds.index(str(value)) / max(1, len(kinds) - 1) if scaled else float(kinds.index(str(value)))
    if not scaled:
        return float(value)
    low, high = min(every), max(every)
    if low > 0 and high / low > 50:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return 0.5 if high == low else (value - low) / (high - low)


def _ticks(name: str, trials: Sequence[Tried]) -> list[tuple[float, str]]:
    every = [trial.parameters[name] for trial in trials if name in trial.parameters]
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in every)
    shown = [min(every), max(every)] if numbers else sorted({str(item) for item in every})
    return [(_place(v, name, trials, scaled=True), f"{v:.3g}" if isinstance(v, float) else str(v)[:20]) for v in shown]


def _page(sweep: Sweep, trials: Sequence[Tried], drawing: str) -> str:
    names = sorted({name for trial in trials for name in trial.parameters})
    head = "".join(f"<th>{escape(name)}</th>" for name in ("trial", "run", "status", sweep.metric, *names))
    sign = -1 if sweep.direction == "max" else 1
    ordered = sorted(trials, key=lambda t: (t.value is None, sign * (t.value or 0)))
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(_shown(cell))}</td>"
            for cell in (t.number, t.run, t.status, t.value, *(t.parameters.get(name) for name in names))
        )
        + "</tr>"
        for t in ordered
    )
    said = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts(sweep, trials))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>Sweep {sweep.id} of {escape(sweep.project)}</title>"
        "<style>body{font:15px sans-serif;margin:2em auto;max-width:1100px}th{text-align:left;padding-right:1.5em}"
        "td{padding-right:1.5em}table{border-collapse:collapse;margin:1em 0}tr:nth-child(even){background:#f4f4f4}"
        "svg{width:100%;height:auto}</style>"
        f"<h1>Sweep {sweep.id} of {escape(sweep.project)}</h1><table>{said}</table>"
        f"{drawing[drawing.index('<svg') :]}<h2>Trials, the best first</h2><table><tr>{head}</tr>{rows}</table></html>"
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
