"""Which address leads where, and what it takes to go there. Pure: values in, documents out.

Every route carries its rule in its metadata; the Lua filter refuses what has none. A route per variant is chosen by
the header that the filter sets; what is the same for all routes is metadata of their virtual host.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from modelyard_serving.endpoints import Deployment, Endpoint
from modelyard_serving.gateway.clusters import retry_policy

Json = dict[str, Any]
LUA = "envoy.filters.http.lua"
_TYPE = "type.googleapis.com/"
ANSWERS = ("predict", "invocations")  # the runtime's doors that ask the model, beside v2's infer


@dataclass(frozen=True, slots=True)
class Address:
    """One address of callers, and what the runtime calls it."""

    path: str
    runtime: str
    predicts: bool


def addresses(endpoint: str, version: int | None = None) -> Iterator[Address]:
    """Every door of an endpoint, or of one exact version behind it."""
    exact = "" if version is None else f"/versions/{version}"
    for door in (*ANSWERS, "provenance"):
        yield Address(f"/v1/endpoints/{endpoint}{exact}/{door}", f"/{door}", door in ANSWERS)
    for door in ("", "/ready", "/infer"):
        path = f"/v2/models/{endpoint}{exact}{door}"
        yield Address(path, path, door == "/infer")


def route_configuration(
    endpoints: Sequence[Endpoint],
    deployments: Sequence[Deployment],
    secret: str,
    revoked: Sequence[str],
    body_bytes: int,
) -> Json:
    by_name = {deployment.name: deployment for deployment in deployments}
    routes = [*_fixed()]
    for endpoint in endpoints:
        for page in ("results", "report"):
            routes.append(_to_console(f"/v1/endpoints/{endpoint.name}/{page}", "GET", f"read:{endpoint.name}"))
        routes += _of_variants(endpoint, by_name)
        for deployment in deployments:
            if deployment.model == endpoint.name:
                routes += _of_version(endpoint, deployment)
    everywhere = {
        "revoked": dict.fromkeys(revoked, True),
        "revoked_digest": _digest(sorted(revoked)),
        "body_bytes": body_bytes,
    }
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": routes,
        "metadata": {"filter_metadata": {LUA: everywhere}},
    }
    return {
        "@type": _TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": "gateway",
        "virtual_hosts": [host],
        "request_headers_to_add": [_header("x-gateway-secret", secret)],
        "response_headers_to_remove": ["server"],
    }


def _fixed() -> Iterator[Json]:
    yield _to_console("/healthz", "GET", None)
    yield _to_console("/v1/feedback", "POST", "feedback:any")
    # Of the gateway itself: a client of the Open Inference Protocol asks this before it asks a model.
    server = {"name": "modelyard", "version": "2", "extensions": []}
    yield _says("/v2", server, {"scope": "predict:any"})
    yield _says("/v2/health/live", {"live": True}, {"public": True})
    yield _says("/v2/health/ready", {"ready": True}, {"public": True})


def _of_variants(endpoint: Endpoint, deployments: Mapping[str, Deployment]) -> Iterator[Json]:
    rule = {
        **_rule(endpoint),
        "salt": endpoint.salt,
        "default": endpoint.default,
        "runs": [{"end": end, "variant": variant} for end, variant in endpoint.table.runs],
        "split_digest": _digest([endpoint.default, endpoint.table.runs]),
    }
    for address in addresses(endpoint.name):
        for variant, name in sorted(endpoint.variants.items()):
            route = _to_replicas(address, endpoint, deployments[name], rule)
            route["match"]["headers"] = [_is("x-variant", variant)]
            route["response_headers_to_add"] = [_header("x-variant", variant)]
            shadow = endpoint.shadow
            if shadow and address.predicts and variant != shadow.variant:
                copied = _copies(endpoint.variants[shadow.variant], shadow.variant, shadow.percent)
                route["route"]["request_mirror_policies"] = [copied]
            yield route
        # Met before the Lua filter has chosen a variant, and never after.
        yield _route(address.path, rule) | {"direct_response": {"status": 503}}


def _of_version(endpoint: Endpoint, deployment: Deployment) -> Iterator[Json]:
    for address in addresses(endpoint.name, deployment.version):
        yield _to_replicas(address, endpoint, deployment, _rule(endpoint))


def _digest(said: Any) -> str:
    """By which the Lua filter knows whether what it keeps is still so."""
    return sha256(orjson.dumps(said)).hexdigest()[:16]


def _rule(endpoint: Endpoint) -> Json:
    return {"scope": f"predict:{endpoint.name}", "endpoint": endpoint.name, "epoch": endpoint.revision}


def _to_replicas(address: Address, endpoint: Endpoint, deployment: Deployment, rule: Json) -> Json:
    action = {
        "cluster": deployment.name,
        "timeout": f"{endpoint.timeout_s:g}s",
        "idle_timeout": f"{endpoint.timeout_s + 5:g}s",
        "retry_policy": retry_policy(deployment.size),
        "prefix_rewrite": address.runtime,
    }
    return _route(address.path, rule) | {"route": action}


def _to_console(path: str, method: str, scope: str | None) -> Json:
    route = _route(path, {"scope": scope} if scope else {"public": True})
    route["match"]["headers"] = [_is(":method", method)]
    return route | {"route": {"cluster": "console", "timeout": "30s", "retry_policy": retry_policy(1)}}


def _says(path: str, document: Json, rule: Json) -> Json:
    said = {"status": 200, "body": {"inline_string": orjson.dumps(document).decode()}}
    return _route(path, rule) | {"direct_response": said}


def _route(path: str, rule: Json) -> Json:
    return {"match": {"path": path}, "metadata": {"filter_metadata": {LUA: rule}}}


def _copies(cluster: str, variant: str, percent: float) -> Json:
    """Send a copy of so many of the requests there, too; nobody waits for what is answered to it."""
    said = (_header("x-shadow", "1"), _header("x-variant", variant))
    return {
        "cluster": cluster,
        "runtime_fraction": {"default_value": {"numerator": round(percent * 100), "denominator": "TEN_THOUSAND"}},
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": header} for header in said],
    }


def _is(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
