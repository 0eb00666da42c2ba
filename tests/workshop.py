"""A project of the tests' own, and everything that trains, approves and builds it."""

import json
from pathlib import Path
from typing import Any

from modelyard_build.build import Builder
from modelyard_build.locks.locking import lock_project
from modelyard_serving.runtime.model import TRUSTED_TYPES
from modelyard_tracking.approval import Approvals
from modelyard_tracking.evidence import gather
from modelyard_tracking.experiment import load_experiment
from modelyard_tracking.project import Project, load_project
from modelyard_tracking.registry import ModelVersion, Registry
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import Home
from places import REPOSITORY

TRAIN = """
import numpy as np
import pandas as pd
from own import Threshold
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from modelyard import Experiment

ex = Experiment("{name}")


@ex.config
def config():
    as_pickle = False
    as_sklearn = False


@ex.automain
def train(as_pickle, as_sklearn):
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    y = np.where(x["a"] > 0, "yes", "no")
    ex.dataset("train", x.assign(y=y))
    if as_pickle:
        ex.save_model(Threshold(), examples=x.head(8))
    else:
        model = LogisticRegression().fit(x, y)
        if as_sklearn:
            ex.save_model(model, examples=x.head(8))
            return {{"score": 1.0}}
        graph = to_onnx(model, x.to_numpy("float32")[:1], options={{"zipmap": False}})
        ex.save_model(graph, examples=x.head(8), trained=model)
    return {{"score": 1.0}}
"""

OWN = """
class Threshold:
    def predict(self, rows):
        return [bool(value > 0) for value in rows["a"]]
"""

PROJECT = """
name = "{name}"
owner = "me"
purpose = "a test"
limitations = "a test"
metric = {{ name = "score", direction = "max" }}
endpoint = {{ unit = "u", reward = "r", tolerance = 1e-5 }}
model = {{ allow_pickle = {allow_pickle} }}
inputs = {{ "*" = "a number of the test's" }}
outputs = {{ "*" = "an answer of the test's" }}
"""


ROW = {"a": 1.0, "b": 0.0}
CASES = [
    {"name": "above", "kind": "typical", "rows": [ROW], "expect": {"one_of": {"predictions": ["yes", True]}}},
    {
        "name": "below",
        "kind": "critical",
        "rows": [{"a": -1, "b": 0}],
        "expect": {"one_of": {"predictions": ["no", False]}},
    },
    {
        "name": "far",
        "kind": "out-of-domain",
        "rows": [{"a": 1e9, "b": 0}],
        "expect": {"one_of": {"predictions": ["yes", True]}},
    },
    {
        "name": "text",
        "kind": "must-fail",
        "rows": [{**ROW, "b": "x"}],
        "expect": {"raises": {"status": 400, "text": "b"}},
    },
]


class Workshop:
    """A project of its own, and everything that builds it."""

    def __init__(self, folder: Path, home: Home, db: Any, name: str = "linear") -> None:
        self.folder, self.home, self.db, self.name = folder / name, home, db, name
        self.folder.mkdir(parents=True)
        (self.folder / "train.py").write_text(TRAIN.format(name=name))
        (self.folder / "own.py").write_text(OWN)
        (self.folder / "cases.json").write_text(json.dumps(CASES))
        packages = ("numpy", "pandas", "scikit-learn", "onnx", "onnxruntime", "skl2onnx")
        (self.folder / "requirements.in").write_text("\n".join(packages))
        lock_project(self.folder, REPOSITORY / "requirements.lock")
        self.project(allow_pickle=False)
        registry = Registry(f"sqlite:///{folder / 'mlflow.db'}")
        self.approvals = Approvals(db, registry, home.files)
        self.builder = Builder(db, self.approvals, folder / ".yard", "engineer", folder / "keys")

    def project(self, *, allow_pickle: bool = False, more: str = "") -> Project:
        text = PROJECT.format(name=self.name, allow_pickle=str(allow_pickle).lower()) + more
        (self.folder / "project.toml").write_text(text)
        return load_project(self.folder.parent, self.name)

    def run(self, **config: Any) -> Any:
        experiment = load_experiment(self.folder)
        experiment._home = lambda: self.home
        experiment._trusted_types = TRUSTED_TYPES
        finished = experiment.run(config_updates={"seed": 1, **config}, options={"--capture": "sys"})
        return RunStore(self.db).get(finished._id)

    def approved(self, project: Project, run: Any) -> ModelVersion:
        version = self.approvals.request(gather(project, run, allow_dirty=True), "scientist")
        self.approvals.approve(version.ref, "approver", "for the test")
        return version
