"""Modelyard: from a notebook to an A/B-tested endpoint, every prediction traceable.

    from modelyard import Experiment        # in train.py
    modelyard.open().runs("tumor")          # in a notebook
    modelyard.Client(url, key)              # as a caller

Everything is imported where it is used: `import modelyard` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.yard import Yard
    from modelyard_serving.client import Client
    from modelyard_tracking.experiment import Experiment as _Experiment

__all__ = ["Client", "Experiment", "open"]


def Experiment(name: str) -> "_Experiment":
    """A Sacred experiment named after its project, whose runs go where the settings say."""
    from modelyard.settings import read_settings
    from modelyard_serving.runtime.model import TRUSTED_TYPES
    from modelyard_tracking.experiment import Experiment as TrackedExperiment

    return TrackedExperiment(name, home=lambda: read_settings().tracking_home, trusted_types=TRUSTED_TYPES)


def open() -> "Yard":
    """The yard of the folder you are in: runs, models, builds, endpoints."""
    from modelyard.settings import read_settings
    from modelyard.yard import Yard

    return Yard(read_settings())


def __getattr__(name: str) -> Any:
    if name == "Client":
        from modelyard_serving.client import Client

        return Client
    raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
