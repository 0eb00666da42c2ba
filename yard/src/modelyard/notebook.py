"""In a notebook: `modelyard.check("churn")`, `modelyard.runs("churn").table()`, `run.plot("val.auc")`.

Thin: what is shown comes from the same places as in the commands. pandas and matplotlib are imported when first used.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from modelyard_tracking.compare import Comparison, Difference
from modelyard_tracking.recording.plain import flat
from modelyard_tracking.runs import Run, RunStore

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from modelyard_build.checks.finding import Finding


class RunView:
    """One run, as a person looks at it; every attribute of `Run` is here, too."""

    def __init__(self, run: Run, store: RunStore) -> None:
        self._run = run
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {_short(value)}" for name, value in self._run.result.items())
        return f"<run {self._run.id} of {self._run.experiment}, {self._run.status}: {numbers or 'no result'}>"

    def curve(self, name: str) -> "pd.DataFrame":
        """A metric: columns `step`, `value` and `at` (UTC), in the order in which it was logged.

        Raises:
            KeyError: the run has no metric of this name; the text lists those it has.
        """
        import pandas as pd

        curves = self._store.curves(self._run.id, [name])
        if name not in curves:
            there = ", ".join(sorted(self._store.curves(self._run.id))) or "none"
            raise KeyError(f"run {self._run.id} has no metric {name!r}. It has: {there}")
        curve = curves[name]
        return pd.DataFrame({"step": curve.steps, "value": curve.values, "at": curve.at})

    def plot(self, *names: str, axes: "Axes | None" = None) -> "Axes":
        """Draw metrics over their steps, all of them by default, into one pair of axes."""
        import matplotlib.pyplot as plt

        if axes is None:
            _, axes = plt.subplots(figsize=(7, 4))
        for name in names or sorted(self._store.curves(self._run.id)):
            curve = self.curve(name)
            # A single point is no line.
            axes.plot(curve["step"], curve["value"], marker="o" if len(curve) == 1 else None, label=name)
        axes.set_xlabel("step")
        axes.set_title(f"run {self._run.id} of {self._run.experiment}")
        if axes.has_data():
            axes.legend()
        return axes

    def artifact(self, name: str) -> bytes:
        """The content of one of the run's artifacts."""
        full = self._run if "artifacts" in self._run.raw else self._store.get(self._run.id)
        return self._store.artifact(full, name)

    def _repr_html_(self) -> str:
        run = self._run
        rows = [
            ("status", run.status),
            ("result", ", ".join(f"{name} {_short(value)}" for name, value in run.result.items())),
            ("config", ", ".join(f"{name}={value}" for name, value in run.config.items())),
            ("commit", f"{run.recorded.get('commit')}{' with changes' if run.recorded.get('dirty') else ''}"),
            ("model", run.model_sha256 or "none saved"),
        ]
        cells = "".join(f"<tr><th style='text-align:left'>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in rows)
        return f"<b>run {run.id} of {escape(run.experiment)}</b><table>{cells}</table>"


class RunList(Sequence[RunView]):
    """Runs, as `modelyard.runs` gives them."""

    def __init__(self, runs: Sequence[Run], store: RunStore) -> None:
        self._views = [RunView(run, store) for run in runs]

    def __getitem__(self, index: Any) -> Any:
        return self._views[index]

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[RunView]:
        return iter(self._views)

    def __repr__(self) -> str:
        return f"<{len(self)} runs; look at them with .table()>"

    def table(self) -> "pd.DataFrame":
        """One row a run: status, times, sweep, then configuration and result; names that clash get a prefix."""
        import pandas as pd

        rows = []
        for view in self._views:
            config, result = flat(view.config), flat(view.result)
            clash = config.keys() & result.keys()
            rows.append(
                {
                    "run": view.id,
                    "status": view.status,
                    "started": view.started_at,
                    "seconds": view.duration_s,
                    "sweep": view.sweep_id,
                    **{f"config.{name}" if name in clash else name: value for name, value in config.items()},
                    **{f"result.{name}" if name in clash else name: value for name, value in result.items()},
                }
            )
        columns = ["run", "status", "started", "seconds", "sweep"]
        return pd.DataFrame(rows, columns=None if rows else columns).set_index("run")

    def _repr_html_(self) -> str:
        return str(self.table()._repr_html_())  # type: ignore[operator]


class ComparisonView:
    """Runs side by side, with what differs marked; the values are in `.comparison`."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def __repr__(self) -> str:
        different = sum(not d.same for _, entries in self.comparison.parts() for d in entries)
        return f"<comparison of runs {', '.join(str(run.id) for run in self.comparison.runs)}: {different} differences>"

    def _repr_html_(self) -> str:
        comparison = self.comparison
        head = "".join(f"<th>run {run.id}</th>" for run in comparison.runs)
        parts = []
        for part, entries in comparison.parts():
            same = [d.name for d in entries if d.same]
            rows = "".join(_html_row(d) for d in entries if not d.same) or "<tr><td colspan=9><i>the same</i></td></tr>"
            note = f"<tr><td colspan=9 style='color:gray'>same: {escape(', '.join(same[:12]))}"
            note += f"{' and more' if len(same) > 12 else ''}</td></tr>" if same else ""
            parts.append(f"<tr><th style='text-align:left'>{part}</th>{head}<th>change</th></tr>{rows}")
            parts.append(note if same else "")
        table = f"<table style='text-align:left'>{''.join(parts)}</table>"
        diff = f"<details><summary>code diff</summary><pre>{escape(comparison.diff)}</pre></details>"
        note = f"<p>{escape(comparison.diff_note)}</p>" if comparison.diff_note else ""
        return table + (diff if comparison.diff else "") + note


class CheckView:
    """What is right and what is wrong with a project; the findings are in `.findings`."""

    def __init__(self, project: str, findings: "Sequence[Finding]") -> None:
        self.project = project
        self.findings = findings

    @property
    def passed(self) -> bool:
        """Is there nothing but warnings to be said against it?"""
        from modelyard_build.checks.finding import passed

        return passed(self.findings)

    def __repr__(self) -> str:
        wrong = [f"  {f.check}: {f.message}\n    {f.remedy}" for f in self.findings if not f.passed]
        return "\n".join([f"<check of {self.project}: {'passed' if self.passed else 'not ready'}>", *wrong])

    def table(self) -> "pd.DataFrame":
        """One row a finding."""
        import pandas as pd

        columns = ["check", "passed", "severity", "message", "remedy", "seconds"]
        return pd.DataFrame([[getattr(f, name) for name in columns] for f in self.findings], columns=columns)

    def _repr_html_(self) -> str:
        rows = "".join(_html_finding(finding) for finding in self.findings)
        said = "ready to be trained" if self.passed else "not ready to be trained"
        return f"<b>{escape(self.project)} is {said}</b><table style='text-align:left'>{rows}</table>"


def _html_finding(finding: "Finding") -> str:
    mark, colour = _MARKS["passed" if finding.passed else finding.severity]
    remedy = f"<br><i>{escape(finding.remedy)}</i>" if finding.remedy and not finding.passed else ""
    return (
        f"<tr><td style='color:{colour}'>{mark}</td><td><b>{escape(finding.check)}</b></td>"
        f"<td style='text-align:left'>{escape(finding.message)}{remedy}</td></tr>"
    )


_MARKS = {"passed": ("✓", "green"), "warning": ("!", "darkorange"), "error": ("✗", "crimson")}


def _html_row(difference: Difference) -> str:
    cells = "".join(f"<td>{escape(_short(value))}</td>" for value in difference.values)
    change = "" if difference.change is None else f"{difference.change:+.4g}"
    return f"<tr><td><b>{escape(difference.name)}</b></td>{cells}<td>{change}</td></tr>"


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"
