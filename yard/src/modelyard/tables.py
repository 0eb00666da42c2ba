"""What people see: tables and lines for a terminal. Data in, rich renderables out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from modelyard.trace import Trace
from modelyard_serving.endpoints import Deployment, Endpoint
from modelyard_serving.keys import Key
from modelyard_serving.processes import ProcessState
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.runs import Run

_COLOURS = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "FAILED": "red",
    "INTERRUPTED": "yellow",
    "approved": "green",
    "requested": "yellow",
    "STARTING": "yellow",
    "FATAL": "red",
    "BACKOFF": "red",
    "STOPPED": "yellow",
    "EXITED": "red",
}


def runs_table(runs: Iterable[Run], metric: str | None = None) -> Table:
    table = _table("run", "project", "status", "started", "took", "result", "sweep", "model")
    for run in runs:
        result = {metric: run.result.get(metric)} if metric else run.result
        table.add_row(
            str(run.id),
            run.experiment,
            _state(run.status),
            _when(run.started_at),
            _seconds(run.duration_s),
            _numbers(result),
            str(run.sweep_id or ""),
            (run.model_sha256 or "")[:12],
        )
    return table


def models_table(versions: Iterable[ModelVersion]) -> Table:
    table = _table("model", "state", "aliases", "run", "created", "digest")
    for v in versions:
        table.add_row(
            v.ref, _state(v.state), ", ".join(v.aliases), str(v.run_id), _when(v.created_at), v.model_sha256[:12]
        )
    return table


def results_table(rows: Sequence[Mapping[str, Any]], shares: Mapping[str, float]) -> Table:
    table = _table("variant", "version", "share", "units", "predictions", "feedback", "mean reward", "p50 ms", "p99 ms")
    for row in rows:
        reward = "" if row["mean_reward"] is None else f"{row['mean_reward']:.3f}"
        latency = ["" if row[key] is None else f"{row[key]:.1f}" for key in ("p50_ms", "p99_ms")]
        table.add_row(
            row["variant"],
            str(row["version"]),
            f"{shares.get(row['variant'], 0):.0%}",
            str(row["units"]),
            str(row["predictions"]),
            str(row["feedback"]),
            reward,
            *latency,
        )
    return table


def trace_table(trace: Trace) -> Table:
    table = _table("", "link", "what", "digest")
    for link in trace.links:
        mark = Text("✓", "green") if link.holds else Text("✗", "bold red")
        what = Text(link.what) if link.holds else Text(link.fault, "bold red")
        table.add_row(mark, Text(link.name, "" if link.holds else "bold red"), what, link.digest[:16])
    return table


def processes_table(states: Iterable[ProcessState]) -> Table:
    table = _table("process", "state", "")
    for state in states:
        table.add_row(state.name, _state(state.state), state.description)
    return table


def endpoints_table(
    endpoints: Iterable[Endpoint], deployments: Sequence[Deployment], states: Mapping[str, str]
) -> Table:
    table = _table("endpoint", "variant", "share", "deployment", "wanted", "observed")
    for endpoint in endpoints:
        shares = endpoint.table.shares()
        for variant, name in sorted(endpoint.variants.items()):
            bento = next((d.bento_tag for d in deployments if d.name == name), "?")
            observed = _state(states.get(name, "absent"))
            table.add_row(endpoint.name, variant, f"{shares.get(variant, 0):.2%}", bento, "running", observed)
    return table


def keys_table(keys: Iterable[Key]) -> Table:
    table = _table("key", "caller", "scopes", "expires", "state")
    for key in keys:
        state = "revoked" if key.revoked_at else "live"
        table.add_row(key.id, key.caller, " ".join(key.scopes), f"{key.expires_at:%Y-%m-%d}", state)
    return table


def fields(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), value if isinstance(value, Text) else str(value))
    return grid


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("started", "created", "took", "model"))
    return table


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state, ""))


def _when(moment: datetime | None) -> str:
    return f"{moment.astimezone():%m-%d %H:%M:%S}" if moment else ""


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _numbers(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if v is not None)
