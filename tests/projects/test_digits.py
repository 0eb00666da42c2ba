"""The second example project: PyTorch, epochs, checkpoints. Where PyTorch is absent, what needs it is skipped."""

import importlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sacred.utils import SacredInterrupt

from modelyard_build.locks.locking import lock_project
from modelyard_serving.runtime.model import TRUSTED_TYPES, load
from modelyard_tracking.digests import frame_sha256, write_index
from modelyard_tracking.experiment import Experiment, load_experiment
from modelyard_tracking.kinds.graph import read_graph
from modelyard_tracking.origin import locked_versions
from modelyard_tracking.project import load_project
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.saving import write_model
from modelyard_tracking.store import Home
from modelyard_tracking.sweeping.space import load_space
from places import PROJECTS, REPOSITORY

DIGITS = PROJECTS / "digits"
PARTS = ["51fef6898ca1", "643815410176", "3a76f66330ca"]  # how the digests of train, validation and holdout begin


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of the project, as its training does; another project may have one of the same name."""
    names = [file.stem for file in DIGITS.glob("*.py")]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.syspath_prepend(DIGITS)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.fixture
def torch() -> Any:
    return _torch()


def _torch() -> Any:
    why = "no PyTorch here, since Modelyard's own lock has none: uv pip install -r projects/digits/requirements.lock"
    return pytest.importorskip("torch", reason=why)


class Training:
    """The project's loop on its data, with its defaults."""

    def __init__(self, torch: Any, imported: Callable[[str], ModuleType], device: str = "cpu") -> None:
        self.torch, self.loop, self.network = torch, imported("loop"), imported("network")
        split = imported("dataset").load()
        self.train, self.validation = (self._rows(part, device) for part in (split.train, split.validation))
        self.device = device
        self.loop.make_deterministic()

    def _rows(self, frame: pd.DataFrame, device: str) -> Any:
        pixels = self.network.inputs(frame.drop(columns="digit")).to(device)
        return self.loop.Rows(pixels, self.torch.tensor(frame["digit"].to_numpy()).to(device))

    def __call__(
        self,
        epochs: int,
        *,
        seed: int = 0,
        lr: float = 0.005,
        optimiser: str = "AdamW",
        checkpoint: Path | None = None,
        keep: Path | None = None,
    ) -> tuple[Any, Any, list[Any]]:
        """Train; gives the network, its optimiser and the epochs. The last checkpoint is copied to `keep`."""
        self.loop.seeded(seed, 0)
        network = self.network.build(64, 10, width=64, depth=1, dropout=0.1).to(self.device)
        more = {"momentum": 0.9} if optimiser == "SGD" else {}
        steps = getattr(self.torch.optim, optimiser)(network.parameters(), lr=lr, **more)
        seen = []

        def report(epoch: Any, folder: Path) -> None:
            seen.append(epoch)
            if keep is not None:
                shutil.copytree(folder, keep, dirs_exist_ok=True)

        plan = {"epochs": epochs, "batch": 32, "seed": seed, "report": report, "checkpoint": checkpoint}
        self.loop.fit(network, steps, self.train, self.validation, **plan)
        return network, steps, seen


@pytest.fixture
def training(torch: Any, imported: Callable[[str], ModuleType]) -> Training:
    return Training(torch, imported)


def test_the_parts_of_the_data_share_no_image_and_are_the_same_on_every_machine(imported) -> None:
    split = imported("dataset").load()
    assert [len(part) for part in split] == [997, 400, 400]
    assert not pd.concat(split).duplicated().any()
    assert [frame_sha256(part)[:12] for part in split] == PARTS
    for part in split:
        assert part["digit"].value_counts(normalize=True).between(0.09, 0.11).all(), "as many of each digit"
        assert part.drop(columns="digit").to_numpy().max() == imported("dataset").MAX_INK


def test_the_project_says_all_that_a_sweep_with_checkpoints_needs() -> None:
    project = load_project(PROJECTS, "digits")
    assert project.metric.name == "val_accuracy"
    assert {"val_accuracy", "val_loss", "holdout.accuracy"} == set(project.gates)
    assert project.owner
    assert project.purpose
    assert project.limitations
    load_space(project).validate()
    plan = project.sweep
    assert (plan.search, plan.scheduler, plan.max_steps) == ("tpe", "asha", 20)
    assert plan.resources == {"cpu": 1}


def test_the_committed_lock_is_up_to_date_and_names_no_index(tmp_path: Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    lock = lock_project(tmp_path / "digits", REPOSITORY / "requirements.lock")
    assert locked_versions(lock) == locked_versions(DIGITS / "requirements.lock")
    assert "torch" in locked_versions(lock)
    assert "://" not in lock.read_text()


def test_the_lock_stays_with_the_workspaces_where_both_have_a_package() -> None:
    ours, workspace = (locked_versions(folder / "requirements.lock") for folder in (DIGITS, REPOSITORY))
    assert {name: ours[name] for name in ours.keys() & workspace} == {
        name: workspace[name] for name in ours.keys() & workspace
    }


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads((DIGITS / "explore.ipynb").read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def test_it_learns_in_a_few_epochs(training: Training) -> None:
    _, _, epochs = training(8)
    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert epochs[-1].val_accuracy > 0.9
    assert epochs[-1].val_loss < epochs[0].val_loss
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(training: Training) -> None:
    assert training(3, seed=7)[2] == training(3, seed=7)[2]
    assert training(3, seed=7)[2] != training(3, seed=8)[2]


def test_neighbouring_seeds_share_no_epoch(torch, imported) -> None:
    draws = set()
    for seed in range(4):
        for epoch in range(4):
            imported("loop").seeded(seed, epoch)
            draws.add(tuple(torch.rand(4).tolist()))
    assert len(draws) == 16


@pytest.mark.parametrize("optimiser", ["AdamW", "SGD"])
def test_going_on_from_a_checkpoint_gives_the_numbers_of_a_training_that_was_not_interrupted(
    training: Training, torch, tmp_path: Path, optimiser: str
) -> None:
    whole, _, epochs = training(6, optimiser=optimiser)
    training(3, optimiser=optimiser, keep=tmp_path)
    torch.manual_seed(99)  # whatever was drawn in between has no part in it
    rest, _, later = training(6, optimiser=optimiser, checkpoint=tmp_path)
    assert later == epochs[3:]
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, rest.state_dict()[name]), name


def test_a_checkpoint_of_the_last_epoch_leaves_nothing_to_do(training: Training, torch, tmp_path: Path) -> None:
    whole, _, _ = training(2, keep=tmp_path)
    again, _, epochs = training(2, checkpoint=tmp_path)
    assert epochs == []
    assert torch.equal(whole[0].weight, again[0].weight)


def test_a_trial_that_goes_on_from_anothers_checkpoint_keeps_its_own_learning_rate(
    training: Training, tmp_path
) -> None:
    training(2, lr=0.005, keep=tmp_path)
    _, optimiser, _ = training(3, lr=0.02, checkpoint=tmp_path)
    assert [group["lr"] for group in optimiser.param_groups] == [0.02]


def test_a_checkpoint_that_would_run_code_is_not_loaded(training: Training, torch, tmp_path: Path) -> None:
    torch.save({"epoch": 1, "network": subprocess.run}, tmp_path / training.loop.STATE)
    with pytest.raises(Exception, match="weights_only"):
        training(2, checkpoint=tmp_path)


@pytest.mark.parametrize("depth", [1, 2])
def test_what_is_served_answers_as_the_network_does_and_the_runtime_loads_it(
    training: Training, torch, imported, tmp_path: Path, depth: int
) -> None:
    split = imported("dataset").load()
    rows, digits = split.train.drop(columns="digit"), split.train["digit"]
    training.loop.seeded(0, 0)
    network = training.network.build(64, 10, width=16, depth=depth, dropout=0.5)
    classifier = training.network.Classifier(network, digits)
    graph = training.network.as_graph(classifier, 64)
    schema = write_model(tmp_path / "model", graph, rows.head(8), TRUSTED_TYPES, trained=classifier)
    assert (schema["kind"], schema["methods"]) == ("onnx", ["predict", "predict_proba"])
    assert schema["classes"] == list(range(10))
    assert {column["dtype"] for column in schema["inputs"]} == {"float32"}
    with torch.no_grad():
        wanted = torch.softmax(network(training.network.inputs(rows)), 1).numpy()
    predicted, probabilities = load(tmp_path / "model", "onnx", write_index(tmp_path / "model"))(
        rows, ["predict", "predict_proba"]
    )
    np.testing.assert_allclose(probabilities, wanted, atol=1e-6)
    assert predicted.tolist() == wanted.argmax(1).tolist()


def test_the_same_network_gives_the_same_graph(training: Training, imported) -> None:
    digits = imported("dataset").load().train["digit"]
    training.loop.seeded(0, 0)
    network = training.network.build(64, 10, width=8, depth=1, dropout=0.1)
    graphs = [training.network.as_graph(training.network.Classifier(network, digits), 64) for _ in range(2)]
    one, two = (read_graph(graph).proto.SerializeToString(deterministic=True) for graph in graphs)
    assert one == two
    assert str(DIGITS).encode() not in one


def test_on_a_gpu_the_same_seed_gives_the_same_numbers_and_a_checkpoint_goes_on(torch, imported, tmp_path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    training = Training(torch, imported, "cuda")
    _, _, epochs = training(6)
    assert training(6)[2] == epochs
    training(3, keep=tmp_path)
    assert training(6, checkpoint=tmp_path)[2] == epochs[3:]
    assert epochs[-1].val_accuracy > 0.9


class Conductor:
    """A sweep that stops its trial after an epoch, and has it go on later."""

    scores_holdout = False
    waits_for_upload = True
    code = None

    def __init__(self, kept: Path, stop_after: int | None = None) -> None:
        self.kept, self.stop_after = kept, stop_after

    def report(self, _run: Any, step: int, _value: float, checkpoint: Path | None) -> None:
        assert checkpoint is not None
        shutil.copytree(checkpoint, self.kept, dirs_exist_ok=True)
        if step == self.stop_after:
            raise SacredInterrupt

    def checkpoint(self) -> Path | None:
        return self.kept if self.kept.is_dir() else None


@pytest.fixture
def experiment(tmp_path: Path, home: Home) -> Experiment:
    """A copy of the project in a git repository of its own; without its lock, for any PyTorch will do here."""
    _torch()
    folder = tmp_path / "repository" / "projects" / "digits"
    shutil.copytree(DIGITS, folder, ignore=shutil.ignore_patterns("__pycache__", "requirements.lock"))
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder.parents[1], check=True)
    loaded = load_experiment(folder)
    loaded._home = lambda: home
    loaded._trusted_types = TRUSTED_TYPES
    return loaded


def _run(experiment: Experiment, db: Any, **config: Any) -> Run:
    finished = experiment.run(config_updates={"seed": 5, **config}, options={"--capture": "sys"})
    return RunStore(db).get(finished._id)


def test_a_run_has_its_learning_curves_its_data_and_a_model_that_answers_its_cases(experiment, home, db) -> None:
    run = _run(experiment, db)
    curves = RunStore(db).curves(run.id)
    assert set(curves) == {"train_loss", "val_loss", "val_accuracy"}
    assert list(curves["val_accuracy"].steps) == list(range(1, 21))
    assert curves["val_accuracy"].values[-1] == run.result["val_accuracy"] > 0.94
    assert set(run.recorded["datasets"]) == {"train", "validation", "holdout"}
    assert run.recorded["evaluations"]["holdout"]["rows"] == 400
    ask = load(home.files.model(run.model_sha256), run.recorded["model"]["kind"], run.model_sha256)
    for case in json.loads((DIGITS / "cases.json").read_text()):
        if wanted := case["expect"].get("predictions"):
            assert ask(pd.DataFrame(case["rows"]), ["predict"])[0].tolist() == wanted, case["name"]


def test_what_a_sweep_draws_is_what_the_training_takes(experiment, db) -> None:
    space = load_project(PROJECTS, "digits").sweep.space
    run = _run(experiment, db, epochs=1, optimiser={"name": "sgd", "momentum": 0.5})
    assert space.keys() <= run.config.keys()
    assert run.config["optimiser"] == {"name": "sgd", "momentum": 0.5}
    assert {option["name"] for option in space["optimiser"]["choice"]} == set(sys.modules["train"].OPTIMISERS)


def test_the_notebook_draws_the_learning_curves_of_several_runs_into_one_plot(
    experiment, home, db, monkeypatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    for lr in (0.0005, 0.005):
        _run(experiment, db, epochs=3, lr=lr)
    settings = {"MONGO_URL": home.mongo_url, "DATABASE": home.database, "ARTIFACTS": home.artifacts}
    for name, value in settings.items():
        monkeypatch.setenv(f"YARD_{name}", str(value))
    notebook = nbformat.read(DIGITS / "explore.ipynb", as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's transport
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(experiment.base_dir)}}).execute()
    [curves] = [cell for cell in notebook.cells if "validation accuracy" in cell.source]
    assert "image/png" in json.dumps(curves.outputs)


def test_a_trial_that_was_cut_off_goes_on_in_another_run_with_the_same_numbers(experiment, tmp_path: Path, db) -> None:
    whole = _run(experiment, db, epochs=5)
    experiment._conductor = Conductor(tmp_path / "kept", stop_after=2)
    with pytest.raises(SacredInterrupt):
        _run(experiment, db, epochs=5)
    experiment._conductor = Conductor(tmp_path / "kept")
    rest = _run(experiment, db, epochs=5)
    store = RunStore(db)
    assert list(store.curves(rest.id)["val_loss"].steps) == [3, 4, 5]
    assert store.curves(rest.id)["val_loss"].values == store.curves(whole.id)["val_loss"].values[2:]
    assert rest.result == {name: whole.result[name] for name in ("val_accuracy", "val_loss")}, "no holdout for a trial"
    assert rest.recorded["evaluations"] == {}


def test_the_winner_is_scored_on_rows_that_no_trial_saw(experiment, tmp_path: Path, db) -> None:
    experiment._conductor = Conductor(tmp_path / "kept")
    experiment._conductor.scores_holdout = True
    run = _run(experiment, db, epochs=3)
    assert 0.5 < run.result["holdout"] <= 1
    assert run.result["holdout"] != run.result["val_accuracy"]
