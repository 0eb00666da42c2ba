"""Deployments put into an endpoint, without the approvals and builds that a person's `yard deploy` asks for."""

from modelyard.serving import Serving, with_variant
from modelyard_serving.endpoints import Deployment, Endpoint


def ship(serving: Serving, wanted: Deployment, replicas: int | None, variant: str) -> Deployment:
    """Have it run, and make it that variant of its model's endpoint."""
    deployed = serving.deploy(wanted, replicas)

    def changed() -> Endpoint:
        return with_variant(serving.endpoints, wanted.model, variant, wanted.name)

    serving.change("deploy", wanted.model, "tester", changed, "")
    return deployed
