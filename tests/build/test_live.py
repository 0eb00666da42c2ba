"""What is live: what a new version must not break with."""

from pathlib import Path
from typing import Any

import pytest

from modelyard_build.errors import Refused
from modelyard_build.live import live_manifests
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.manifest import Column, Manifest


def deployed(db: Any, folder: Path, version: int) -> Manifest:
    manifest = Manifest(
        "size", version, 1, "size", "c", False, "m", (), "l", "e", "a", "3.11",
        (Column("x", "float64"),), ("predict",), (),
    )  # fmt: skip
    bento = folder / f"bento-{version}"
    (bento / "src").mkdir(parents=True)
    (bento / "src" / "manifest.json").write_bytes(manifest.to_json())
    deployment = Deployment(f"size-{version}", "size", version, "t", "b", str(bento), "/e", (1,), "m")
    EndpointStore(db).put_deployment(deployment)
    return manifest


def test_before_the_first_deployment_nothing_is_live(db: Any) -> None:
    assert live_manifests(db, "size", 1) == ()


def test_every_variant_that_has_traffic_is_live_and_one_without_is_not(db: Any, tmp_path: Path) -> None:
    two, one, _ = (deployed(db, tmp_path, version) for version in (2, 1, 3))
    endpoint = Endpoint.first("size", "champion", "size-2").with_variant("challenger", "size-1")
    endpoint = endpoint.with_variant("shadow", "size-3").split({"champion": 80, "challenger": 20, "shadow": 0})
    EndpointStore(db).put(endpoint, 1)
    assert live_manifests(db, "size", 4) == (one, two)
    assert live_manifests(db, "size", 2) == (one,), "nobody breaks with himself"


def test_a_live_version_whose_bento_is_gone_cannot_be_compared_with(db: Any, tmp_path: Path) -> None:
    deployed(db, tmp_path, 1)
    EndpointStore(db).put(Endpoint.first("size", "champion", "size-1"), 1)
    (tmp_path / "bento-1" / "src" / "manifest.json").unlink()
    with pytest.raises(Refused, match=r"size:1 is live, .*\nBuild it again:  yard build size:1"):
        live_manifests(db, "size", 2)
    assert live_manifests(db, "size", 1) == (), "and that can be done"
