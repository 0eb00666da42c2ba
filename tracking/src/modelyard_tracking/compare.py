"""Compare: how runs differ, and in what they do not. Configuration, numbers, code, environment, data.

The first run is the base. Gathering reads the stores; what differs is decided by pure functions.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_tracking import origin
from modelyard_tracking.errors import NotFound
from modelyard_tracking.recording.plain import flat
from modelyard_tracking.runs import Run, RunStore, amount
from modelyard_tracking.store import ArtifactStore

MISSING = "—"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing, and what it is in each run."""

    name: str
    values: tuple[Any, ...]  # one a run; MISSING where the run has none

    @property
    def same(self) -> bool:
        return all(_equal(value, self.values[0]) for value in self.values[1:])

    @property
    def change(self) -> float | None:
        """Of a number, from the first run to the last; None of anything else."""
        first, last = self.values[0], self.values[-1]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (first, last))
        return last - first if numbers and math.isfinite(last - first) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side. Each part holds all entries; those that differ are in `differences`."""

    runs: tuple[Run, ...]
    config: tuple[Difference, ...]
    metrics: tuple[Difference, ...]  # results, and the last value of each metric
    code: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    data: tuple[Difference, ...]
    diff: str  # of the code, from the first run to the last; empty where it is the same or not to be had
    diff_note: str  # why there is no diff, if there should be one

    def parts(self) -> list[tuple[str, tuple[Difference, ...]]]:
        return [
            ("config", self.config),
            ("metrics", self.metrics),
            ("code", self.code),
            ("environment", self.environment),
            ("data", self.data),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For scripts: what differs, by part and name."""
        return {
            "runs": [run.id for run in self.runs],
            **{part: {d.name: list(d.values) for d in entries if not d.same} for part, entries in self.parts()},
            "same": {part: [d.name for d in entries if d.same] for part, entries in self.parts()},
            "diff": self.diff,
            "diff_note": self.diff_note,
        }


def compare(store: RunStore, files: ArtifactStore, repository: Path, ids: Sequence[int]) -> Comparison:
    """Put runs side by side.

    Args:
        repository: a folder in the repository that knows their commits.

    Raises:
        NotFound: there is no such run.
    """
    runs = tuple(store.get(run_id) for run_id in ids)
    patches = [_patch(store, run) for run in runs]
    diff, note = _code_diff(repository, runs, patches)
    return Comparison(
        runs,
        config=_by_name([flat(run.config) for run in runs]),
        metrics=_by_name([_numbers(store, run) for run in runs]),
        code=_by_name([_code(run) for run in runs]),
        environment=_by_name([_environment(run, files) for run in runs]),
        data=_by_name([_data(run) for run in runs]),
        diff=diff,
        diff_note=note,
    )


def _by_name(sides: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    names = dict.fromkeys(name for side in sides for name in side)
    return tuple(Difference(name, tuple(side.get(name, MISSING) for side in sides)) for name in names)


def _numbers(store: RunStore, run: Run) -> dict[str, Any]:
    last = {name: summary["last"] for name, summary in run.metrics.items()}
    if "metrics" not in run.recorded:  # plain Sacred keeps no summary
        last = {name: curve.values[-1] for name, curve in store.curves(run.id).items() if curve.values}
    return {**last, **flat(run.result)}


def _code(run: Run) -> dict[str, Any]:
    recorded = run.recorded
    if "commit" not in recorded:
        repositories = run.raw.get("experiment", {}).get("repositories") or [{}]
        return {"commit": repositories[0].get("commit")}
    return {
        "commit": recorded.get("commit"),
        "changes since": ", ".join(line.strip() for line in recorded.get("changes") or ()) or "none",
        "changes' digest": (recorded.get("patch_sha256") or "")[:12] or "none",
    }


def _environment(run: Run, files: ArtifactStore) -> dict[str, Any]:
    host = run.raw.get("host") or {}
    facts: dict[str, Any] = {
        "python": host.get("python_version"),
        "host": host.get("hostname"),
        "cpu": host.get("cpu"),
        "os": " ".join(map(str, host.get("os") or ())),
        "gpus": ", ".join(gpu.get("model", "") for gpu in (host.get("gpus") or {}).get("gpus", ())) or "none",
        "lock": (run.recorded.get("lock_sha256") or "")[:12] or "none",
    }
    lock = files.lock(run.recorded.get("lock_sha256") or "")
    if lock.is_file():
        return facts | dict(sorted(origin.locked_versions(lock).items()))
    dependencies = (text.partition("==") for text in run.raw.get("experiment", {}).get("dependencies") or ())
    return facts | {name: version for name, _, version in dependencies}


def _data(run: Run) -> dict[str, Any]:
    datasets = run.recorded.get("datasets") or {}
    return {name: f"{facts['sha256'][:12]}, {amount(facts)}" for name, facts in sorted(datasets.items())}


def _patch(store: RunStore, run: Run) -> str:
    try:
        return store.artifact(run, origin.PATCH_ARTIFACT).decode(errors="replace")
    except NotFound:
        return ""


def _code_diff(repository: Path, runs: Sequence[Run], patches: Sequence[str]) -> tuple[str, str]:
    """The diff from the first run's code to the last's: between the commits, and between what was changed since."""
    first, last = runs[0].recorded.get("commit"), runs[-1].recorded.get("commit")
    if not first or not last:
        return "", "a run recorded no commit"
    diff, note = "", ""
    if first != last:
        unknown = [commit for commit in (first, last) if not origin.has_commit(repository, commit)]
        if unknown:
            note = f"commit {unknown[0][:12]} is not in the repository here; fetch it:  git fetch"
        else:
            diff = origin.diff_between(repository, first, last)
    if patches[0] != patches[-1]:
        diff += _patch_diff(runs, patches)
    return diff, note


def _patch_diff(runs: Sequence[Run], patches: Sequence[str]) -> str:
    """What differs between what was changed after the commits; where only one run had changes, those."""
    names = (f"run {runs[0].id}: changes since its commit", f"run {runs[-1].id}: changes since its commit")
    for name, patch, other in zip(names, (patches[0], patches[-1]), (patches[-1], patches[0]), strict=True):
        if not other:
            return f"# {name}; the other has none\n{patch}"
    return (
        "\n".join(difflib.unified_diff(patches[0].splitlines(), patches[-1].splitlines(), *names, lineterm="")) + "\n"
    )


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))
