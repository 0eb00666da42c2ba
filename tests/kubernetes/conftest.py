"""Shared by the tests on a real Kubernetes: one cluster, one installed stack, two real versions."""

import os
from collections.abc import Iterator

import pytest

from own_cluster import OwnCluster, build_images, missing, own_cluster
from own_engine import OwnEngine
from production import Production, production


@pytest.fixture(scope="session")
def cluster(engine: OwnEngine) -> Iterator[OwnCluster]:
    """A real Kubernetes of one node, and the images of the base stack."""
    if why := missing():
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(why)
    with own_cluster() as running:
        build_images(engine.client)
        yield running


@pytest.fixture(scope="session")
def installed(cluster: OwnCluster, engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """The stack on it, and two versions that can be deployed."""
    with production(cluster, engine, tmp_path_factory.mktemp("production")) as running:
        yield running


@pytest.fixture
def stage(installed: Production) -> Iterator[Production]:
    """With nothing deployed at the end."""
    yield installed
    for deployment in installed.owner.endpoints.deployments():
        installed.yard.serving.stage.stop(deployment)
    for name in ("endpoints", "deployments"):
        installed.owner.db[name].delete_many({})
