"""The bill of materials, validated by CycloneDX's own schema."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uv
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from modelyard_build.supply.sbom import sbom
from modelyard_serving.manifest import Column, Manifest

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATA = {"train": "c" * 64, "holdout": "f" * 64}
MANIFEST = Manifest(
    model="tumor",
    version=3,
    run_id=12,
    experiment="tumor",
    commit="a" * 40,
    dirty=False,
    model_sha256="b" * 64,
    data_sha256=tuple(DATA.values()),
    lock_sha256="d" * 64,
    evidence_sha256="e" * 64,
    approved_by="ann",
    python="3.11",
    inputs=(Column("mean_radius", "float64"),),
    methods=("predict",),
    classes=("benign", "malignant"),
    ledger="7:abc",
)
FACTS: dict[str, Any] = {
    "data": DATA,
    "card": {"owner": "Ann", "purpose": "to warn early", "limitations": "adults only", "license": "apache-2.0"},
    "metrics": {"auc": 0.9},
    "evaluations": {"holdout": {"data": "holdout", "measures": {"roc_auc": 0.97, "log_loss": float("inf")}}},
    "slices": {
        "evaluation": "holdout",
        "metric": "accuracy",
        "judged": [
            {"column": "age", "value": "young", "score": 0.5},
            {"column": "age", "value": "old", "score": None},
        ],
    },
}

Make = Callable[..., bytes]


@pytest.fixture(scope="module")
def make(served_environment: Path, served_lock: Path) -> Make:
    def make(manifest: Manifest = MANIFEST, facts: dict[str, Any] = FACTS, at: datetime = AT) -> bytes:
        return sbom(served_environment, served_lock, manifest, facts, at)

    return make


@pytest.fixture(scope="module")
def document(make: Make) -> dict[str, Any]:
    return json.loads(make())


def component(document: dict[str, Any], ref: str) -> dict[str, Any]:
    [found] = [one for one in document["components"] if one["bom-ref"] == ref]
    return found


@pytest.mark.parametrize("facts", [FACTS, {}], ids=["evidence", "none"])
def test_it_is_valid_by_the_official_schema(make: Make, facts: dict[str, Any]) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(make(facts=facts).decode()) is None


def test_the_schema_would_notice_a_fault_in_the_card(document: dict[str, Any]) -> None:
    model = component(document, "model:tumor:3")
    faulty = {**model, "modelCard": model["modelCard"] | {"task": "guessing"}}
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for one, valid in ((model, True), (faulty, False)):
        short = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [one]}
        assert (validator.validate_str(json.dumps(short)) is None) is valid


def test_it_lists_exactly_what_is_installed(document: dict[str, Any], served_environment: Path) -> None:
    python = served_environment / "bin" / "python"
    listed = subprocess.run(
        [uv.find_uv_bin(), "pip", "list", "--python", str(python), "--format", "json"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    wanted = {(one["name"].lower().replace("_", "-"), one["version"]) for one in json.loads(listed.stdout)}
    libraries = [one for one in document["components"] if one["type"] == "library"]
    assert {(one["name"], one["version"]) for one in libraries} == wanted
    assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in libraries)
    assert all(one["licenses"] for one in libraries)


def test_a_package_has_the_hashes_that_the_lock_allows(document: dict[str, Any], served_lock: Path) -> None:
    [six] = [one for one in document["components"] if one["name"] == "six"]
    [reference] = six["externalReferences"]
    block = served_lock.read_text().partition("\nsix==")[2].partition("# via")[0]
    assert reference["hashes"]
    for one in reference["hashes"]:
        assert one["alg"] == "SHA-256"
        assert f"--hash=sha256:{one['content']}" in block
    assert "externalReferences" not in component(document, "pkg:pypi/modelyard-serving@0.1.0")


def test_the_model_stands_in_it_with_its_card_and_where_it_comes_from(document: dict[str, Any]) -> None:
    model = component(document, "model:tumor:3")
    assert model["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {"name": "modelyard:commit", "value": "a" * 40} in model["properties"]
    card = model["modelCard"]
    assert card["considerations"] == {"useCases": ["to warn early"], "technicalLimitations": ["adults only"]}
    assert card["modelParameters"]["inputs"] == [{"format": "mean_radius: float64"}]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "auc", "value": "0.9"},
        {"type": "holdout.roc_auc", "value": "0.97"},
        {"type": "holdout.accuracy", "value": "0.5", "slice": "age = young"},
    ]


def test_data_sets_are_known_by_digest_and_the_model_depends_on_them(document: dict[str, Any]) -> None:
    for name, digest in DATA.items():
        assert component(document, f"data:{name}")["hashes"] == [{"alg": "SHA-256", "content": digest}]
    graph = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert graph["model:tumor:3"] == ["data:holdout", "data:train"]
    assert "model:tumor:3" in graph["served:tumor:3"]
    seen, ahead = set(), ["served:tumor:3"]
    while ahead:
        ref = ahead.pop()
        if ref not in seen:
            seen.add(ref)
            ahead += graph[ref]
    assert {one["bom-ref"] for one in document["components"]} <= seen, "everything is wanted by something"


def test_the_same_inputs_give_the_same_bytes_in_any_process(
    make: Make, served_environment: Path, served_lock: Path, tmp_path: Path
) -> None:
    script = tmp_path / "again.py"
    script.write_text(
        "import sys, json\nfrom datetime import datetime\nfrom pathlib import Path\n"
        "from modelyard_build.supply.sbom import sbom\nfrom modelyard_serving.manifest import Manifest\n"
        "environment, lock, manifest, facts, at = sys.argv[1:]\n"
        "made = sbom(Path(environment), Path(lock), Manifest.from_json(manifest.encode()), json.loads(facts), "
        "datetime.fromisoformat(at))\nsys.stdout.buffer.write(made)\n"
    )
    arguments = [served_environment, served_lock, MANIFEST.to_json().decode(), json.dumps(FACTS), AT.isoformat()]
    for seed in ("1", "2"):
        command = [sys.executable, str(script), *map(str, arguments)]
        env = os.environ | {"PYTHONHASHSEED": seed}
        assert subprocess.run(command, env=env, capture_output=True, check=True, timeout=60).stdout == make()


def test_another_input_gives_another_serial_number(make: Make) -> None:
    documents = [
        make(),
        make(at=AT.replace(year=2027)),
        make(manifest=replace(MANIFEST, model_sha256="0" * 64)),
        make(facts=FACTS | {"data": {}}),
    ]
    assert len({json.loads(one)["serialNumber"] for one in documents}) == len(documents)
