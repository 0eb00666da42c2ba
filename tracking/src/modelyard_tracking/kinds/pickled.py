"""A model in a pickle, which can hold anything and runs it when it is loaded: only where a project says so."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from modelyard_tracking.kinds.servable import Predictor


@dataclass(frozen=True, slots=True)
class Pickled(Predictor):
    """An object with the methods, and the folder of the project whose modules travel inside the pickle."""

    project: Path
    kind: str = "pickle"

    def write(self, folder: Path, signature: Any) -> None:
        import cloudpickle
        from mlflow.models import Model

        folder.mkdir()
        with _by_value(self.project):
            (folder / "model.pkl").write_bytes(cloudpickle.dumps(self.model))
        # A flavour of ours alone: nothing of MLflow's loads it.
        Model(signature=signature, flavors={"modelyard": {"data": "model.pkl"}}).save(str(folder / "MLmodel"))


@contextmanager
def _by_value(project: Path) -> Iterator[None]:
    """The project's own modules are not in the image, so what the model needs of them goes into the pickle."""
    import cloudpickle

    own = [module for module in list(sys.modules.values()) if _is_in(module, project)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _is_in(module: ModuleType, project: Path) -> bool:
    file = getattr(module, "__file__", None)
    named = module.__name__ in sys.modules and module.__name__ != "__main__"  # __main__ goes by value anyway
    if not file or not named:
        return False
    path = Path(str(file)).resolve()
    return path.is_relative_to(project.resolve()) and "site-packages" not in path.parts  # an environment in the folder
