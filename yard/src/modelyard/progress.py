"""Progress of long work, on a terminal and in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelyard.tables import sparkline
from modelyard_tracking.project import Project
from modelyard_tracking.recording.plain import flat
from modelyard_tracking.sweeping.watch import TrialEvent


@contextmanager
def bar(console: Console, what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; call what it yields after each step, with a word on how it went."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda note: progress.update(task, advance=1, description=f"{what} {note}".rstrip())


@contextmanager
def sweep_progress(console: Console, project: Project, trials: int | None) -> Iterator[Callable[[TrialEvent], None]]:
    """What a sweep does: on a terminal a table of its trials that is kept up to date, in a log a line for each."""
    board = _Board(project, trials or project.sweep.trials)
    if not console.is_terminal:

        def tell(event: TrialEvent) -> None:
            board.take(event)
            if event.kind in ("ended", "failed", "fresh"):
                console.print(board.line(event))

        yield tell
        return
    with Live(board.table(), console=console, transient=True, refresh_per_second=4) as live:

        def show(event: TrialEvent) -> None:
            board.take(event)
            live.update(board.table())

        yield show


class _Board:
    """The trials of a sweep, as far as they are known."""

    ROWS = 12

    def __init__(self, project: Project, trials: int) -> None:
        self.project, self.trials = project, trials
        self.rows: dict[int, TrialEvent] = {}
        self.best: list[float] = []  # after each report that was the best until then
        self.ended = self.failed = self.fresh = 0

    def take(self, event: TrialEvent) -> None:
        if event.kind == "fresh":
            self.fresh += 1
            return
        self.rows.pop(event.number, None)
        self.rows[event.number] = event  # the latest at the end
        self.ended += event.kind == "ended"
        self.failed += event.kind == "failed"
        if event.value is not None and event.value == event.value:
            better = max if self.project.metric.direction == "max" else min
            self.best.append(better(self.best[-1], event.value) if self.best else event.value)

    def line(self, event: TrialEvent) -> str:
        if event.kind == "fresh":
            return f"winner, seed {self.fresh} of {self.project.sweep.fresh_seeds}: run {event.run_id}"
        what = (
            f"failed: {event.fault}" if event.kind == "failed" else f"{self.project.metric.name} {_short(event.value)}"
        )
        return f"trial {event.number:>4}  {self.ended} of {self.trials}  {what}  {_config(event)}  {self._best()}"

    def table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), title=self._title(), title_justify="left", title_style="")
        for column in ("trial", "", "step", self.project.metric.name, "configuration"):
            table.add_column(column)
        for event in list(self.rows.values())[-self.ROWS :]:
            state = {"started": "running", "reported": "running"}.get(event.kind, event.kind)
            cells = (state, str(event.step or ""), _short(event.value), event.fault or _config(event))
            table.add_row(str(event.number), *cells)
        return table

    def _title(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        fresh = f"; winner: {self.fresh} of {self.project.sweep.fresh_seeds} fresh seeds" if self.fresh else ""
        return f"sweep of {self.project.name}: {self.ended} of {self.trials} trials{failed}{fresh}  {self._best()}"

    def _best(self) -> str:
        return f"best {self.best[-1]:.4f} {sparkline(self.best, 24)}" if self.best else ""


def _config(event: TrialEvent) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in flat(event.config).items())


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
