"""Endpoints and deployments: what should run, and who answers. The desired state, kept in MongoDB."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from modelyard_serving.errors import NotFound, Refused
from modelyard_serving.split import BucketTable

FEEDBACK_DAYS = 90
POD_PORT = 3000  # where an image answers
STAGING = "staging"  # the variant that is tried before a version answers anybody
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model version running in a stage, in processes of this machine or in pods of a cluster.

    Of processes, one answers on each of `ports` of this machine. Pods run `image`, and all answer behind one name.
    """

    name: str  # tumor-2
    model: str
    version: int
    bento_tag: str
    bento_sha256: str
    bento_path: str
    environment: str  # the Python environment made from the bento's own lock
    ports: tuple[int, ...]
    model_sha256: str
    image: str = ""  # name@sha256:...
    pods: int = 0
    service: str = ""  # the name that stands for the addresses of all pods
    memory_mb: int = 0  # that a pod may take

    @property
    def size(self) -> int:
        """How many replicas there should be."""
        return self.pods or len(self.ports)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each replica; of pods, those that stand for all of them."""
        return ((self.service, POD_PORT),) if self.pods else tuple(("127.0.0.1", port) for port in self.ports)

    def replica(self, number: int) -> str:
        """The name of a replica, counted from 1: tumor-2.1."""
        return f"{self.name}.{number}"

    @property
    def replicas(self) -> Mapping[str, int]:
        """Name and port of each."""
        return {self.replica(number): port for number, port in enumerate(self.ports, 1)}


@dataclass(frozen=True, slots=True)
class Shadow:
    """A variant that is sent a copy of some of what the others are asked; its answers are recorded, never returned."""

    variant: str
    percent: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise Refused(f"a shadow is sent more than 0 and up to 100 percent of the requests, not {self.percent:g}.")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A stable address whose traffic is split over variants; a variant is a deployment with a role."""

    name: str
    salt: str
    variants: Mapping[str, str]  # variant -> deployment name
    table: BucketTable
    default: str  # answers requests that name no unit; empty as long as nobody answers
    timeout_s: float = TIMEOUT_S  # for the whole answer
    shadow: Shadow | None = None
    revision: int = 0  # of the last change: its entry in the ledger
    feedback_days: int = FEEDBACK_DAYS  # how long after its prediction feedback counts

    @classmethod
    def first(cls, name: str, variant: str, deployment: str) -> Self:
        return cls(name, f"{name}/1/", {}, BucketTable(()), "").with_variant(variant, deployment)

    def with_variant(self, variant: str, deployment: str) -> Self:
        """The same endpoint with a variant added or replaced; nobody's traffic moves.

        The first one gets all of the traffic, unless it is there to be tried.
        """
        added = replace(self, variants={**self.variants, variant: deployment})
        return added if self.table.runs or variant == STAGING else added.split({variant: 1.0})

    def split(self, shares: Mapping[str, float]) -> Self:
        """The same endpoint with other shares.

        Raises:
            NotFound: a share is given to a variant that is not deployed.
        """
        for variant in shares:
            self._need(variant)
        if min(shares.values()) < 0 or sum(shares.values()) <= 0:
            raise Refused(f"shares must not be negative and not all zero, got {dict(shares)}.")
        default = self.default or max(shares, key=lambda variant: shares[variant])
        shadow = self.shadow if self.shadow and not shares.get(self.shadow.variant) else None  # who answers is none
        return replace(self, table=self.table.reweighted(shares), default=default, shadow=shadow)

    def with_timeout(self, timeout_s: float) -> Self:
        if not 0.1 <= timeout_s <= 600:
            raise Refused(f"an answer may take between 0.1 and 600 seconds, not {timeout_s:g}.")
        return replace(self, timeout_s=timeout_s)

    def shadowed(self, shadow: Shadow | None) -> Self:
        """The same endpoint with a shadow, or without one.

        Raises:
            NotFound: it is no variant.
            Refused: it answers callers itself.
        """
        if shadow is not None:
            self._need(shadow.variant)
            if share := self.table.shares().get(shadow.variant):
                raise Refused(
                    f"{shadow.variant} answers {share:.2%} of the units itself. A shadow answers nobody:\n"
                    f"yard split {self.name} {self.default}=100"
                )
        return replace(self, shadow=shadow)

    def _need(self, variant: str) -> None:
        if variant not in self.variants:
            raise NotFound(
                f"{self.name} has no variant {variant!r}; it has {', '.join(sorted(self.variants))}.\n"
                f"Deploy it:  yard deploy {self.name}@{variant}"
            )


@dataclass(frozen=True, slots=True)
class EndpointStore:
    """Endpoints and deployments in MongoDB."""

    db: "Database[dict[str, Any]]" = field(repr=False)

    def endpoint(self, name: str) -> Endpoint:
        document = self.db.endpoints.find_one({"_id": name})
        if document is None:
            raise NotFound(f"There is no endpoint {name!r}.\nMake it:  yard deploy {name}@champion")
        return endpoint_of(document)

    def endpoints(self) -> list[Endpoint]:
        return [endpoint_of(document) for document in self.db.endpoints.find().sort("_id", 1)]

    def put(self, endpoint: Endpoint, revision: int) -> None:
        """Make it the desired state.

        Args:
            revision: of changes that come at once, the one with the highest stays.
        """
        document = {
            "salt": endpoint.salt,
            "variants": dict(endpoint.variants),
            "default": endpoint.default,
            "feedback_days": endpoint.feedback_days,
            "runs": [list(run) for run in endpoint.table.runs],
            "timeout_s": endpoint.timeout_s,
            "shadow": asdict(endpoint.shadow) if endpoint.shadow else None,
            "revision": revision,
            "updated_at": datetime.now(UTC),
        }
        older = {"_id": endpoint.name, "$or": [{"revision": {"$lt": revision}}, {"revision": None}]}
        with suppress(DuplicateKeyError):  # there is a later one
            self.db.endpoints.replace_one(older, document, upsert=True)

    def await_revision(self, name: str, revision: int, timeout_s: float = 5.0) -> None:
        """Wait until a change that was announced is there; not for ever, since its maker may have died."""
        deadline = time.monotonic() + timeout_s
        while revision and time.monotonic() < deadline:
            found = self.db.endpoints.find_one({"_id": name}, {"revision": 1}) or {}
            if (found.get("revision") or 0) >= revision:
                return
            time.sleep(0.05)

    def deployment(self, name: str) -> Deployment:
        document = self.db.deployments.find_one({"_id": name})
        if document is None:
            raise NotFound(f"There is no deployment {name!r}. See what there is:  yard status")
        return deployment_of(document)

    def deployments(self) -> list[Deployment]:
        return [deployment_of(document) for document in self.db.deployments.find().sort("_id", 1)]

    def remove_deployment(self, name: str) -> None:
        self.db.deployments.delete_one({"_id": name})

    def put_deployment(self, deployment: Deployment) -> None:
        document = {**asdict(deployment), "updated_at": datetime.now(UTC)}
        self.db.deployments.replace_one({"_id": deployment.name}, document, upsert=True)


def endpoint_of(document: Mapping[str, Any]) -> Endpoint:
    """An endpoint as it is kept."""
    runs = tuple((int(end), str(variant)) for end, variant in document["runs"])
    shadow = document.get("shadow")
    return Endpoint(
        document["_id"],
        document["salt"],
        document["variants"],
        BucketTable(runs),
        document["default"],
        document.get("timeout_s", TIMEOUT_S),
        Shadow(**shadow) if shadow else None,
        document.get("revision") or 0,
        feedback_days=document.get("feedback_days", FEEDBACK_DAYS),
    )


def deployment_of(document: Mapping[str, Any]) -> Deployment:
    """A deployment as it is kept."""
    ports = document["ports"] if "ports" in document else [document["port"]]  # there was one, when it was written
    known = {key: document[key] for key in Deployment.__dataclass_fields__ if key != "ports" and key in document}
    return Deployment(**known, ports=tuple(ports))
