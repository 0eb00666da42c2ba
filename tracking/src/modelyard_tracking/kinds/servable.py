"""What a kind of model offers to `saving.write_model`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

METHODS = ("predict", "predict_proba")
SERVED_WITH = {"sklearn": "skops", "onnx": "onnxruntime", "pickle": "cloudpickle"}  # kind -> what its image must hold


class Servable(Protocol):
    """A trained model of one kind."""

    @property
    def kind(self) -> str: ...

    @property
    def methods(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> list[Any]: ...

    def fitted(self, inputs: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """The columns as the model takes them, their dtypes narrowed where it computes in smaller ones.

        Raises:
            Refused: it cannot be asked with these columns; the text says why.
        """

    def answer(self, examples: Any, method: str) -> Any:
        """What the model answers to a DataFrame with these columns."""

    def write(self, folder: Path, signature: Any) -> None:
        """Write it in MLflow's format; `folder` does not exist yet."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """What an object with scikit-learn's methods offers, however it is written."""

    model: Any

    @property
    def methods(self) -> tuple[str, ...]:
        return methods_of(self.model)

    @property
    def classes(self) -> list[Any]:
        return classes_of(self.model)

    def fitted(self, inputs: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        return list(inputs)

    def answer(self, examples: Any, method: str) -> Any:
        return getattr(self.model, method)(examples)


def methods_of(model: Any) -> tuple[str, ...]:
    return tuple(method for method in METHODS if callable(getattr(model, method, None)))


def classes_of(model: Any) -> list[Any]:
    import numpy as np

    return list(np.asarray(getattr(model, "classes_", [])).tolist())
