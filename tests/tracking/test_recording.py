"""What a run records, as a plain script makes it: on a real MongoDB, read back with plain pymongo."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gridfs
import numpy as np
import pytest
import sacred

from modelyard_tracking.errors import Refused
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.recording.spool import Spool
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import Home


@pytest.fixture
def experiment(home: Home, tmp_path: Path) -> Callable[..., Experiment]:
    """An experiment around a main function; runs are quiet and captured as in a notebook."""

    def make(main: Callable, name: str = "churn", **config) -> Experiment:
        made = Experiment(name, home=lambda: home)
        made.add_config({"lr": 0.1, **config})
        made.main(main)
        made.base_dir = str(tmp_path)  # in no repository
        return made

    return make


def go(experiment: Experiment, db, **options) -> dict:
    finished = experiment.run(options={"--loglevel": "ERROR", **options})
    return db.runs.find_one({"_id": finished._id})


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        ({"s": {2, 1}}, {"s": [1, 2]}),
        ({"b": 2**70}, {"b": "1180591620717411303424"}),
        ({"x": np.float32(0.5), "a": np.arange(3)}, {"x": 0.5, "a": [0, 1, 2]}),
        (np.float64(0.5), 0.5),
        ({"val.auc": 0.9, "$x": 1}, {"val,auc": 0.9, "@x": 1}),
        ("ünïcode ✓", "ünïcode ✓"),
        (None, None),
    ],
)
def test_any_result_is_stored(experiment, db, result, stored) -> None:
    assert go(experiment(lambda: result), db)["result"] == stored


def test_a_result_that_is_not_a_number_stays_one(experiment, db) -> None:
    result = go(experiment(lambda: {"auc": float("nan")}), db)["result"]
    assert np.isnan(result["auc"])


def test_secrets_are_redacted_before_anything_is_stored(experiment, db) -> None:
    def main(_config):
        assert _config["password"] == "hunter2222"  # the training itself has it
        raise RuntimeError("cannot log in with hunter2222")

    failing = experiment(main, password="hunter2222", db={"url": "mongodb://me:hunter3333@h/x"})
    with pytest.raises(RuntimeError):
        failing.run(options={"--loglevel": "CRITICAL"}, config_updates={"password": "hunter2222"})
    document = db.runs.find_one()
    del document["captured_out"]  # Sacred logs nothing of it, but what a program prints is its own
    assert "hunter" not in str(document)
    assert document["config"] == {"lr": 0.1, "password": "<redacted>", "db": {"url": "mongodb://me:<redacted>@h/x"},
                                  "seed": document["config"]["seed"]}  # fmt: skip
    assert document["info"]["modelyard"]["redacted"] == ["db.url", "password"]


def test_info_is_stored_while_the_run_lasts_and_in_full_at_the_end(experiment, db) -> None:
    seen = []

    def main(_run):
        _run.info["stage"] = {"epoch": 1, "when": {3, 1}}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not seen:
            seen.extend(run["info"]["stage"] for run in db.runs.find({"info.stage": {"$exists": True}}))
            time.sleep(0.1)
        _run.info["last"] = "word"

    document = go(experiment(main), db)
    assert seen == [{"epoch": 1, "when": [1, 3]}]
    assert document["info"]["last"] == "word"


def test_an_entry_of_info_that_is_too_large_for_a_document_becomes_an_artifact(experiment, db) -> None:
    def main(_run):
        _run.info["history"] = ["x" * 1000] * 3000

    document = go(experiment(main), db)
    assert document["info"]["history"] == "<2.9 MB, in the artifact info.history.json>"
    [artifact] = document["artifacts"]
    assert artifact["name"] == "info.history.json"
    assert len(gridfs.GridFS(db).get(artifact["file_id"]).read()) > 3_000_000


def test_a_configuration_of_five_megabytes_is_stored(experiment, db) -> None:
    document = go(experiment(lambda: 1.0, words=["x" * 1000] * 5000), db)
    assert len(document["config"]["words"]) == 5000
    assert document["status"] == "COMPLETED"


def test_a_configuration_that_mongodb_cannot_hold_is_refused_before_training(experiment, home: Home, db) -> None:
    trained = []
    with pytest.raises(Refused, match=r"config entry 'words' with 1\d\.\d MB"):
        experiment(lambda: trained.append(1), words=["x" * 1000] * 15000).run(options={"--loglevel": "CRITICAL"})
    assert trained == []
    assert db.runs.count_documents({}) == 0
    assert Spool(home.spool).runs() == []


@pytest.mark.parametrize("key", ["a.b", "$a"])
def test_a_configuration_key_that_mongodb_reads_otherwise_is_refused_before_training(experiment, db, key: str) -> None:
    trained = []
    with pytest.raises(KeyError, match=r'cannot contain "\." or start with'):
        experiment(lambda: trained.append(1), nested={key: 1}).run(options={"--loglevel": "CRITICAL"})
    assert trained == []
    assert db.runs.count_documents({}) == 0


@pytest.mark.parametrize("name", ["ünïcode ✓", "with space/and slash", "a.b$c", "x" * 300])
def test_any_name_of_a_run_is_stored(experiment, db, name: str) -> None:
    assert go(experiment(lambda: 1.0), db, **{"--name": name})["experiment"]["name"] == name


def test_a_hundred_thousand_points_of_one_metric_are_stored(experiment, db) -> None:
    def main(_run):
        for step in range(100_000):
            _run.log_scalar("loss", step / 7, step)

    go(experiment(main), db)
    curve = RunStore(db).curves(1)["loss"]
    assert curve.steps == list(range(100_000))
    assert curve.values[-1] == 99_999 / 7
    assert (curve.at[0].tzinfo, curve.at == sorted(curve.at)) == (curve.at[-1].tzinfo, True)


def test_odd_points_are_stored_as_numbers_where_they_are_any(experiment, db) -> None:
    def main(_run):
        for value in (np.float32(0.5), np.int64(3), 2**70, float("inf"), True, np.array([0.25])):
            _run.log_scalar("odd ünï.code$", value)
        _run.log_scalar("steps", 1.0, np.int64(7))
        _run.log_scalar("steps", 1.0)

    go(experiment(main), db)
    curves = RunStore(db).curves(1)
    assert curves["odd ünï.code$"].values == [0.5, 3, float(2**70), float("inf"), True, 0.25]
    assert curves["steps"].steps == [7, 8]


def test_output_and_artifacts_are_stored(experiment, db, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"png")

    def main(_run):
        print("a line")
        _run.add_artifact(plot, name="plots/first.png", metadata={"epoch": 1})
        plot.write_bytes(b"changed later")
        _run.open_resource(plot).close()

    document = go(experiment(main), db)
    assert "a line\n" in document["captured_out"]
    run = RunStore(db).get(1)
    assert RunStore(db).artifact(run, "plots/first.png") == b"png"
    stored = db.fs.files.find_one({"_id": document["artifacts"][0]["file_id"]})
    assert (stored["filename"], stored["contentType"], stored["metadata"]) == (
        "artifact://runs/1/plots/first.png", "image/png", {"epoch": 1},
    )  # fmt: skip
    assert gridfs.GridFS(db).find_one({"filename": str(plot)}).read() == b"changed later"


def test_a_filter_of_the_output_is_obeyed(experiment, db) -> None:
    made = experiment(lambda: print("the secret is 42"))
    made.captured_out_filter = lambda text: text.replace("42", "**")
    document = go(made, db)
    assert "the secret is **\n" in document["captured_out"]
    assert "42" not in document["captured_out"]


def test_an_artifact_that_does_not_exist_does_not_end_the_training(experiment, db) -> None:
    def main(_run):
        _run.add_artifact("/no/such/file")
        return 1.0

    document = go(experiment(main), db)
    assert (document["status"], document["result"], document["artifacts"]) == ("COMPLETED", 1.0, [])


def test_a_file_is_a_data_set_by_its_bytes(experiment, home: Home, db, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("a,b\n1,2\n")

    def main():
        made.dataset("raw", file)

    made = experiment(main)
    facts = go(made, db)["info"]["modelyard"]["datasets"]["raw"]
    assert (facts["bytes"], facts["path"]) == (8, str(file))
    assert home.files.data_file(facts["sha256"]).read_text() == "a,b\n1,2\n"


def test_a_data_set_that_is_no_file_ends_the_run_with_a_sentence(experiment, db) -> None:
    made = experiment(lambda: made.dataset("raw", "/no/such/file"))
    with pytest.raises(Refused, match="is not a file"):
        made.run(options={"--loglevel": "CRITICAL"})
    assert db.runs.find_one()["status"] == "FAILED"


def test_a_queued_run_is_stored_as_queued(experiment, db) -> None:
    trained = []
    document = go(experiment(lambda: trained.append(1)), db, **{"--queue": True})
    assert (document["status"], trained) == ("QUEUED", [])


def test_untracked_texts_are_in_the_patch_and_secrets_are_not(experiment, db, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@t"]
    (repository / "train.py").write_text("x = 1\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    (repository / "train.py").write_text("x = 2\n")
    (repository / "new module.py").write_text("y = 1\n")
    (repository / ".env").write_text("TOKEN=hunter2\n")
    (repository / "weights.bin").write_bytes(b"\0" * 100)
    before = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout
    made = experiment(lambda: 1.0)
    made.base_dir = str(repository)
    document = go(made, db)
    patch = RunStore(db).artifact(RunStore(db).get(1), "changes.patch").decode()
    assert "+x = 2" in patch
    assert "+y = 1" in patch
    assert "hunter2" not in patch
    assert document["info"]["modelyard"]["left_out"] == [".env", "weights.bin"]
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout == before


def test_sigterm_leaves_a_run_that_is_interrupted_with_all_its_points(home: Home, db, tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom modelyard_tracking.experiment import Experiment\n"
        "from modelyard_tracking.store import Home\n"
        f"places = Path({str(home.artifacts)!r}), Path({str(home.spool_root)!r})\n"
        f"home = Home({home.mongo_url!r}, {home.database!r}, *places)\n"
        "ex = Experiment('slow', home=lambda: home)\n"
        "@ex.main\ndef main(_run):\n    _run.log_scalar('x', 1.0)\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
        "ex.run_commandline()\n"
    )
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as training:
        assert training.stdout
        assert training.stdout.readline() == b"ready\n"
        training.send_signal(signal.SIGTERM)
        training.wait(30)
    document = db.runs.find_one()
    assert document["status"] == "INTERRUPTED"
    assert db.metrics.find_one()["values"] == [1.0]


def test_a_run_in_a_notebook_is_recorded_with_what_it_prints(home: Home, db, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    code = f"""
from pathlib import Path
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.store import Home
places = Path({str(home.artifacts)!r}), Path({str(home.spool_root)!r})
ex = Experiment("noted", home=lambda: Home({home.mongo_url!r}, {home.database!r}, *places))
@ex.main
def main(_run):
    print("from a cell")
    _run.log_scalar("auc", 0.5)
    return 0.5
ex.run()._id
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    document = db.runs.find_one()
    assert (document["_id"], document["status"], document["result"]) == (1, "COMPLETED", 0.5)
    assert "from a cell\n" in document["captured_out"]
    assert "from a cell" in str(notebook.cells[0].outputs)


def test_further_observers_of_sacred_get_everything_too(experiment, db) -> None:
    from sacred.observers import RunObserver

    class Listener(RunObserver):
        def __init__(self) -> None:
            self.metrics: dict = {}

        def log_metrics(self, metrics_by_name, info) -> None:  # noqa: ARG002
            self.metrics |= metrics_by_name

    def main(_run):
        _run.log_scalar("loss", 0.5)

    made = experiment(main)
    listener = Listener()
    made.observers.append(listener)
    go(made, db)
    assert listener.metrics["loss"]["values"] == [0.5]
    assert made.observers == [listener]


def test_a_plain_sacred_script_shows_up_beside_ours(experiment, mongo_url: str, home: Home, db) -> None:
    from sacred.observers import MongoObserver

    go(experiment(lambda: 1.0), db)
    plain = sacred.Experiment("plain", interactive=True, save_git_info=False)
    observer = MongoObserver(url=mongo_url, db_name=home.database)
    plain.observers.append(observer)

    @plain.main
    def main(_run):
        _run.log_scalar("auc", 0.7)
        return 0.7

    plain.run(options={"--loglevel": "ERROR", "--capture": "sys"})
    observer.runs.database.client.close()
    go(experiment(lambda: 1.0), db)
    store = RunStore(db)
    assert [(run.id, run.experiment) for run in store.latest()] == [(3, "churn"), (2, "plain"), (1, "churn")]
    assert store.get(2).result == {"result": 0.7}
    assert store.curves(2)["auc"].values == [0.7]
