"""Two models behind all their doors: one of every type of column, one of numbers alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from starlette.applications import Starlette

from edge import Edge, running_edge
from metrics_page import value_of
from modelyard_serving.manifest import Manifest
from modelyard_serving.runtime.app import create_app, start
from modelyard_tracking.saving import Golden
from packed import pack

ROWS = 12


@dataclass(frozen=True)
class Doors:
    """A model that is served in this process."""

    folder: Path
    manifest: Manifest
    port: int

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    @cached_property
    def golden(self) -> Golden:
        return Golden.read(self.folder / "model")

    @cached_property
    def native(self) -> dict[str, Any]:
        """What the native door answers to the golden rows."""
        answer = self.http.post("/predict", content=orjson.dumps({"rows": self.golden.rows}))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def metric(self, name: str, **labels: str) -> float:
        return value_of(self.http.get("/metrics").text, name, **labels)


Open = Callable[[Any, pd.DataFrame], Doors]


@pytest.fixture(scope="session")
def open_doors(tmp_path_factory: pytest.TempPathFactory, serve_app: Callable[[Starlette], int]) -> Iterator[Open]:
    """Save a model as training does, load it as the image does, and serve it."""
    opened: list[Doors] = []

    def open_(model: Any, examples: pd.DataFrame) -> Doors:
        folder = tmp_path_factory.mktemp("doors")
        (folder / "model").mkdir()
        manifest = pack(folder, model, examples)
        app = create_app(folder)
        start(app)
        opened.append(Doors(folder, manifest, serve_app(app)))
        return opened[-1]

    yield open_
    for doors in opened:
        doors.http.close()


@pytest.fixture(scope="session")
def mixed(open_doors: Open) -> Doors:
    """A classifier of texts over columns of every type."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "height": rng.normal(size=60),
            "weight": rng.normal(size=60).astype("float32"),
            "visits": rng.integers(0, 9, 60),
            "smoker": rng.integers(0, 2, 60).astype(bool),
            "town": rng.choice(["Köln", "Bonn", ""], 60),
        }
    )
    scaled = (StandardScaler(), ["height", "weight", "visits", "smoker"])
    table = make_column_transformer(scaled, (OneHotEncoder(handle_unknown="ignore"), ["town"]))
    model = make_pipeline(table, LogisticRegression()).fit(frame, np.where(frame["height"] > 0, "ja", "nein"))
    return open_doors(model, frame.head(ROWS))


@pytest.fixture(scope="session")
def numbers(open_doors: Open) -> Doors:
    """A regressor over three columns of float64."""
    frame = pd.DataFrame(np.random.default_rng(7).normal(size=(60, 3)), columns=["a", "b", "c"])
    return open_doors(LinearRegression().fit(frame, frame.sum(axis=1) + 1), frame.head(ROWS))


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, serve_app: Callable[[Starlette], int]) -> Iterator[Edge]:
    with running_edge(tmp_path_factory.mktemp("gateway"), serve_app) as running:
        yield running
