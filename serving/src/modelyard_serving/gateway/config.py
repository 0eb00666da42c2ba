"""Envoy's configuration, rendered from the desired state. Pure: values in, documents out.

Three files that Envoy watches (`cds.json`, `lds.json`, `rds.json`) and one it starts from (`bootstrap.json`).
A new file takes the old one's place by rename and Envoy takes it over without a restart or a dropped
request. Every route carries a rule in its metadata; a route without one is refused by the Lua filter.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from modelyard_serving.endpoints import Deployment, Endpoint
from modelyard_serving.sockets import socket_path

Json = dict[str, Any]
LUA = "envoy.filters.http.lua"
_TYPE = "type.googleapis.com/"
# uvicorn closes a connection that was idle for 5 s. Envoy must let go of it first: a request sent into a
# connection that is being closed is lost, and a POST is not sent again.
UPSTREAM_IDLE_S = 3
DOORS = ("predict", "provenance")  # the runtime's addresses that callers may reach


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything the data plane needs to know."""

    port: int
    console_port: int
    secret: str
    jwks: Mapping[str, Any]
    revoked: Sequence[str]
    endpoints: Sequence[Endpoint]
    deployments: Sequence[Deployment]


def admin_socket(folder: Path) -> Path:
    """Where Envoy is asked what it runs with."""
    return socket_path(folder / "admin.sock")


def bootstrap(folder: Path) -> Json:
    """What Envoy starts from: where to watch, and an admin door that is a file only its owner opens."""

    def watched(name: str) -> Json:
        return {
            "resource_api_version": "V3",
            "path_config_source": {"path": str(folder / name), "watched_directory": {"path": str(folder)}},
        }

    return {
        "node": {"id": "gateway", "cluster": "modelyard"},
        "admin": {"address": {"pipe": {"path": str(admin_socket(folder)), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": watched("cds.json"), "lds_config": watched("lds.json")},
    }


def resources(gateway: Gateway, folder: Path) -> dict[str, Json]:
    """The watched files by name, in the order in which they should be written."""
    return {
        "cds.json": _file([_cluster(name, port) for name, port in _upstreams(gateway)]),
        "rds.json": _file([_routes(gateway)]),
        "lds.json": _file([_listener(gateway, folder)]),
    }


def _file(resources: list[Json]) -> Json:
    # The version is the content's digest: Envoy reports the one in force, so a change can be waited for.
    version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
    return {"version_info": version, "resources": resources}


def _upstreams(gateway: Gateway) -> list[tuple[str, int]]:
    return [("console", gateway.console_port), *((d.name, d.port) for d in gateway.deployments)]


def _cluster(name: str, port: int) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "@type": _TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_S}s"},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _routes(gateway: Gateway) -> Json:
    routes: list[Json] = [
        _route("/healthz", "console", {"public": True}, methods="GET"),
        _route("/v1/feedback", "console", _rule(gateway, "feedback:any"), methods="POST"),
    ]
    for endpoint in gateway.endpoints:
        results = f"/v1/endpoints/{endpoint.name}/results"
        routes.append(_route(results, "console", _rule(gateway, f"read:{endpoint.name}"), methods="GET"))
        routes += _endpoint_routes(gateway, endpoint)
    return {
        "@type": _TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": "gateway",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        "request_headers_to_add": [_header("x-gateway-secret", gateway.secret)],
        "response_headers_to_remove": ["server"],
    }


def _endpoint_routes(gateway: Gateway, endpoint: Endpoint) -> list[Json]:
    """A route per variant, chosen by the header that the Lua filter sets; then one per exact version."""
    rule = {
        **_rule(gateway, f"predict:{endpoint.name}"),
        "endpoint": endpoint.name,
        "salt": endpoint.salt,
        "default": endpoint.default,
        "runs": [{"end": end, "variant": variant} for end, variant in endpoint.table.runs],
    }
    routes = []
    for door in DOORS:
        address = f"/v1/endpoints/{endpoint.name}/{door}"
        for variant, deployment in sorted(endpoint.variants.items()):
            routes.append(_route(address, deployment, rule, door=door, variant=variant))
        # Without a variant nothing is routed: this one is only met before the Lua filter has chosen.
        routes.append(_route(address, min(endpoint.variants.values()), rule, door=door))
        for exactly in (d for d in gateway.deployments if d.model == endpoint.name):
            exact = f"/v1/endpoints/{endpoint.name}/versions/{exactly.version}/{door}"
            exact_rule = {**_rule(gateway, f"predict:{endpoint.name}"), "endpoint": endpoint.name}
            routes.append(_route(exact, exactly.name, exact_rule, door=door))
    return routes


def _rule(gateway: Gateway, scope: str) -> Json:
    return {"scope": scope, "revoked": dict.fromkeys(gateway.revoked, True)}


def _route(
    path: str,
    cluster: str,
    rule: Json,
    *,
    methods: str | None = None,
    door: str | None = None,
    variant: str | None = None,
) -> Json:
    headers: list[Json] = []
    if methods:
        headers.append({"name": ":method", "string_match": {"exact": methods}})
    if variant:
        headers.append({"name": "x-variant", "string_match": {"exact": variant}})
    action: Json = {
        "cluster": cluster,
        "timeout": "30s",
        "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2},
    }
    if door:
        action["regex_rewrite"] = {"pattern": {"regex": ".*/"}, "substitution": "/"}
    route: Json = {
        "match": {"path": path, **({"headers": headers} if headers else {})},
        "route": action,
        "metadata": {"filter_metadata": {LUA: rule}},
    }
    if variant:
        route["response_headers_to_add"] = [_header("x-variant", variant)]
    return route


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _listener(gateway: Gateway, folder: Path) -> Json:
    manager = {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {
            "route_config_name": "gateway",
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(folder / "rds.json"), "watched_directory": {"path": str(folder)}},
            },
        },
        "http_filters": [
            _jwt(gateway),
            _lua(),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        # Envoy's own refusals speak JSON like everybody else's.
        "local_reply_config": {"body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}},
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "request_timeout": "60s",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "60s",
        "common_http_protocol_options": {"idle_timeout": "300s", "headers_with_underscores_action": "REJECT_REQUEST"},
    }
    return {
        "@type": _TYPE + "envoy.config.listener.v3.Listener",
        "name": "gateway",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": gateway.port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _jwt(gateway: Gateway) -> Json:
    provider = {
        "issuer": "modelyard",
        "local_jwks": {"inline_string": json.dumps(gateway.jwks)},
        "payload_in_metadata": "jwt",
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    # A missing key passes this filter and is refused by the Lua filter, which knows which routes are public.
    requires = {"requires_any": {"requirements": [{"provider_name": "modelyard"}, {"allow_missing": {}}]}}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"modelyard": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        },
    }


def _lua() -> Json:
    script = (files("modelyard_serving.gateway") / "assign.lua").read_text()
    return {
        "name": LUA,
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    }
