"""What a stage serves, and how that changes: deployments come and go, endpoints change, the gateway follows.

New before old: a version answers before the gateway leads to it, and the gateway has let go of it before it is stopped.
So no change here fails a request.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from modelyard.live import KINDS, state_of
from modelyard.stack import Stack
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.errors import NotFound
from modelyard_serving.gateway.config import Gateway
from modelyard_serving.gateway.publish import bring, publish
from modelyard_serving.keys import Keys
from modelyard_serving.stage import Stage
from modelyard_tracking.ledger import Head, Ledger


class GatewayControl(Protocol):
    """How the gateway learns what is desired."""

    def publish(self) -> None:
        """Bring the desired state to it, and come back when it is in force.

        Raises:
            Unavailable: it does not take it over.
        """


@dataclass(frozen=True)
class Serving:
    """The deployments and endpoints of one stage. Who changes what is entered in the ledger first."""

    stage: Stage
    gateway: GatewayControl
    endpoints: EndpointStore
    ledger: Ledger
    note: Callable[[Head], None]  # told of every entry that was made

    def deploy(self, wanted: Deployment, replicas: int | None) -> Deployment:
        """Have a version run with so many replicas; gives it as it runs. As `Stage.deploy` says."""
        before = None
        with suppress(NotFound):
            before = self.endpoints.deployment(wanted.name)
        return self.stage.deploy(before, wanted, replicas, self._show)

    def _show(self, deployment: Deployment) -> None:
        self.endpoints.put_deployment(deployment)
        self.gateway.publish()

    def change(self, kind: str, name: str, by: str, changed: Callable[[], Endpoint], reason: str) -> Endpoint:
        """Enter a change of an endpoint into the ledger, and bring it about.

        The entry comes first: who answers is never unknown to the ledger. Where two changes come at once, the second
        is made on top of the first.
        """
        endpoint: Endpoint

        def decide() -> Mapping[str, Any]:
            nonlocal endpoint
            last = self.ledger.last(*KINDS, subject=name)
            self.endpoints.await_revision(name, last.number if last else 0)
            endpoint = changed()
            deployments = {deployment.name: deployment for deployment in self.endpoints.deployments()}
            return {"variants": state_of(endpoint, deployments)}

        entry = self.ledger.append(kind, name, by, decide, reason)
        self.endpoints.put(endpoint, entry.number)
        self.note(entry.head)
        self.gateway.publish()
        return replace(endpoint, revision=entry.number)

    def users(self, deployment: str) -> list[tuple[str, str]]:
        """Endpoint and variant of each that a deployment is."""
        found = [
            (e.name, v) for e in self.endpoints.endpoints() for v, name in e.variants.items() if name == deployment
        ]
        return sorted(found)

    def previous(self, endpoint: str, variant: str) -> str | None:
        """The version that was this variant before the one that is now, as the ledger says: tumor:2."""
        refs = (
            entry.facts["variants"].get(variant, {}).get("ref")
            for entry in self.ledger.entries(KINDS, endpoint, newest_first=True)
        )
        now = next(refs, None)
        return next((ref for ref in refs if ref not in (now, None)), None)

    def end_replaced(self, endpoint: str) -> list[Deployment]:
        """Stop what was a variant of an endpoint and is none now, but not what a rollback would bring back."""
        variants = self.endpoints.endpoint(endpoint).variants
        stay = {*variants.values(), *(_name(self.previous(endpoint, variant)) for variant in variants)}
        entries = self.ledger.entries(KINDS, endpoint)
        were = {_name(said["ref"]) for entry in entries for said in entry.facts["variants"].values()}
        going = [d for d in self.endpoints.deployments() if d.name in were - stay and not self.users(d.name)]
        for deployment in going:
            self.remove(deployment)
        return going

    def remove(self, deployment: Deployment) -> None:
        """Let go of a deployment that is no variant of anything: first the gateway, then its processes end."""
        self.endpoints.remove_deployment(deployment.name)
        self.gateway.publish()
        self.stage.stop(deployment)


@dataclass(frozen=True)
class LocalGateway:
    """The Envoy of the local stack."""

    stack: Stack
    endpoints: EndpointStore
    keys: Keys

    def publish(self) -> None:
        bring(self._gateway(), self.stack.gateway_folder)

    def write(self) -> None:
        """For an Envoy that is yet to start."""
        publish(self._gateway(), self.stack.gateway_folder)

    def _gateway(self) -> Gateway:
        settings = self.stack.settings
        return Gateway(
            settings.gateway_port,
            settings.console_port,
            self.stack.secret(),
            self.stack.signing_keys.jwks(),
            self.keys.revoked(),
            self.endpoints.endpoints(),
            self.endpoints.deployments(),
            self.keys.rates(),
            self.stack.certificate,
        )


def with_variant(endpoints: EndpointStore, name: str, variant: str, deployment: str) -> Endpoint:
    """The endpoint with another deployment as a variant; a new one where there was none."""
    with suppress(NotFound):
        return endpoints.endpoint(name).with_variant(variant, deployment)
    return Endpoint.first(name, variant, deployment)


def _name(ref: str | None) -> str | None:
    """What the deployment of a version is called."""
    return ref and ref.replace(":", "-")
