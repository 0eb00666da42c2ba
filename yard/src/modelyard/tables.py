"""What people see: tables and lines for a terminal. Data in, rich renderables out."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from modelyard.live import LiveVariant
from modelyard.mongo_users import Address, Change, User
from modelyard.status import PartStatus, VariantStatus
from modelyard.trace import Trace
from modelyard_serving.keys import Key
from modelyard_serving.processes import ProcessState
from modelyard_tracking.compare import Comparison
from modelyard_tracking.ledger import Entry
from modelyard_tracking.recording.plain import flat
from modelyard_tracking.runs import Metric, Run
from modelyard_tracking.storing.names import is_digest
from modelyard_tracking.sweeping.sweeps import Sweep
from modelyard_tracking.sweeping.winner import Winner

if TYPE_CHECKING:
    from modelyard.garbage import Garbage

_COLOURS = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "FAILED": "red",
    "INTERRUPTED": "yellow",
    "DIED": "red",
    "QUEUED": "dim",
    "approved": "green",
    "requested": "yellow",
    "rejected": "red",
    "withdrawn": "red",
    "created": "green",
    "updated": "yellow",
    "rotated": "yellow",
    "STARTING": "yellow",
    "FATAL": "red",
    "BACKOFF": "red",
    "STOPPED": "yellow",
    "EXITED": "red",
}


def runs_table(runs: Iterable[Run], entries: Sequence[str] = ()) -> Table:
    """Runs; with their whole result, or with the named entries of result, metrics and configuration."""
    table = new_table("run", "project", "status", "started", "took", *(entries or ["result"]), "sweep", "model")
    for run in runs:
        table.add_row(
            str(run.id),
            run.experiment,
            state_text(run.status),
            _when(run.started_at),
            _seconds(run.duration_s),
            *([value_text(entry(run, name)) for name in entries] or [_numbers(run.result)]),
            str(run.sweep_id or ""),
            (run.model_sha256 or "")[:12],
        )
    return table


def findings_table(findings: Iterable[Mapping[str, Any]]) -> Table:
    """What the checks of a build found; `findings` are those of its report."""
    table = new_table("", "check", "what", "took")
    for finding in findings:
        passed, warning = finding["passed"], finding.get("severity") == "warning"
        mark = Text("✓", "green") if passed else Text("!", "yellow") if warning else Text("✗", "bold red")
        said = ": ".join(filter(None, (finding["message"], finding.get("measured", ""))))
        what = Text(said if passed else "\n".join(filter(None, (said, finding["remedy"]))))
        table.add_row(mark, finding["check"], what, _seconds(finding.get("seconds")))
    return table


def seconds_table(seconds: Mapping[str, float]) -> Table:
    """How long each step of a build took."""
    table = Table.grid(padding=(0, 2))
    for name, took in seconds.items():
        table.add_row(Text(name, "dim"), Text(f"{took:.1f} s", "dim"))
    return table


def garbage_table(found: "Garbage") -> Table:
    """What would go, the largest first."""
    table = new_table("what", "name", "size", "changed", "why", "where")
    for verdict in sorted((v for v in found.verdicts if v.goes), key=lambda v: -v.item.bytes):
        item = verdict.item
        name = item.name[:12] if is_digest(item.name) else item.name
        table.add_row(item.kind, name, size(item.bytes), f"{item.modified_at:%Y-%m-%d}", verdict.why, item.where)
    return table


def size(number: float) -> str:
    """Bytes, as people say it."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def curves_table(curves: Iterable[Metric]) -> Table:
    """One line a metric, drawn small."""
    table = new_table("metric", "points", "curve", "first", "last", "min", "max")
    for curve in curves:
        numbers = [v for v in curve.values if isinstance(v, int | float) and math.isfinite(v)]
        ends = [curve.values[0], curve.values[-1], min(numbers, default=None), max(numbers, default=None)]
        table.add_row(curve.name, str(len(curve.values)), sparkline(numbers), *(value_text(value) for value in ends))
    return table


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The shape of a curve in one line of text: the mean of each of `width` stretches, between least and greatest."""
    if len(values) < 2:
        return ""
    width = min(width, len(values))
    bounds = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    low, high = min(means), max(means)
    scale = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round((mean - low) / scale * 7)] for mean in means)


def comparison_table(comparison: Comparison, everything: bool) -> Table:
    """What differs, part by part; what is the same is only counted, unless everything is asked for."""
    table = new_table("", *(f"run {run.id}" for run in comparison.runs), "change")
    width = len(comparison.runs) + 1
    for part, entries in comparison.parts():
        table.add_row(Text(part, "bold"), *[""] * width)
        same = sum(difference.same for difference in entries)
        for difference in entries:
            if everything or not difference.same:
                change = "" if difference.change in (None, 0) else f"{difference.change:+.4g}"
                style = "" if difference.same else "yellow"
                cells = (Text(value_text(value), style) for value in difference.values)
                table.add_row(f"  {difference.name}", *cells, change)
        if same == len(entries):
            table.add_row(Text("  the same" if entries else "  nothing recorded", "dim"), *[""] * width)
        elif same and not everything:
            table.add_row(Text(f"  {same} more are the same", "dim"), *[""] * width)
    return table


def diff_text(diff: str, limit: int = 400) -> Text:
    """A diff with its lines coloured, as git does; a very long one is cut, with a word on how to see all."""
    lines = diff.splitlines()
    text = Text()
    for line in lines[:limit]:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        text.append(line + "\n", "bold" if line.startswith(("+++", "---", "diff ")) else colour)
    if len(lines) > limit:
        text.append(f"... {len(lines) - limit} lines more: --json gives all", "dim")
    return text


def entry(run: Run, name: str) -> Any:
    """What a name means of a run: its result, a metric's last value, or its configuration."""
    if name.startswith("config."):
        return flat(run.config).get(name.removeprefix("config."))
    if name in run.result:
        return run.result[name]
    if name in run.metrics:
        return run.metrics[name]["last"]
    return flat(run.config).get(name)


def winner_line(winner: Winner, metric: str) -> str:
    """What a sweep's winner is worth, in a line."""
    interval = f" ({winner.interval[0]:.4f} to {winner.interval[1]:.4f})" if winner.interval else ""
    where = "on rows no trial saw" if winner.on_holdout else "on the same rows"
    return (
        f"winner: {metric} {winner.sweep_score:.4f} as the best of {winner.trials_seen} trials; trained anew with "
        f"{len(winner.fresh)} seeds, {where}: {winner.fresh_score:.4f}{interval}; optimism {winner.optimism:+.4f}"
    )


def sweeps_table(sweeps: Iterable[Sweep]) -> Table:
    table = new_table(
        "sweep", "project", "state", "started", "trials", "metric", "best", "fresh", "optimism", "promote"
    )
    for sweep in sweeps:
        winner = sweep.winner
        table.add_row(
            f"sweep:{sweep.id}",
            sweep.project,
            state_text(sweep.state),
            _when(sweep.started_at),
            str(sweep.trials),
            sweep.metric,
            value_text(sweep.best_value),
            value_text(winner.fresh_score) if winner else "",
            f"{winner.optimism:+.4g}" if winner else "",
            f"run {winner.run}" if winner else "",
        )
    return table


def results_table(rows: Sequence[Mapping[str, Any]], shares: Mapping[str, float]) -> Table:
    table = new_table(
        "variant", "version", "share", "units", "predictions", "failures", "feedback", "mean reward", "p50 ms", "p99 ms"
    )
    for row in rows:
        reward = "" if row["mean_reward"] is None else f"{row['mean_reward']:.3f}"
        if row["reward_interval"]:
            reward += " ({:.3f} to {:.3f})".format(*row["reward_interval"])
        latency = ["" if row[key] is None else f"{row[key]:.1f}" for key in ("p50_ms", "p99_ms")]
        table.add_row(
            row["variant"],
            str(row["version"]),
            f"{shares.get(row['variant'], 0):.0%}",
            str(row["units"]),
            str(row["predictions"]),
            str(row["failures"]),
            str(row["feedback"]),
            reward,
            *latency,
        )
    return table


def trace_table(trace: Trace) -> Table:
    table = new_table("", "link", "what", "digest")
    for link in trace.links:
        mark = Text("✓", "green") if link.holds else Text("✗", "bold red")
        what = Text(link.what) if link.holds else Text(link.fault, "bold red")
        table.add_row(mark, Text(link.name, "" if link.holds else "bold red"), what, link.digest[:16])
    return table


def ledger_table(entries: Iterable[Entry]) -> Table:
    table = new_table("entry", "when", "what", "of", "by", "facts", "why", "sha256")
    for entry in entries:
        facts = Text(_said(entry))
        sha256 = Text(entry.sha256[:12], "" if entry.is_intact else "bold red")
        table.add_row(
            str(entry.number), _when(entry.at), entry.kind, entry.subject, entry.by, facts, Text(entry.reason), sha256
        )
    return table


def _said(entry: Entry) -> str:
    """What an entry says besides who and why, in a few words."""
    facts = entry.facts
    if "variants" in facts:
        variants = sorted(facts["variants"].items())
        shadow = {name: " shadow" for name, said in variants if "shadow" in said}
        return ", ".join(f"{name} {said['ref']} {said['share']:.0%}{shadow.get(name, '')}" for name, said in variants)
    if entry.kind == "promote":
        return f"{facts['before'] or 'none'} → {facts['version']}"
    if entry.kind in ("build", "push"):  # of a bento, of its image, of the image in a registry
        return str(next(facts[name] for name in ("bento", "digest", "image") if name in facts))
    return f"run {facts['run_id']}" if "run_id" in facts else ""


def live_table(variants: Iterable[LiveVariant]) -> Table:
    table = new_table("", "endpoint", "variant", "share", "version", "since", "by", "entry", "chain")
    for live in variants:
        mark = Text("✓", "green") if live.holds else Text("✗", "bold red")
        faults = [f"{link.name}: {link.fault.splitlines()[0]}" for link in live.links if not link.holds]
        chain = Text("\n".join(faults), "bold red") if faults else Text(f"{len(live.links)} links hold")
        cells = (live.endpoint, live.variant, f"{live.share:.2%}", live.ref, _when(live.since), live.by)
        table.add_row(mark, *cells, str(live.entry), chain)
    return table


def processes_table(states: Iterable[ProcessState]) -> Table:
    table = new_table("process", "state", "")
    for state in states:
        table.add_row(state.name, state_text(state.state), state.description)
    return table


def parts_table(parts: Iterable[PartStatus]) -> Table:
    """The parts of a stage of pods."""
    table = new_table("", "part", "pods ready", "restarts")
    for found in parts:
        mark = Text("✓", "green") if found.holds else Text("✗", "bold red")
        table.add_row(mark, found.name, f"{found.up} of {found.wanted}", str(found.restarts))
    return table


def variants_table(variants: Iterable[VariantStatus]) -> Table:
    """What should answer, beside what does."""
    table = new_table("", "endpoint", "variant", "share", "version", "replicas up", "since")
    for found in variants:
        mark = Text("✓", "green") if found.holds else Text("✗", "bold red")
        up = Text(f"{found.up} of {found.wanted}", "" if found.holds else "bold red")
        share = f"copies of {found.shadow:g} %" if found.shadow else f"{found.share:.2%}" if found.variant else ""
        variant = found.variant or Text("for a rollback", "dim")
        table.add_row(mark, found.endpoint, variant, share, str(found.version), up, _when(found.since))
    return table


def keys_table(keys: Iterable[Key], signing: Sequence[str]) -> Table:
    """Every key; `signing` are the signing keys that are accepted."""
    table = new_table("key", "caller", "scopes", "per second", "expires", "signed by", "state")
    for key in keys:
        state = "revoked" if key.revoked_at else "live" if key.signed_by in signing else "its signing key has ended"
        rate = "" if key.rate is None else str(key.rate)
        table.add_row(
            key.id, key.caller, " ".join(key.scopes), rate, f"{key.expires_at:%Y-%m-%d}", key.signed_by, state
        )
    return table


def roles_table(users: Iterable[User]) -> Table:
    """Every role, what it may do, and how its user in MongoDB is."""
    table = new_table("role", "may", "in MongoDB", "address")
    for user in users:
        role = user.role
        rights = (("read", role.reads), ("add", role.adds), ("change", role.changes), ("delete", role.deletes))
        may = fields((verb, " ".join(names)) for verb, names in rights if names)
        who = Group(Text(role.who, "italic"), may)
        table.add_row(Text(role.name, "bold"), who, _there(user), _address(user))
    return table


def role_changes_table(changes: Iterable[Change], users: Iterable[User]) -> Table:
    """What was done to each role, and where its address lies."""
    table = new_table("role", "", "mended", "address")
    for change, user in zip(changes, users, strict=True):
        table.add_row(change.role, state_text(change.outcome), ", ".join(change.mended), _address(user))
    return table


def _there(user: User) -> Text:
    if not user.exists:
        return Text("not made", "yellow")
    return Text(", ".join(user.deviations), "bold red") if user.drifted else Text("as declared", "green")


def _address(user: User) -> Text:
    if user.address is Address.WORKS:
        return Text(str(user.file))
    said = "not on this machine" if user.address is Address.ABSENT else f"{user.file}: not its password any more"
    return Text(said, "yellow" if user.exists else "dim")


def fields(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), value if isinstance(value, Text) else str(value))
    return grid


def new_table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("started", "created", "took", "model"))
    return table


def state_text(state: str) -> Text:
    return Text(state, _COLOURS.get(state, ""))


def _when(moment: datetime | None) -> str:
    return f"{moment.astimezone():%m-%d %H:%M:%S}" if moment else ""


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def value_text(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _numbers(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if v is not None)
