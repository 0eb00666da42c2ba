"""What Prometheus is asked for is what somebody says."""

import json
import re

from modelyard_serving.runtime.metrics import Metrics
from rendering import Object, Rendered, named, of_kind


def of_ours(text: str) -> set[str]:
    return set(re.findall(r"\bmodelyard_[a-z_]+\b", text))


def of_envoys(text: str) -> set[str]:
    return set(re.findall(r"\benvoy_(?:cluster|http|listener|server)_[a-z_]+\b", text)) - {
        "envoy_cluster_name", "envoy_http_conn_manager_prefix",
    }  # fmt: skip


def asked_of_prometheus(rendered: Rendered) -> str:
    """Every expression in rules, dashboards and scalers."""
    production = rendered["production"]
    [dashboard] = [c for c in of_kind(production, "ConfigMap") if c["metadata"]["labels"].get("grafana_dashboard")]
    panels = json.loads(dashboard["data"]["modelyard.json"])["panels"]
    scaler = of_kind(rendered["zero"], "ScaledObject")[0]["spec"]["triggers"][0]["metadata"]["query"]
    scaled_by = re.search(r'__name__=~"(\w+)\((.*)\)"', scaler)
    assert scaled_by is not None
    return "\n".join(
        [
            *(target["expr"] for panel in panels for target in panel["targets"]),
            *(r["expr"] for g in of_kind(production, "PrometheusRule")[0]["spec"]["groups"] for r in g["rules"]),
            *(scaled_by[1] + name for name in scaled_by[2].split("|")),
            of_kind(rendered["elastic"], "HorizontalPodAutoscaler")[0]["spec"]["metrics"][0]["pods"]["metric"]["name"],
        ]
    )


def test_what_prometheus_is_asked_for_is_what_the_runtime_says(rendered: Rendered) -> None:
    metrics = Metrics()
    metrics.asked(1)
    metrics.answered("native", 200, 0.1)
    page = metrics.page().decode()
    told = {line.partition("{")[0].partition(" ")[0] for line in page.splitlines() if not line.startswith("#")}
    asked = of_ours(asked_of_prometheus(rendered))
    assert asked
    assert asked <= told


def test_what_is_asked_of_envoys_counters_is_kept(rendered: Rendered) -> None:
    monitor = named(rendered["production"], "PodMonitor", "gateway")
    [relabeling] = monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    asked = of_envoys(asked_of_prometheus(rendered))
    assert asked
    assert not {name for name in asked if not re.fullmatch(relabeling["regex"], name)}


def test_an_alert_says_what_to_do_or_what_it_means(production: tuple[Object, ...]) -> None:
    for group in named(production, "PrometheusRule", "modelyard")["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert len(rule["annotations"]["summary"]) > 40, rule["alert"]
