"""Envoy's configuration, rendered from the desired state. Pure: values in, documents out.

The files that Envoy watches, and the one it starts from (`bootstrap.json`). A new file takes the old one's place by
rename, and Envoy takes it over without a restart or a dropped request. What changes while callers are connected
(keys, rates, certificate) is a file of its own: a listener that changes lets go of its connections.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard_serving.endpoints import Deployment, Endpoint
from modelyard_serving.gateway.clusters import clusters
from modelyard_serving.gateway.listener import JWT, RATES, TLS, Certificate, Limits, listener, watched
from modelyard_serving.gateway.routes import route_configuration
from modelyard_serving.sockets import socket_path

Json = dict[str, Any]
_TYPE = "type.googleapis.com/"
MAX_TOKENS = 2**32 - 1


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
    rates: Mapping[str, int] = field(default_factory=dict)  # id of a key -> requests per second
    certificate: Certificate | None = None
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    host: str = "127.0.0.1"  # where it listens
    console_host: str = "127.0.0.1"


def admin_socket(folder: Path) -> Path:
    """Where Envoy is asked what it runs with."""
    return socket_path(folder / "admin.sock")


def bootstrap(folder: Path, limits: Limits) -> Json:
    """What Envoy starts from: where to watch, and an admin door that is a file only its owner opens."""
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": limits.connections,
        },
    }
    return {
        "node": {"id": "gateway", "cluster": "modelyard"},
        "admin": {"address": {"pipe": {"path": str(admin_socket(folder)), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": watched(folder, "cds"), "lds_config": watched(folder, "lds")},
        "overload_manager": {"resource_monitors": [connections]},
    }


def resources(gateway: Gateway, folder: Path) -> dict[str, Json]:
    """The watched files by name, in the order in which they should be written."""
    limits = gateway.limits
    routes = route_configuration(
        gateway.endpoints, gateway.deployments, gateway.secret, gateway.revoked, limits.body_bytes
    )
    files = {
        "cds.json": _file(clusters((gateway.console_host, gateway.console_port), gateway.deployments)),
        "jwt.json": _file([_filter(JWT, _jwt(gateway.jwks))]),
        "rates.json": _file([_filter(RATES, _rates(gateway.rates))]),
        "rds.json": _file([routes]),
        "lds.json": _file(
            [listener(gateway.host, gateway.port, folder, limits, secure=gateway.certificate is not None)]
        ),
    }
    if gateway.certificate is not None:
        return {"tls.json": _file([_certificate(gateway.certificate)]), **files}
    return files


def _file(resources: list[Json]) -> Json:
    # The version is the content's digest: Envoy reports the one in force, so a change can be waited for.
    version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
    return {"version_info": version, "resources": resources}


def _filter(name: str, config: Json) -> Json:
    return {"@type": _TYPE + "envoy.config.core.v3.TypedExtensionConfig", "name": name, "typed_config": config}


def _jwt(jwks: Mapping[str, Any]) -> Json:
    kind = _TYPE + "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
    if not jwks["keys"]:  # nobody has issued a key yet: the Lua filter refuses whoever comes without
        return {"@type": kind}
    provider = {
        "issuer": "modelyard",
        "local_jwks": {"inline_string": json.dumps(jwks)},
        "payload_in_metadata": "jwt",
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    # A missing key passes this filter and is refused by the Lua filter, which knows which routes are public.
    requires = {"requires_any": {"requirements": [{"provider_name": "modelyard"}, {"allow_missing": {}}]}}
    return {
        "@type": kind,
        "providers": {"modelyard": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
    }


def _rates(rates: Mapping[str, int]) -> Json:
    """A bucket for each key that has a rate; the others are never empty."""
    whole = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": _TYPE + "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "keys",
        "token_bucket": _bucket(MAX_TOKENS),
        "filter_enabled": whole,
        "filter_enforced": whole,
        "always_consume_default_token_bucket": False,
        "rate_limits": [{"actions": [{"request_headers": {"header_name": "x-key-id", "descriptor_key": "key"}}]}],
        "descriptors": [
            {"entries": [{"key": "key", "value": key}], "token_bucket": _bucket(rate)}
            for key, rate in sorted(rates.items())
        ],
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
    }


def _bucket(tokens: int) -> Json:
    return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "1s"}


def _certificate(certificate: Certificate) -> Json:
    """Read from its files whenever their folder changes: a renewed one is in force without a word to us."""
    return {
        "@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": TLS,
        "tls_certificate": {
            "certificate_chain": {"filename": str(certificate.chain)},
            "private_key": {"filename": str(certificate.key)},
            "watched_directory": {"path": str(certificate.chain.parent)},
        },
    }
