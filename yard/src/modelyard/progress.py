"""Progress of long work, on a terminal and in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modelyard_tracking.project import Project
from modelyard_tracking.runs import Run


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
def sweep_progress(console: Console, project: Project, trials: int | None) -> Iterator[Callable[[Run], None]]:
    """A bar over the trials of a sweep with the best value so far."""
    name, direction = project.metric.name, project.metric.direction
    best: list[float] = []
    with bar(console, f"sweep of {project.name}", trials or project.sweep.trials) as step:

        def on_trial(run: Run) -> None:
            best.append(run.result[name])
            step(f"best {name} {(max if direction == 'max' else min)(best):.4f}")

        yield on_trial
