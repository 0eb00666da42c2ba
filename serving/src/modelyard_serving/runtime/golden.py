"""Golden rows, asked once more: a replica is ready only after it has answered them as training did."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from modelyard_serving.answers import first_difference
from modelyard_serving.errors import Refused
from modelyard_serving.manifest import Manifest
from modelyard_serving.model_files import read_limited
from modelyard_serving.runtime.model import Model
from modelyard_serving.runtime.rows import BadRequest

MAX_BYTES = 256 * 2**20


def checked(model: Model, folder: Path, strict: bool = True) -> Model:
    """Ask a model the golden rows that lie in its folder; gives it as it is to be asked from now on.

    scikit-learn looks at each DataFrame for longer than a small model computes: where an estimator answers all golden
    rows the same from a bare array, it is given arrays. Its kinds of transformers and predictors see values alone, but
    for those that choose columns by name, and these fail on an array. Where that is what training recorded, to the last
    bit, there is never a DataFrame, and pandas is not loaded.

    Raises:
        Refused: it answers otherwise than in training, by more than the manifest's tolerance.
    """
    golden = orjson.loads(read_limited(folder / "golden.json", MAX_BYTES))
    rows, wanted = golden["rows"], golden["answers"]
    faster, from_arrays = replace(model, takes_arrays=True), None
    if model.manifest.kind == "sklearn" and model.schema.dtype:
        with suppress(Exception):  # whatever an estimator says to an array, it has the frame then
            from_arrays = _answers(faster, rows)
            if all(wanted[method] == answers for method, answers in from_arrays.items()):
                return faster
    answers = _answers(model, rows)
    if strict:
        _compare(model.manifest, wanted, answers)
    return faster if from_arrays == answers else model


def _answers(model: Model, rows: Sequence[Any]) -> dict[str, list[Any]]:
    manifest = model.manifest
    try:
        return model.answer(model.schema.read(rows), manifest.methods)
    except BadRequest as error:
        raise Refused(f"The golden rows of {manifest.model}:{manifest.version} are no rows for it: {error}") from error


def _compare(manifest: Manifest, wanted: Mapping[str, Sequence[Any]], answers: Mapping[str, Sequence[Any]]) -> None:
    for method in manifest.methods:
        if different := first_difference(wanted[method], answers[method], manifest.tolerance):
            number, want, got = different
            raise Refused(
                f"{manifest.model}:{manifest.version} answers golden row {number} with {method} {got}, and in training "
                f"it was {want}: it is not served. The libraries or the processor here are others: build it again."
            )
