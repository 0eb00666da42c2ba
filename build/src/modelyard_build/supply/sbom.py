"""SBOM: what an image of a model consists of, as a CycloneDX 1.6 document.

It lists the packages that are really installed, the model with its card, and the data it was trained on. The same
inputs give the same bytes. The library knows no model cards yet, so these are put into the document that it makes.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from modelyard_build.locks.locking import locked_hashes
from modelyard_build.supply.licences import to_spdx
from modelyard_build.supply.packages import Package, installed
from modelyard_serving.manifest import Manifest

_UNSET = UUID(int=0)


def sbom(environment: Path, lock: Path, manifest: Manifest, facts: Mapping[str, Any], at: datetime) -> bytes:
    """The bill of materials of what serves a model, as JSON.

    Args:
        environment: the virtual environment that it is served from.
        lock: what that was installed from; where it has hashes, each package carries those it may have had.
        facts: the evidence that was approved.
        at: stands in the document as its time.

    Raises:
        Refused: there is no environment in this folder.
    """
    packages = installed(environment)
    hashes = locked_hashes(lock.read_text())
    libraries = {
        package.name: _library(package, hashes.get((package.name, package.version), ())) for package in packages
    }
    model, data = _model(manifest, facts), _data(facts)
    served = Component(
        name=manifest.model,
        version=str(manifest.version),
        type=ComponentType.APPLICATION,
        bom_ref=f"served:{manifest.model}:{manifest.version}",
        description="a model and the runtime that serves it",
    )
    bom = Bom(
        serial_number=_UNSET,
        components=[model, *data, *libraries.values()],
        metadata=BomMetaData(timestamp=at, component=served, tools=ToolRepository(components=[_tool()])),
    )
    wanted = {name for package in packages for name in package.needs}
    bom.register_dependency(served, [model, *(libraries[one.name] for one in packages if one.name not in wanted)])
    bom.register_dependency(model, data)
    for package in packages:
        bom.register_dependency(libraries[package.name], [libraries[name] for name in package.needs])
    document = orjson.loads(JsonV1Dot6(bom).output_as_string())
    for component in document["components"]:
        if component["type"] == "machine-learning-model":
            component["modelCard"] = _card(manifest, facts, data)
        elif component["type"] == "data":
            component["data"] = [{"type": "dataset", "name": component["name"]}]
    digest = hashlib.sha256(_bytes(document)).hexdigest()
    return _bytes(document | {"serialNumber": uuid5(NAMESPACE_OID, digest).urn})


def _bytes(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _tool() -> Component:
    return Component(name="modelyard-build", version=version("modelyard-build"), type=ComponentType.APPLICATION)


def _library(package: Package, hashes: tuple[str, ...]) -> Component:
    """A package. No installer writes down which wheel it took, so all that the lock allows are named."""
    purl = PackageURL("pypi", name=package.name, version=package.version)
    allowed = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(purl.to_string()),
        comment="one of these files, by the lock",
        hashes=[_sha256(digest) for digest in hashes],
    )
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=[LicenseFactory().make_from_string(package.licence)] if package.licence else (),
        external_references=[allowed] if hashes else (),
    )


def _model(manifest: Manifest, facts: Mapping[str, Any]) -> Component:
    card = facts.get("card") or {}
    said = {
        "run": str(manifest.run_id),
        "experiment": manifest.experiment,
        "kind": manifest.kind,
        "commit": manifest.commit,
        "dirty": str(manifest.dirty).lower(),
        "python": manifest.python,
        "lock_sha256": manifest.lock_sha256,
        "evidence_sha256": manifest.evidence_sha256,
        "approved_by": manifest.approved_by,
        "ledger": manifest.ledger,
    }
    licence = str(card.get("license") or "")
    return Component(
        name=manifest.model,
        version=str(manifest.version),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{manifest.model}:{manifest.version}",
        hashes=[_sha256(manifest.model_sha256)],
        licenses=[LicenseFactory().make_from_string(to_spdx(licence) or licence)] if licence else (),
        authors=[OrganizationalContact(name=card["owner"])] if card.get("owner") else (),
        properties=[Property(name=f"modelyard:{name}", value=value) for name, value in said.items() if value],
    )


def _data(facts: Mapping[str, Any]) -> list[Component]:
    return [
        Component(name=name, type=ComponentType.DATA, bom_ref=f"data:{name}", hashes=[_sha256(digest)])
        for name, digest in sorted((facts.get("data") or {}).items())
    ]


def _card(manifest: Manifest, facts: Mapping[str, Any], data: list[Component]) -> dict[str, Any]:
    """The model's card in CycloneDX's words; people's own words stand in it as they wrote them."""
    card = facts.get("card") or {}
    answers = [str(label) for label in manifest.classes] or ["prediction"]
    parameters = {
        "task": "tabular-classification" if manifest.classes else "tabular-regression",
        "datasets": [{"ref": str(one.bom_ref)} for one in data],
        "inputs": [{"format": f"{column.name}: {column.dtype}"} for column in manifest.inputs],
        "outputs": [{"format": answer} for answer in answers],
    }
    said = {"useCases": card.get("purpose"), "technicalLimitations": card.get("limitations")}
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": list(_measured(facts))},
        "considerations": {name: [text] for name, text in said.items() if text},
    }


def _measured(facts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What was measured: the run's own metrics, those of its evaluations as NAME.MEASURE, and these by slice."""
    measured = [(name, value, "") for name, value in (facts.get("metrics") or {}).items()]
    for name, said in (facts.get("evaluations") or {}).items():
        measured += [(f"{name}.{measure}", value, "") for measure, value in said["measures"].items()]
    slices = facts.get("slices") or {}
    for part in slices.get("judged") or ():
        name = f"{slices['evaluation']}.{slices['metric']}"
        measured.append((name, part["score"], f"{part['column']} = {part['value']}"))
    for name, value, part in measured:
        if value is not None and math.isfinite(value):
            yield {"type": name, "value": str(value)} | ({"slice": part} if part else {})
