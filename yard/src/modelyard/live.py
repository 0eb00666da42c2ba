"""Live: what answered at a time, by whose word, and whether that still holds.

The ledger says what was put into use; for the present, the endpoints' desired state is held against it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from modelyard.trace import Link, Walk
from modelyard_serving.endpoints import Deployment, Endpoint
from modelyard_serving.errors import NotFound
from modelyard_tracking.ledger import Entry

if TYPE_CHECKING:
    from modelyard.yard import Yard

KINDS = ("deploy", "split", "shadow", "rollback")  # of entries that say who answers


@dataclass(frozen=True, slots=True)
class LiveVariant:
    """A variant of an endpoint, the version behind it, and the chain behind that."""

    endpoint: str
    variant: str
    share: float  # of the units, 0 to 1
    ref: str
    since: datetime  # when the version was put there
    by: str
    reason: str
    entry: int  # of the ledger, that says so
    links: tuple[Link, ...]

    @property
    def holds(self) -> bool:
        return all(link.holds for link in self.links)


def live(yard: "Yard", at: datetime | None = None, endpoint: str | None = None) -> list[LiveVariant]:
    """Every variant that answered at a time, now by default, with every digest taken anew.

    Raises:
        NotFound: there was no such endpoint.
    """
    states = answering(yard.approvals.ledger.entries(KINDS, until=at))
    if endpoint is not None and endpoint not in states:
        when = f"at {at:%Y-%m-%d %H:%M:%S}" if at else "now"
        raise NotFound(f"{endpoint} has nothing live {when}. What was when:  yard ledger --of {endpoint}")
    found, chain = [], yard.verify_ledger()
    for name, variants in states.items():
        if endpoint not in (None, name):
            continue
        for variant, (said, since) in sorted(variants.items()):
            links = Walk(yard, said["ref"], said["model_sha256"], said["bento_sha256"], at, chain).links()
            if at is None:
                links.insert(0, _in_force(yard, name, variant, said))
            who = (since.at, since.by, since.reason, since.number)
            found.append(LiveVariant(name, variant, said["share"], said["ref"], *who, tuple(links)))
    return found


def answering(entries: Iterable[Entry]) -> dict[str, dict[str, tuple[Mapping[str, Any], Entry]]]:
    """By endpoint and variant: what is said of it last, and the entry that put this version there."""
    states: dict[str, dict[str, tuple[Mapping[str, Any], Entry]]] = {}
    for entry in entries:
        before = states.get(entry.subject, {})
        states[entry.subject] = {
            variant: (said, before[variant][1] if _same(before.get(variant), said) else entry)
            for variant, said in entry.facts["variants"].items()
        }
    return states


def _same(before: tuple[Mapping[str, Any], Entry] | None, said: Mapping[str, Any]) -> bool:
    names = ("ref", "model_sha256", "bento_sha256")
    return before is not None and all(before[0][name] == said[name] for name in names)


def state_of(endpoint: Endpoint, deployments: Mapping[str, Deployment]) -> dict[str, Any]:
    """What the ledger keeps of an endpoint: who answers, with which share, by digest."""
    shares = endpoint.table.shares()
    states = {
        variant: {
            "ref": f"{deployments[name].model}:{deployments[name].version}",
            "share": shares.get(variant, 0.0),
            "model_sha256": deployments[name].model_sha256,
            "bento_sha256": deployments[name].bento_sha256,
        }
        for variant, name in sorted(endpoint.variants.items())
    }
    if endpoint.shadow is not None:
        states[endpoint.shadow.variant]["shadow"] = endpoint.shadow.percent
    return states


def parse_time(text: str) -> datetime:
    """ISO 8601; local where it names no zone.

    Raises:
        ValueError: it is no time.
    """
    return datetime.fromisoformat(text).astimezone(UTC)


def _in_force(yard: "Yard", endpoint: str, variant: str, said: Mapping[str, Any]) -> Link:
    try:
        deployments = {deployment.name: deployment for deployment in yard.endpoints.deployments()}
        wanted = state_of(yard.endpoints.endpoint(endpoint), deployments).get(variant)
    except (NotFound, KeyError):
        wanted = None
    if wanted != said:
        fault = f"the endpoint was changed past the ledger: it has {wanted and wanted['ref']} as {variant}"
        return Link("endpoint", "", "", False, fault)
    return Link("endpoint", f"{said['share']:.2%} of the units", "", True)
