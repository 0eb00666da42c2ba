"""A Ray Serve deployment with one replica, on a Ray of its own that ends with this program."""

import os
import signal

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
class Predictor:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    async def __call__(self, request: Request) -> dict[str, list[str]]:
        rows = (await request.json())["instances"]
        return {"predictions": self.model.predict(np.array(rows)).tolist()}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: exit())  # so that Ray's own processes end, too
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(Predictor.bind(), route_prefix="/predict", logging_config={"enable_access_log": False})
    signal.pause()
