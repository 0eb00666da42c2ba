"""Evidence for people: what an approver reads in a terminal, also one who never saw the project."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelyard.tables import fields, new_table, state_text, value_text
from modelyard_tracking.approval import Approval
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.versus import Versus

BAR_WIDTH = 41  # characters; odd, so that 0 has a place of its own
_SHOWN_INPUTS = 12


def catalog_table(entries: list[tuple[ModelVersion, Approval | None]], now: datetime | None = None) -> Table:
    """All versions: what each is, who vouches for it, how old it is."""
    table = new_table("model", "state", "aliases", "metric", "run", "requested by", "decided by", "age", "digest")
    for version, approval in entries:
        facts = approval.evidence if approval else {}
        table.add_row(
            version.ref,
            state_text(version.state),
            ", ".join(version.aliases),
            _metric(facts),
            str(version.run_id),
            approval.requested_by if approval else "",
            (approval.decided_by or "") if approval else "",
            age(version.created_at, now or datetime.now(UTC)),
            version.model_sha256[:12],
        )
    return table


def evidence_view(version: ModelVersion, approval: Approval) -> Group:
    """All there is about a version: who, when and why; gates, comparison, slices, card, digests."""
    return Group(*_parts(version, approval))


def versus_view(found: Versus) -> Group:
    """Two versions side by side."""
    first, second = found.refs
    parts: list[RenderableType] = []
    for title, entries in (("numbers", found.metrics), ("origin", found.origin), ("card", found.card)):
        table = new_table(title, first, second, "change")
        for entry in (entry for entry in entries if title != "card" or not entry.same):
            change = "" if entry.change in (None, 0) or entry.name == "run" else f"{entry.change:+.4g}"
            style = "" if entry.same else "yellow"
            table.add_row(entry.name, *(Text(value_text(value), style) for value in entry.values), change)
        if table.row_count:
            parts += [table, Text()]
    if not found.contests:
        parts.append(Text("No evaluation is recorded of both, so nothing can be compared row by row.", "dim"))
        return Group(*parts)
    table = new_table("on the same rows", first, second, f"{second} is better by", "interval", "")
    for contest in found.contests:
        name = f"{contest.evaluation} {contest.measure}".strip()
        if contest.difference is None:
            table.add_row(name, "", "", Text(contest.why_not, "yellow"), "", "")
            continue
        d = contest.difference
        interval = f"{d.low:+.4f} to {d.high:+.4f}"
        values = (f"{d.other:.4f}", f"{d.candidate:.4f}", f"{d.difference:+.4f}")
        table.add_row(name, *values, interval, interval_bar(d.low, d.difference, d.high))
    return Group(*parts, table, Text(_how(found), "dim"))


def interval_bar(low: float, value: float, high: float, limit: float | None = None, width: int = BAR_WIDTH) -> Text:
    """An interval around 0 in one line: `━` the interval, `●` its value, `│` zero, `┆` the limit it must lie above.

    The ends of the line are as far from zero as the farthest of these.
    """
    reach = max(abs(low), abs(high), abs(limit or 0.0)) or 1.0
    middle = width // 2

    def place(number: float) -> int:
        return middle + round(number / reach * middle)

    cells = ["·"] * width
    for at in range(place(low), place(high) + 1):
        cells[at] = "━"
    cells[middle] = "│" if cells[middle] == "·" else "┿"
    if limit is not None and limit != 0:
        cells[place(limit)] = "┆"
    cells[place(value)] = "●"
    worse = limit if limit is not None else 0.0
    colour = "green" if low > worse else "red" if high < worse else "yellow"
    return Text("".join(cells), colour)


def age(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that counts at least 1."""
    seconds = max(0.0, (now - then).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{math.floor(seconds / size)} {unit}"
    return f"{math.floor(seconds)} s"


def _parts(version: ModelVersion, approval: Approval) -> Iterator[RenderableType]:
    facts, card = approval.evidence, approval.evidence["card"]
    yield fields(
        [
            ("version", Text(f"{version.ref} {' '.join('@' + alias for alias in version.aliases)}".strip(), "bold")),
            ("state", state_text(approval.state)),
            ("asked by", f"{approval.requested_by}, {approval.requested_at:%Y-%m-%d %H:%M} UTC"),
            (f"{approval.state} by" if approval.decided_by else "approved by", _decision(approval)),
            *((part, card[part]) for part in ("owner", "purpose", "limitations") if card.get(part)),
        ]
    )
    yield _heading("gates")
    yield _gates(facts)
    if facts.get("comparison"):
        yield _heading("comparison with the champion")
        yield _comparison(facts["comparison"])
    if facts.get("slices"):
        yield _heading(f"slices: {facts['slices']['metric']} of {facts['slices']['evaluation']}")
        yield from _slices(facts["slices"])
    for name, said in (facts.get("evaluations") or {}).items():
        yield _heading(f"evaluation {name}: {said['rows']} rows of the data {said['data']}")
        yield fields((measure, f"{value:.4f}") for measure, value in said["measures"].items())
    if card.get("inputs"):
        yield _heading(f"inputs ({len(card['inputs'])})")
        yield _inputs(card["inputs"], version.ref)
        yield _heading("outputs")
        yield fields((entry["name"], entry["meaning"]) for entry in card["outputs"])
    yield _heading("where it comes from")
    yield fields(
        [
            ("run", facts["run_id"]),
            ("commit", f"{facts['commit']}{' (and changes, kept in the run)' if facts['dirty'] else ''}"),
            ("python", facts["python"]),
            ("model", facts["model_sha256"]),
            ("lock", facts["lock_sha256"]),
            *((f"data {name}", digest) for name, digest in facts["data"].items()),
            ("evidence", approval.evidence_sha256),
        ]
    )


def _gates(facts: Mapping[str, Any]) -> RenderableType:
    if not facts["gates"]:
        return Text("none are declared", "yellow")
    table = new_table("", "gate", "value", "must be")
    for gate in facts["gates"]:
        table.add_row(_mark(gate["passed"]), gate["metric"], value_text(gate["value"]), gate["bound"])
    return table


def _comparison(said: Mapping[str, Any]) -> RenderableType:
    if said["difference"] is None:
        return Text(f"none: {said['why_not']}", "dim")
    d = said["difference"]
    head = Text.assemble(
        _mark(said["passed"]),
        f" {said['metric']} {d['candidate']:.4f} against {d['other']:.4f} of {said['champion']}, on the same "
        f"{d['rows']} rows" + (f", {d['same']} of which count the same for both" if d["same"] else ""),
    )
    limit = said["min_difference"]
    detail = (
        f"better by {d['difference']:+.4f}, {d['confidence']:.0%} interval {d['low']:+.4f} to {d['high']:+.4f}; "
        f"it must lie above {limit:+g}"
    )
    bar = Text.assemble("worse ", interval_bar(d["low"], d["difference"], d["high"], limit), " better")
    return Group(head, Text(detail), bar)


def _slices(said: Mapping[str, Any]) -> Iterator[RenderableType]:
    table = new_table("", "slice", "rows", said["metric"], "must be")
    for part in said["judged"]:
        value = (part["why_not"] and Text(f"not judged: {part['why_not']}", "dim")) or value_text(part["score"])
        mark = Text() if part["score"] is None else _mark(part["passed"])
        table.add_row(mark, f"{part['column']} = {part['value']}", str(part["rows"]), value, said["bound"])
    yield table
    for gap in said["gaps"]:
        line = f" {gap['column']}: {gap['best']} and {gap['worst']} lie {gap['gap']:.4f} apart, "
        yield Text.assemble(_mark(gap["passed"]), line, f"at most {said['max_gap']:g} is allowed")


def _inputs(inputs: list[Mapping[str, Any]], ref: str) -> RenderableType:
    table = new_table("column", "meaning", "unit", "allowed", "in training")
    for entry in inputs[:_SHOWN_INPUTS]:
        ranges = (" to ".join(f"{end:.4g}" for end in entry[what] or ()) for what in ("range", "observed"))
        table.add_row(entry["name"], entry["meaning"], entry["unit"], *ranges)
    if len(inputs) <= _SHOWN_INPUTS:
        return table
    return Group(table, Text(f"{len(inputs) - _SHOWN_INPUTS} more:  yard models card {ref}", "dim"))


def _decision(approval: Approval) -> str:
    if approval.decided_by is None or approval.decided_at is None:
        return "nobody yet"
    return f"{approval.decided_by}, {approval.decided_at:%Y-%m-%d %H:%M} UTC: {approval.reason}"


def _metric(facts: Mapping[str, Any]) -> str:
    name = (facts.get("metric") or {}).get("name", "")
    value = (facts.get("metrics") or {}).get(name)
    return "" if value is None else f"{name} {value:.4f}"


def _how(found: Versus) -> str:
    d = next((contest.difference for contest in found.contests if contest.difference), None)
    if d is None:
        return ""
    return (
        f"{d.confidence:.0%} intervals from {d.resamples} draws of the {d.rows} rows, both versions on the same draws"
    )


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _mark(passed: bool | None) -> Text:
    if passed is None:
        return Text("-", "dim")
    return Text("✓", "green") if passed else Text("✗", "bold red")
