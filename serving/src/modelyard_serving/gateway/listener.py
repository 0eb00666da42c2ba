"""Where callers arrive: what a connection and a request may take, and the filters that each request passes. Pure."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from modelyard_serving.errors import MLFLOW_CODES, MLFLOW_OTHERWISE
from modelyard_serving.gateway.routes import LUA

Json = dict[str, Any]
_TYPE = "type.googleapis.com/"
JWT = "envoy.filters.http.jwt_authn"
RATES = "envoy.filters.http.local_ratelimit"
TLS = "gateway"  # what the certificate is called between Envoy's files

# Only the gateway says these: what a caller sends under these names is gone before anything looks at the request.
OURS = (
    "x-gateway-secret", "x-caller", "x-key-id", "x-assigned-by", "x-bucket", "x-endpoint", "x-variant", "x-epoch",
    "x-shadow", "x-prediction-id", "x-request-id", "x-scopes",
)  # fmt: skip
# What Envoy says of requests that it could not have answered: by its own flags, or by the status alone.
_SAID = (
    ("UO", 503, "the model has as many requests as it can hold; try again"),
    ("UF,UC,UH,LR", 503, "the model cannot be reached; try again"),
    ("UT", 504, "the model took longer than this endpoint allows"),
    ("", 429, "this key has used up its requests for now"),
)
_TO_MLFLOW = {
    "header_filter": {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": r".*/invocations(\?.*)?"}}}}
}
# What a route says by itself is JSON already.
_ITS_OWN_WORDS = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"}


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM: a certificate with those that lead to its authority, and its private key."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may take of the gateway."""

    connections: int = 16_000  # of all callers together
    headers_s: float = 10  # until a request's headers are there
    request_s: float = 60  # until all of it is there
    idle_s: float = 300  # a connection without a request
    headers_kb: int = 16
    headers: int = 100
    body_bytes: int = 10 * 2**20


def watched(folder: Path, name: str) -> Json:
    """A file that Envoy reads anew when another takes its place."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(folder / f"{name}.json"), "watched_directory": {"path": str(folder)}},
    }


def listener(host: str, port: int, folder: Path, limits: Limits, *, secure: bool) -> Json:
    manager = {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {"route_config_name": "gateway", "config_source": watched(folder, "rds")},
        "early_header_mutation_extensions": [_forget()],
        "http_filters": [
            _watched_filter(JWT, "jwt", folder, "jwt_authn.v3.JwtAuthentication"),
            _lua(),
            _watched_filter(RATES, "rates", folder, "local_ratelimit.v3.LocalRateLimit"),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "local_reply_config": _replies(),
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "request_timeout": f"{limits.request_s:g}s",
        "request_headers_timeout": f"{limits.headers_s:g}s",
        "stream_idle_timeout": f"{limits.request_s:g}s",
        "max_request_headers_kb": limits.headers_kb,
        "common_http_protocol_options": {
            "idle_timeout": f"{limits.idle_s:g}s",
            "max_headers_count": limits.headers,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 2**16,
            "initial_connection_window_size": 2**20,
        },
    }
    chain: Json = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if secure:
        chain["transport_socket"] = _tls(folder)
    return {
        "@type": _TYPE + "envoy.config.listener.v3.Listener",
        "name": "gateway",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [chain],
    }


def _forget() -> Json:
    """Drop what only the gateway may say, and what would tell Envoy how long to wait and how often to try."""
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [
                *({"remove": name} for name in OURS),
                {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
            ],
        },
    }


def _replies() -> Json:
    """Envoy's own refusals speak JSON like everybody else's, and MLflow's door says them as MLflow would."""
    said = [(status, _reply(flags, status, text)) for flags, status, text in _SAID]
    as_was_said = [(status, {"filter": _status(status)}) for status in MLFLOW_CODES]
    return {
        "mappers": [  # the first that fits
            {"filter": _status(200), "body_format_override": _ITS_OWN_WORDS},
            *(
                {**reply, "filter": _both(_TO_MLFLOW, reply["filter"]), **_by_mlflows_name(MLFLOW_CODES[status])}
                for status, reply in (*said, *as_was_said)
            ),
            {"filter": _TO_MLFLOW, **_by_mlflows_name(MLFLOW_OTHERWISE)},
            *(reply for _, reply in said),
        ],
        "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
    }


def _reply(flags: str, status: int, text: str) -> Json:
    when = {"response_flag_filter": {"flags": flags.split(",")}} if flags else _status(status)
    reply: Json = {"filter": when, "body": {"inline_string": text}}
    if status == 503:
        reply["headers_to_add"] = [{"header": {"key": "retry-after", "value": "1"}}]
    return reply


def _by_mlflows_name(code: str) -> Json:
    return {"body_format_override": {"json_format": {"error_code": code, "message": "%LOCAL_REPLY_BODY%"}}}


def _both(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def _status(code: int) -> Json:
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": code, "runtime_key": "none"}}}}


def _watched_filter(name: str, file: str, folder: Path, kind: str) -> Json:
    source = {"config_source": watched(folder, file), "type_urls": [f"{_TYPE}envoy.extensions.filters.http.{kind}"]}
    return {"name": name, "config_discovery": source}


def _lua() -> Json:
    script = (files("modelyard_serving.gateway") / "assign.lua").read_text()
    return {
        "name": LUA,
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    }


def _tls(folder: Path) -> Json:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [{"name": TLS, "sds_config": watched(folder, "tls")}],
            },
        },
    }
