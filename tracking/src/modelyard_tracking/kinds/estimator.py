"""A scikit-learn estimator, written by skops: data, and names of types that the runtime's own list must hold."""

import importlib.metadata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_tracking.kinds.servable import Predictor


def untrusted_types(model: Any, trusted_types: Collection[str]) -> list[str]:
    """The types that the runtime would not load; what skops cannot write at all is one of them."""
    import skops.io

    try:
        content = skops.io.dumps(model)
    except Exception:  # whatever its class's own __reduce__ or __getstate__ raises
        return [f"{type(model).__module__}.{type(model).__qualname__}"]
    return sorted(set(skops.io.get_untrusted_types(data=content)) - set(trusted_types))


@dataclass(frozen=True, slots=True)
class Estimator(Predictor):
    """An estimator whose types the runtime loads."""

    trusted_types: Collection[str]
    kind: str = "sklearn"

    def write(self, folder: Path, signature: Any) -> None:
        import mlflow.sklearn

        mlflow.sklearn.save_model(
            self.model,
            str(folder),
            signature=signature,
            serialization_format="skops",
            skops_trusted_types=list(self.trusted_types),
            # Given, so that MLflow does not start a process to find them out; the lock is what counts.
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("scikit-learn", "skops")],
        )
