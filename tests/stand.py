"""A whole serving stack with real models on it, without the road that leads there: for tests that disturb it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import psutil
from sklearn.linear_model import LinearRegression

from asking import Callers
from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_serving.endpoints import Deployment
from modelyard_serving.local_stage import free_port
from modelyard_serving.manifest import Manifest
from modelyard_tracking.store import Home
from packed import pack
from shipping import ship

FRAME = pd.DataFrame(np.random.default_rng(7).normal(size=(60, 3)), columns=["a", "b", "c"])
ROW = {"a": 1.0, "b": 2.0, "c": 3.0}
BODY = orjson.dumps({"rows": [ROW]})
PREDICT = "/v1/endpoints/tumor/predict"
SCOPES = ("predict:tumor", "feedback:tumor", "read:tumor")


@dataclass
class Stand:
    """A running stack; version n of its model answers the row's sum times n."""

    folder: Path
    yard: Yard
    token: str

    def http(self, **more: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.yard.settings.gateway_url, headers=headers, timeout=60, **more)

    def callers(self, path: str = PREDICT, units: int = 1000) -> Callers:
        return Callers(self.yard.settings.gateway_port, path, self.token, BODY, units)

    def version(self, number: int, model: Any = None, bento: str = "a", **more: Any) -> Deployment:
        """A version that can be deployed; with another `bento` it is the same version, built anew."""
        place = self.folder / f"tumor-{number}-{bento}"
        if not place.exists():
            (place / "src" / "model").mkdir(parents=True)
            model = model or LinearRegression().fit(FRAME, number * FRAME.sum(axis=1))
            manifest = replace(pack(place / "src", model, FRAME.head(8), **more), model="tumor", version=number)
            (place / "src" / "manifest.json").write_bytes(manifest.to_json())
        digest = Manifest.read(place / "src").model_sha256
        name = f"tumor-{number}"
        return Deployment(name, "tumor", number, f"{name}-{bento}", bento * 64, str(place), sys.prefix, (), digest)

    def deploy(self, wanted: Deployment, replicas: int | None = None, variant: str = "champion") -> Deployment:
        return ship(self.yard.serving, wanted, replicas, variant)

    def process(self, name: str) -> psutil.Process:
        """What the supervisor runs under a name, such as tumor-1.1."""
        return psutil.Process(self.yard.stack.processes.state(name).pid)

    def ready(self, deployment: Deployment) -> bool:
        return len(self.yard.serving.stage.up(deployment)) == len(deployment.ports)

    def audited(self, ids: list[str]) -> int:
        predictions = self.yard.db.predictions
        parts = (ids[at : at + 10_000] for at in range(0, len(ids), 10_000))
        return sum(predictions.count_documents({"_id": {"$in": part}}) for part in parts)


@contextmanager
def standing(home: Home, folder: Path) -> Iterator[Stand]:
    """A stack on the database of `home`, with everything below `folder`."""
    (folder / "yard.toml").touch()
    env = {f"YARD_{name}_PORT": str(free_port()) for name in ("GATEWAY", "CONSOLE")}
    env |= {"YARD_MONGO_URL": home.mongo_url, "YARD_DATABASE": home.database, "YARD_USER": "tester"}
    yard = Yard(read_settings(env, folder))
    try:
        yard.up()
        _, token = yard.issue_key("tester", SCOPES)
        yield Stand(folder, yard, token)
    finally:
        yard.close()
        yard.stack.down()
