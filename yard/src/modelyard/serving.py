"""What the local stack serves, and how that changes: deployments come and go, endpoints change, the gateway follows.

New before old: a version answers before the gateway leads to it, and the gateway has let go of it before it is stopped.
So no change here fails a request.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from modelyard.live import KINDS, state_of
from modelyard.stack import Stack
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.errors import NotFound, Unavailable
from modelyard_serving.gateway.config import Gateway
from modelyard_serving.gateway.publish import bring, publish
from modelyard_serving.keys import Keys
from modelyard_serving.local_stage import LocalStage, free_port
from modelyard_tracking.ledger import Head, Ledger


@dataclass(frozen=True)
class Serving:
    """The deployments and endpoints of one stack. Who changes what is entered in the ledger first."""

    stack: Stack
    endpoints: EndpointStore
    ledger: Ledger
    keys: Keys
    note: Callable[[Head], None]  # told of every entry that was made

    @cached_property
    def stage(self) -> LocalStage:
        settings = self.stack.settings
        return LocalStage(settings.home, self.stack.processes, settings.console_url, self.stack.secret_file)

    def deploy(self, wanted: Deployment, replicas: int | None) -> Deployment:
        """Have a version run with so many replicas, each of the bento that is wanted; gives it with its ports.

        Where another bento of the version answers, its replicas are replaced one by one, and there is one more of them
        for the time being.

        Args:
            replicas: as many as there are by default, and one of what is new.

        Raises:
            Unavailable: a new replica did not come up; nothing was changed.
        """
        before = self._before(wanted)
        running = len(before.ports)
        number = replicas or running or 1
        most = number if before == replace(wanted, ports=before.ports) else max(number, running + bool(running))
        grown = replace(wanted, ports=_ports(before.ports, max(most, running)))
        try:
            self.stage.start(grown, beyond=running)
        except Unavailable:
            self.stage.stop(grown, beyond=running)
            raise
        self.endpoints.put_deployment(grown)
        self.publish()
        deployment = replace(wanted, ports=grown.ports[:number])
        self.stage.roll(deployment)
        if grown != deployment:
            self.endpoints.put_deployment(deployment)
            self.publish()
            self.stage.stop(grown, beyond=number)
        return deployment

    def _before(self, wanted: Deployment) -> Deployment:
        """What runs under this name: nothing, maybe."""
        with suppress(NotFound):
            return self.endpoints.deployment(wanted.name)
        return replace(wanted, ports=())

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
        self.publish()
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
        self.publish()
        self.stage.stop(deployment)

    def publish(self) -> None:
        """Bring the desired state to the gateway, and wait until it is in force."""
        bring(self._gateway(), self.stack.gateway_folder)

    def write_gateway(self) -> None:
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


def _ports(there: tuple[int, ...], replicas: int) -> tuple[int, ...]:
    """As many as wanted: those that there are first, so that a replica keeps its port."""
    ports = list(there[:replicas])
    while len(ports) < replicas:
        port = free_port()
        if port not in ports:
            ports.append(port)
    return tuple(ports)
