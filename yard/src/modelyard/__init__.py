"""Modelyard: from a notebook to an A/B-tested endpoint, every prediction traceable.

    from modelyard import Experiment                    # in train.py
    modelyard.check("tumor")                            # what is wrong with a project, before it is trained
    modelyard.runs("tumor").table()                     # in a notebook: a DataFrame
    modelyard.run(7).plot("val_auc")                    # a curve
    modelyard.compare(7, 9)                             # what differs
    modelyard.Client(url, key)                          # as a caller

Everything is imported where it is used: `import modelyard` costs nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.notebook import CheckView, ComparisonView, RunList, RunView
    from modelyard.yard import Yard
    from modelyard_serving.client import AsyncClient, Client
    from modelyard_tracking.experiment import Experiment as _Experiment

__all__ = ["AsyncClient", "Client", "Experiment", "check", "compare", "open", "run", "runs"]


def Experiment(name: str) -> "_Experiment":
    """A Sacred experiment named after its project, whose runs go where the settings say."""
    from modelyard.settings import read_settings
    from modelyard_serving.runtime.model import TRUSTED_TYPES
    from modelyard_tracking.experiment import Experiment as TrackedExperiment

    return TrackedExperiment(name, home=lambda: read_settings().tracking_home, trusted_types=TRUSTED_TYPES)


def open(stage: str | None = None) -> "Yard":
    """The yard of the folder you are in: runs, models, builds, endpoints.

    Args:
        stage: where versions run: local, or the name of a table in yard.toml; what the settings say by default.
    """
    from modelyard.settings import read_settings
    from modelyard.yard import Yard

    return Yard(read_settings(flags={"stage": stage} if stage else None))


def check(project: str) -> "CheckView":
    """Everything that can be known of a project before it is trained, as `yard check` says it."""
    from modelyard.notebook import CheckView

    return CheckView(project, _opened().check(project))


def runs(
    project: str | None = None,
    *,
    where: Sequence[str] = (),
    sort: str | None = None,
    ascending: bool | None = None,
    limit: int = 1000,
) -> "RunList":
    """Runs, the newest first: `modelyard.runs("tumor", where=["val_auc>0.9"], sort="val_auc").table()`."""
    from modelyard.notebook import RunList

    yard = _opened()
    found = yard.runs(project, limit, where=where, sort=sort, ascending=ascending)
    return RunList(found, yard.run_store)


def run(number: int) -> "RunView":
    """One run, by its number."""
    from modelyard.notebook import RunView

    yard = _opened()
    return RunView(yard.run_store.get(number), yard.run_store)


def compare(*numbers: int) -> "ComparisonView":
    """Runs side by side: configuration, numbers, code, environment, data."""
    from modelyard.notebook import ComparisonView

    return ComparisonView(_opened().compare(*numbers))


_yards: dict[Any, "Yard"] = {}  # by settings: a notebook's cells share one connection


def _opened() -> "Yard":
    from modelyard.settings import read_settings
    from modelyard.yard import Yard

    settings = read_settings()
    key = str(settings)
    if key not in _yards:
        _yards[key] = Yard(settings)
    return _yards[key]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        from modelyard_serving import client

        return getattr(client, name)
    raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
