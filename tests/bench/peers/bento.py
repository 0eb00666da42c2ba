"""A plain BentoML service, and one that batches across requests, as BentoML's own documentation writes them."""

import os

import bentoml
import joblib
import numpy as np

QUIET = {"access": {"enabled": False}}


@bentoml.service(workers=1, logging=QUIET)
class Plain:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, instances: np.ndarray) -> list[str]:
        return self.model.predict(instances).tolist()

    @bentoml.api(batchable=True)
    def predict_batch(self, instances: np.ndarray) -> list[str]:
        return self.model.predict(instances).tolist()
