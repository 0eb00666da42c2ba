"""What the path from caller to model carries: straight to the runtime, and through Envoy with key, split and audit.

A first reading of the spine, on one process of BentoML's own server; the ratios are what to watch. Runs in
the repository's own `.yard`, on whatever `yard demo` has deployed there.
"""

import json
import sys

from load import post
from table import print_table

import modelyard
from modelyard_serving.errors import NotFound

CONNECTIONS = 32
SECONDS = 5


def main() -> None:
    yard = modelyard.open()
    ran_before = yard.stack.processes.running()
    try:
        if faults := yard.up():
            sys.exit("\n".join(faults))
        endpoint = yard.endpoints.endpoint("tumor")
    except NotFound:
        sys.exit("Nothing is deployed yet. Run first:  yard demo")
    else:
        print_table("The path to a scikit-learn pipeline of 30 features, one row per request", _measure(yard, endpoint))
    finally:
        if not ran_before:
            yard.stack.down()


def _measure(yard: "modelyard.yard.Yard", endpoint) -> dict[str, float]:
    deployment = yard.endpoints.deployment(endpoint.variants[endpoint.default])
    body = (yard.settings.home / "demo-row.json").read_bytes()
    many = json.dumps({"rows": json.loads(body)["rows"] * 100}).encode()
    _, token = yard.issue_key("bench", ["predict:tumor"], days=1)
    key = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    # Straight to the runtime: the gateway's own headers, so that the same code runs.
    inside = {"x-gateway-secret": yard.stack.secret(), "content-type": "application/json"}
    path = "/v1/endpoints/tumor/predict"
    runs = {
        "runtime": lambda: post(deployment.ports[0], "/predict", inside, body, CONNECTIONS, SECONDS),
        "gateway": lambda: post(yard.settings.gateway_port, path, key, body, CONNECTIONS, SECONDS),
        "runtime_c1": lambda: post(deployment.ports[0], "/predict", inside, body, 1, SECONDS),
        "gateway_c1": lambda: post(yard.settings.gateway_port, path, key, body, 1, SECONDS),
        "gateway_rows100": lambda: post(yard.settings.gateway_port, path, key, many, CONNECTIONS, SECONDS),
    }
    runs["runtime"]()  # warm
    figures: dict[str, float] = {}
    for name, run in runs.items():
        load = run()
        figures |= {
            f"{name}_per_s": load.per_second,
            f"{name}_p50_ms": load.percentile_ms(50),
            f"{name}_p99_ms": load.percentile_ms(99),
            f"{name}_failures": load.failures,
        }
    figures["gateway_vs_runtime"] = figures["gateway_per_s"] / figures["runtime_per_s"]
    return figures


if __name__ == "__main__":
    main()
