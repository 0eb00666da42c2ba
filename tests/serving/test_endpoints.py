"""Endpoints and deployments: the desired state as it is kept."""

from dataclasses import replace

import pytest

from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.errors import NotFound

TUMOR = Deployment("tumor-2", "tumor", 2, "tumor:x", "b", "/bento", "/environment", (4001, 4002), "m")


def test_a_deployment_comes_back_as_it_was_put(db) -> None:
    store = EndpointStore(db)
    store.put_deployment(TUMOR)
    assert store.deployment("tumor-2") == TUMOR
    assert TUMOR.replicas == {"tumor-2.1": 4001, "tumor-2.2": 4002}


def test_a_deployment_that_was_written_down_when_there_was_one_port_is_one_replica(db) -> None:
    store = EndpointStore(db)
    store.put_deployment(TUMOR)
    db.deployments.update_one({"_id": "tumor-2"}, {"$unset": {"ports": ""}, "$set": {"port": 4001}})
    assert store.deployment("tumor-2") == replace(TUMOR, ports=(4001,))


def test_an_endpoint_that_was_never_made_is_not_found(db) -> None:
    with pytest.raises(NotFound, match="yard deploy tumor@champion"):
        EndpointStore(db).endpoint("tumor")


def test_of_changes_that_come_at_once_the_later_stays(db) -> None:
    store, endpoint = EndpointStore(db), Endpoint.first("tumor", "champion", "tumor-1")
    store.put(endpoint.with_variant("challenger", "tumor-2"), 9)
    store.put(endpoint, 8)
    assert set(store.endpoint("tumor").variants) == {"champion", "challenger"}
