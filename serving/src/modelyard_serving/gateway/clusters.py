"""Whom the gateway asks: a cluster per deployment with its replicas, and the console. Pure: values in, documents out.

One deployment that is slow, full or away costs the others nothing: each has its own connections and its own limits.
"""

from collections.abc import Sequence
from typing import Any

from modelyard_serving.endpoints import Deployment

Json = dict[str, Any]
_TYPE = "type.googleapis.com/"
# The console's uvicorn closes a connection that was idle for 5 s, a runtime later. Envoy must let go of it first: a
# request sent into a connection that is being closed is lost, and a POST is not sent again.
UPSTREAM_IDLE_S = 3
# A replica answers one after the other whatever it is sent, so more at once is only a longer queue in front of it:
# what comes beyond is refused at once, and the caller told when to come again.
REQUESTS_PER_REPLICA = 512
PENDING_PER_REPLICA = 128
# A replica that says that it is ready is asked again at once, however long it was to be left out.
_READINESS = {
    "http_health_check": {"path": "/readyz"},
    "interval": "0.25s",
    "no_traffic_interval": "0.25s",
    "timeout": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
}


# Pods come and go, and with them the addresses behind their one name.
_BY_NAME = {
    "cluster_type": {
        "name": "envoy.cluster.dns",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.clusters.dns.v3.DnsCluster",
            "dns_refresh_rate": "0.5s",
            "dns_failure_refresh_rate": {"base_interval": "0.2s", "max_interval": "1s"},
            "dns_lookup_family": "V4_PREFERRED",
        },
    },
    "ignore_health_on_host_removal": True,  # who was taken out of the name is about to end
}
Addresses = Sequence[tuple[str, int]]


def clusters(console: tuple[str, int], deployments: Sequence[Deployment]) -> list[Json]:
    return [_cluster("console", (console,), 1), *(_cluster(d.name, d.addresses, d.size) for d in deployments)]


def retry_policy(replicas: int) -> Json:
    """What is asked again: only what another replica may answer, and only where the answer has not begun.

    With one replica only what never reached it: a connection that could not be made, or was closed before the request.
    What a replica refuses because it is full is not asked of the others: they are as full, and it would fill them more.
    """
    if replicas < 2:
        return {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 1}
    return {
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 2,  # where both of two were away for a moment, the first is asked once more
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
        # The least busy of two drawn at random is the dead one, most often: it answers nothing at all. 5 draws, the
        # usual number, were seen to end there in one retry of six.
        "host_selection_retry_max_attempts": 100,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
    }


def _cluster(name: str, addresses: Addresses, replicas: int) -> Json:
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in addresses
    ]
    limits = {
        "max_connections": REQUESTS_PER_REPLICA * replicas,
        "max_pending_requests": PENDING_PER_REPLICA * replicas,
        "max_requests": REQUESTS_PER_REPLICA * replicas,
        # All that a replica had is asked again at once when it dies; 3 at a time is Envoy's own limit. A budget, a
        # share of what is under way, was seen to refuse some: what has just failed is not under way. Load makes no
        # retries (see `retry_policy`), so there is no storm to be afraid of.
        "max_retries": REQUESTS_PER_REPLICA * replicas,
    }
    cluster: Json = {
        "@type": _TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        **({"type": "STATIC"} if all(map(_is_number, addresses)) else _BY_NAME),
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # Where none of them is well, all are asked; where half of them are not, they are left alone. Who is well is
        # said to Envoy's workers at once: it would gather for a second, and a replica that is back got nothing so long.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_S}s"},
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    }
    if replicas > 1:
        cluster["outlier_detection"] = _ejection(replicas)
    if replicas > 1 or ("type" not in cluster and name != "console"):
        cluster["health_checks"] = [_READINESS]
    return cluster


def _is_number(address: tuple[str, int]) -> bool:
    return address[0].replace(".", "").isdecimal()


def _ejection(replicas: int) -> Json:
    """A replica that cannot be reached, or breaks off, or is silent until the time is up, is left out for a while.

    Never the last one. And never for what it answers: a replica that is full says 503, and to send its share to the
    others would fill them, too.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 100 * (replicas - 1) // replicas,
    }
