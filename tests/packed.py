"""Folders as the build makes them, without a build."""

from pathlib import Path
from typing import Any

import pandas as pd

from modelyard_serving.manifest import AuditPlan, Column, Manifest
from modelyard_serving.runtime.model import TRUSTED_TYPES
from modelyard_tracking.digests import write_index
from modelyard_tracking.saving import write_model


def pack(
    folder: Path,
    model: Any,
    examples: pd.DataFrame,
    *,
    tolerance: float = 1e-9,
    audit: AuditPlan | None = None,
    **more: Any,
) -> Manifest:
    """A folder as the build makes it: the model and its manifest."""
    schema = write_model(folder / "model", model, examples, TRUSTED_TYPES, **more)
    manifest = Manifest(
        model="m", version=1, run_id=1, experiment="m", commit="", dirty=False,
        model_sha256=write_index(folder / "model"), data_sha256=(), lock_sha256="", evidence_sha256="",
        approved_by="me", python="3.11", inputs=tuple(Column(**column) for column in schema["inputs"]),
        methods=tuple(schema["methods"]), classes=tuple(schema["classes"]), kind=schema["kind"],
        tolerance=tolerance, audit=audit or AuditPlan(),
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return manifest
