"""The manifest: the small record an image carries about its model.

The image is the one reader that cannot be upgraded, so it owns the contract: fields are only ever added,
and a reader ignores those it does not know.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import orjson

from modelyard_serving.errors import Refused
from modelyard_serving.model_files import read_limited

FORMAT = 1
DTYPES = ("float64", "float32", "int64", "bool", "str")
KINDS = ("sklearn", "onnx", "pickle")  # what the model's file is, and what loads it: `runtime/kinds`
MAX_BYTES = 16 * 2**20
METHODS = {"predict": "predictions", "predict_proba": "probabilities"}  # the model's method -> its name in an answer


@dataclass(frozen=True, slots=True)
class Column:
    """One input column; callers send it by name."""

    name: str
    dtype: str
    least: float | None = None  # what is allowed, where that was declared
    greatest: float | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"column {self.name!r}: dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What of a prediction is kept, for how long, and what happens when it cannot be."""

    redact: tuple[str, ...] = ()  # columns whose values are not recorded
    retention_days: int | None = None  # None: for ever
    when_full: str = "refuse"  # or "count": it is answered, and counted as not recorded
    flush: str = "system"  # an answer waits until its record is with the operating system, or on the "disk"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What this image serves, and the digests of everything it was made from."""

    model: str
    version: int
    run_id: int
    experiment: str
    commit: str
    dirty: bool
    model_sha256: str
    data_sha256: tuple[str, ...]
    lock_sha256: str
    evidence_sha256: str
    approved_by: str
    python: str
    inputs: tuple[Column, ...]
    methods: tuple[str, ...]
    classes: tuple[str | int | float | bool, ...]
    ledger: str = ""  # number:sha256 of the ledger's entry that approved this version
    format: int = FORMAT
    kind: str = "sklearn"  # the only one there was, when manifests did not say
    tolerance: float = 1e-9  # relative; how far an answer to a golden row may be from training's
    audit: AuditPlan = AuditPlan()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Refused(
                f"this runtime loads {', '.join(KINDS)}, and no model of the kind {self.kind!r}: build it again."
            )

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        known = {field.name for field in fields(cls)}
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Refused(f"the manifest is not JSON ({error}): build it again.") from error
        if not isinstance(document, dict):
            raise Refused("the manifest is not an object: build it again.")
        raw: dict[str, Any] = {key: value for key, value in document.items() if key in known}
        if raw.get("format", 0) > FORMAT:
            raise Refused(
                f"the manifest has format {raw['format']}, this runtime reads up to {FORMAT}: build it again."
            )
        raw["inputs"] = tuple(Column(**column) for column in raw["inputs"])
        for name in ("data_sha256", "methods", "classes"):
            raw[name] = tuple(raw[name])
        if said := raw.get("audit"):
            raw["audit"] = AuditPlan(**{**said, "redact": tuple(said["redact"])})
        return cls(**raw)

    @classmethod
    def read(cls, folder: Path) -> Self:
        return cls.from_json(read_limited(folder / "manifest.json", MAX_BYTES))
