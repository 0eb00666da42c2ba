"""The desired state as one document: what the console tells gateways that are not on its machine.

What must not lie in a database, the secret and the certificate, a gateway has from files of its own.
"""

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pymongo.database import Database

from modelyard_serving.endpoints import deployment_of, endpoint_of
from modelyard_serving.errors import Unavailable
from modelyard_serving.gateway.config import Gateway
from modelyard_serving.keys import rates, revoked

Json = dict[str, Any]
STAGE = "stage"  # the one document of the collection of that name
HEARD_S = 10.0  # a gateway that has said nothing for so long is taken for gone


def desired(db: "Database[Json]") -> Json:
    """What gateways should run with."""
    without = {"updated_at": 0}
    stage = db.stage.find_one({"_id": STAGE}) or {}
    return {
        "endpoints": list(db.endpoints.find({}, without).sort("_id", 1)),
        "deployments": list(db.deployments.find({}, without).sort("_id", 1)),
        "revoked": revoked(db),
        "rates": rates(db),
        "jwks": stage.get("jwks", {"keys": []}),
    }


def digest_of(document: Json) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def gateway_of(document: Mapping[str, Any], **own: Any) -> Gateway:
    """The gateway that runs with it.

    Args:
        own: what of `Gateway` the document does not say: ports, secret, certificate.
    """
    deployments = [deployment_of(each) for each in document["deployments"]]
    known = {deployment.name for deployment in deployments}
    endpoints = [endpoint_of(each) for each in document["endpoints"]]
    # Read one after the other, these may be of two moments: a gateway waits for the next one.
    whole = [endpoint for endpoint in endpoints if set(endpoint.variants.values()) <= known]
    return Gateway(
        jwks=document["jwks"],
        revoked=document["revoked"],
        rates=document["rates"],
        endpoints=whole,
        deployments=deployments,
        **own,
    )


def heard(db: "Database[Json]", gateway: str, digest: str, fault: str) -> None:
    """Note what a gateway says that it runs with; the empty digest: it is about to end."""
    if not digest:
        db.gateways.delete_one({"_id": gateway})
        return
    said = {"digest": digest, "fault": fault, "at": datetime.now(UTC)}
    db.gateways.replace_one({"_id": gateway}, said, upsert=True)


class FollowingGateways:
    """Gateways that ask the console for the desired state, as `gateway.follow` does."""

    def __init__(self, db: "Database[Json]", timeout_s: float = 20) -> None:
        self._db, self._timeout_s = db, timeout_s

    def publish(self) -> None:
        """Wait until every gateway that was heard of lately runs with the desired state.

        Raises:
            Unavailable: one of them does not, or there is none.
        """
        deadline = time.monotonic() + self._timeout_s
        while late := self.late():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{late}.\nThe change is written down, and they take it over as soon as they can. See:  yard status"
                )
            time.sleep(0.1)

    def late(self) -> str:
        """Which gateways do not run with the desired state, in words; empty where all do."""
        wanted = digest_of(desired(self._db))
        alive = list(self._db.gateways.find({"at": {"$gt": datetime.now(UTC) - timedelta(seconds=HEARD_S)}}))
        if not alive:
            return f"No gateway was heard of for {HEARD_S:.0f} s"
        return "; ".join(
            f"the gateway {each['_id']} goes on with the state before" + (f": {each['fault']}" if each["fault"] else "")
            for each in alive
            if each["digest"] != wanted
        )
