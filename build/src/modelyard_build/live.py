"""What is live: the manifests of the versions that answer under an endpoint now."""

from pathlib import Path
from typing import Any

from pymongo.database import Database

from modelyard_build.errors import Refused
from modelyard_serving.endpoints import EndpointStore
from modelyard_serving.errors import NotFound
from modelyard_serving.errors import Refused as Unreadable
from modelyard_serving.manifest import Manifest


def live_manifests(db: "Database[dict[str, Any]]", model: str, version: int) -> tuple[Manifest, ...]:
    """The manifests of the other versions of `model` that have a share of its endpoint's traffic, the oldest first.

    Raises:
        Refused: a live version's bento is gone, so nobody knows what its callers send.
    """
    store = EndpointStore(db)
    try:
        endpoint = store.endpoint(model)
    except NotFound:
        return ()
    shares = endpoint.table.shares()
    live = [store.deployment(name) for variant, name in endpoint.variants.items() if shares.get(variant)]
    manifests = []
    for deployment in sorted(live, key=lambda deployment: deployment.version):
        if deployment.version == version:
            continue
        try:
            manifests.append(Manifest.read(Path(deployment.bento_path) / "src"))
        except Unreadable as error:
            ref = f"{deployment.model}:{deployment.version}"
            raise Refused(
                f"{ref} is live, and what its callers send cannot be read: {error}\nBuild it again:  yard build {ref}"
            ) from error
    return tuple(manifests)
