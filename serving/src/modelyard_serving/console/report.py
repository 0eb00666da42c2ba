"""Results as a page: one file that asks nothing of the network, runs no script, and says in words what they come to."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from pymongo.database import Database

from modelyard_serving.console.charts import COLOURS, Line, over_time, ranges
from modelyard_serving.console.evidence import gather
from modelyard_serving.console.results import Comparison, Results, VariantResult, count_unmatched, summarise
from modelyard_serving.console.timeline import Timeline, timeline

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1080px;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}.at{opacity:.7;margin:.2rem 0 1.5rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
table.words :last-child{text-align:left}th{font-weight:600;font-size:.85rem;opacity:.8}
.note{background:var(--soft);border-left:4px solid var(--line);padding:.6rem .9rem;margin:.7rem 0;border-radius:4px}
.alarm{border-color:#c22;background:#c221;font-weight:600}.good{border-color:#009e73}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:1.5rem}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:.8rem}figcaption{font-weight:600}
figcaption small{font-weight:400;opacity:.75;display:block}
svg{width:100%;height:auto}
svg text{font-size:12px;fill:currentColor;opacity:.75}svg .grid{stroke:currentColor;opacity:.13}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}
.legend{font-size:.85rem;margin-top:.3rem}
.legend span{margin-right:1.2em}small{opacity:.75}
"""


def report(db: "Database[dict[str, Any]]", endpoint: str, at: datetime | None = None) -> str:
    """The page of an endpoint, as of now."""
    at = at or datetime.now(UTC)
    evidence = gather(db, endpoint, times=True)
    found = summarise(evidence, endpoint, at, count_unmatched(db, at))
    return page(found, timeline(db, endpoint, evidence.asked, at))


def page(found: Results, course: Timeline) -> str:
    """Results and their course as HTML. Pure."""
    names = sorted(
        {row.variant for row in (*found.variants, *found.shadows)}, key=lambda name: (name != "champion", name)
    )
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    parts = [
        f"<h1>{escape(found.endpoint)}</h1><p class=at>Results as of {found.at:%Y-%m-%d %H:%M} UTC. "
        "Intervals are 95 %, over units.</p>",
        _ratio_note(found),
        *(_comparison_note(compared) for compared in found.comparisons),
        "<h2>Variants</h2>",
        _variants_table(found.variants, colours) if found.variants else "<p>No unit has been answered yet.</p>",
    ]
    if found.moved_units:
        parts.append(
            f"<p><small>{found.moved_units:,} units met more than one variant, since the split was changed. "
            "They are in the table above and not in the comparison.</small></p>"
        )
    parts += ["<h2>Course</h2>", _charts(found, course, colours)]
    if found.shadows:
        parts += ["<h2>Shadows</h2><p><small>Their answers were recorded and never returned.</small></p>"]
        parts.append(_variants_table(found.shadows, colours))
    parts += ["<h2>Units and the split</h2>", _ratio_table(found), "<h2>Feedback</h2>", _feedback_table(found)]
    title = f"<title>{escape(found.endpoint)}: results</title>"
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head += f"{title}<style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"


def _ratio_note(found: Results) -> str:
    ratio = found.sample_ratio
    if ratio.alarm:
        return f"<p class='note alarm' role=alert>Sample ratio: {escape(ratio.said)}.</p>"
    return f"<p class='note{'' if ratio.p is None else ' good'}'>Sample ratio: {escape(ratio.said)}.</p>"


def _comparison_note(compared: Comparison) -> str:
    who = f"{compared.variant} (version {compared.version}) against {compared.base} (version {compared.base_version})"
    if compared.difference is None or compared.interval is None:
        return f"<p class=note><b>{escape(who)}:</b> not enough to say. {escape(compared.not_enough.capitalize())}.</p>"
    low, high = compared.interval
    said = "the interval holds zero: no difference is shown" if low <= 0 <= high else "the interval is beyond zero"
    return (
        f"<p class=note><b>{escape(who)}:</b> mean reward {compared.difference:+.4f} "
        f"({low:+.4f} to {high:+.4f}), over {compared.units:,} units; {said}.</p>"
    )


def _variants_table(rows: Sequence[VariantResult], colours: dict[str, str]) -> str:
    heads = (
        "variant", "version", "units", "predictions", "refused", "failures", "error rate", "feedback", "mean reward",
        "95 % interval", "p50 ms", "p95 ms", "p99 ms",
    )  # fmt: skip
    return _table(
        heads,
        (
            (
                f"<span class=dot style='background:{colours[row.variant]}'></span>{escape(row.variant)}",
                str(row.version),
                *(f"{number:,}" for number in (row.units, row.predictions, row.refused, row.failures)),
                f"{row.error_rate:.2%}",
                f"{row.feedback:,}",
                "" if row.mean_reward is None else f"{row.mean_reward:.4f}",
                "{:.4f} to {:.4f}".format(*row.reward_interval)
                if row.reward_interval
                else f"<small>{escape(row.not_enough)}</small>",
                *("" if ms is None else f"{ms:.1f}" for ms in (row.p50_ms, row.p95_ms, row.p99_ms)),
            )
            for row in rows
        ),
    )


def _charts(found: Results, course: Timeline, colours: dict[str, str]) -> str:
    rewards = [
        Line(name, colours[name], [e.value for e in of.rewards], [e.interval for e in of.rewards])
        for name, of in course.courses.items()
    ]
    units = [
        Line(name, colours[name], list(map(float, of.units)), [None] * len(of.units))
        for name, of in course.courses.items()
    ]
    shown = [row for row in (*found.variants, *found.shadows) if row.p50_ms is not None]
    speeds = {
        f"{row.variant} {row.version}": (
            colours[row.variant],
            [ms for ms in (row.p50_ms, row.p95_ms, row.p99_ms) if ms],
        )
        for row in shown
    }
    legend = "".join(
        f"<span><span class=dot style='background:{colours[name]}'></span>{escape(name)}</span>"
        for name in course.courses
    )
    legend = f"<div class=legend>{legend}</div>"
    mean = over_time("Mean reward until then", course.moments, rewards)
    met = over_time("Units until then", course.moments, units)
    return (
        "<div class=charts>"
        f"<figure><figcaption>Mean reward until then<small>by the time of the prediction; "
        f"bands are 95 % intervals</small></figcaption>{mean}{legend}</figure>"
        f"<figure><figcaption>Units until then<small>when each was first met</small></figcaption>{met}{legend}</figure>"
        "<figure><figcaption>Latency<small>p50, p95 and p99 inside the runtime</small></figcaption>"
        f"{ranges('Latency', speeds, 'ms')}</figure></div>"
    )


def _ratio_table(found: Results) -> str:
    rows = []
    for epoch in found.sample_ratio.epochs:
        total = sum(epoch.units.values())
        for variant, units in epoch.units.items():
            wanted = None if epoch.shares is None else epoch.shares.get(variant, 0.0)
            rows.append(
                (
                    "not named" if epoch.epoch is None else str(epoch.epoch),
                    escape(variant),
                    f"{units:,}",
                    f"{units / total:.2%}",
                    "not known" if wanted is None else f"{wanted:.2%}",
                    "not tested" if epoch.p is None else f"{epoch.p:.3g}",
                )
            )
    return _table(("epoch", "variant", "units", "their share", "share of the split", "p of the epoch"), rows)


def _feedback_table(found: Results) -> str:
    said = found.feedback
    rows = (
        ("counted", said.counted, ""),
        ("late", said.late, f"more than {said.window_days} days after the prediction"),
        ("unusable", said.unusable, "the prediction was not answered, or the truth has another length than the answer"),
        ("foreign", said.foreign, "of another caller's prediction, by a key without a scope for it"),
        ("duplicates", said.duplicates, "said again, in the same words"),
        ("contradictions", said.contradictions, "said otherwise before; the first stays"),
        ("unmatched", said.unmatched, "of all endpoints: no audit record has come for it"),
    )
    cells = ((name, f"{number:,}", escape(what)) for name, number, what in rows)
    return _table(("", "number", "what it is"), cells, "words")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table class='{kind}'><tr>{head}</tr>{body}</table>"
