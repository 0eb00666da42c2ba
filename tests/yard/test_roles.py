"""Each role may do what is declared and nothing else, on a real MongoDB; and its person can do their work with it."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from modelyard import cli, errors, roles
from modelyard.doctor import Diagnosis, examine
from modelyard.mongo_users import Address, Change, address, bring, users
from modelyard.settings import Settings, read_settings
from modelyard.stack import Stack, ensure_indexes
from modelyard_serving.console.app import create_app
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.errors import Refused
from modelyard_serving.keys import Keys, SigningKeys
from modelyard_tracking.approval import Approvals
from modelyard_tracking.evidence import Evidence
from modelyard_tracking.experiment import Experiment
from modelyard_tracking.moving.bundle import export_runs
from modelyard_tracking.moving.unbundle import import_runs
from modelyard_tracking.project import load_project
from modelyard_tracking.recording.uploader import stop_uploader, upload_all
from modelyard_tracking.registry import Registry
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import Home
from modelyard_tracking.sweeping.sweeps import SweepStore
from places import PROJECTS

NAMES = [role.name for role in roles.ROLES]
PLACES = (*roles.COLLECTIONS, *roles.OMNIBOARDS, "something.else")
TRIES: dict[str, Callable[[Any], object]] = {
    "find": lambda c: c.find_one({"_id": "none"}),
    "insert": lambda c: c.insert_one({"_id": uuid.uuid4().hex}),
    "update": lambda c: c.update_one({"_id": "none"}, {"$set": {"x": 1}}),
    "remove": lambda c: c.delete_one({"_id": "none"}),
    "listIndexes": lambda c: list(c.list_indexes()),
    "createIndex": lambda c: c.create_index("x"),
    "dropCollection": lambda c: c.drop(),
    "collMod": lambda c: c.database.command("collMod", c.name, validationLevel="off"),
}


@dataclass
class Team:
    """A database with its roles made, and each one's connection to it."""

    settings: Settings
    changes: list[Change]
    clients: list[MongoClient[dict[str, Any]]]

    def url(self, role: str) -> str:
        found = address(self.settings, role)
        assert found, role
        return found

    def db(self, role: str) -> Any:
        client: MongoClient[dict[str, Any]] = MongoClient(self.url(role), tz_aware=True, serverSelectionTimeoutMS=3000)
        self.clients.append(client)
        return client[self.settings.database]

    def home(self, role: str) -> Home:
        """Where this role's runs go."""
        return Home(self.url(role), self.settings.database, self.settings.artifacts, self.settings.spool)


def make_team(mongo_url: str, folder: Path, **env: str) -> Iterator[Team]:
    given = {"YARD_MONGO_URL": mongo_url, "YARD_DATABASE": f"test_{uuid.uuid4().hex}", "YARD_HOME": str(folder)}
    settings = read_settings(given | env, folder)
    ensure_indexes(settings)
    team = Team(settings, bring(settings), [])
    yield team
    for client in team.clients:
        client.close()
    with MongoClient(mongo_url) as client:
        client[settings.database].command("dropAllUsersFromDatabase")
        client[settings.database].command("dropAllRolesFromDatabase")
        client.drop_database(settings.database)


@pytest.fixture
def team(mongo_url: str, tmp_path: Path) -> Iterator[Team]:
    yield from make_team(mongo_url, tmp_path)


@pytest.fixture(scope="module")
def shared(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A team for tests that change nothing of it."""
    yield from make_team(mongo_url, tmp_path_factory.mktemp("team"))


@pytest.fixture
def admin(team: Team) -> Iterator[Any]:
    with team.settings.tracking_home.connected() as db:
        yield db


@pytest.fixture
def yard(team: Team, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `yard ARGS` as somebody; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(role: str | None, *args: str) -> tuple[int, str, str]:
        for name, value in team.settings.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("YARD_PROJECTS", str(PROJECTS))
        if role is not None:
            monkeypatch.setenv("YARD_MONGO_URL", team.url(role))
        monkeypatch.setattr(sys, "argv", ["yard", *args])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def forbidden(attempt: Callable[[], object]) -> bool:
    """Was it refused for want of a right?"""
    try:
        attempt()
    except OperationFailure as error:
        return error.code == roles.UNAUTHORIZED  # any other error came after the right was there
    return False


def outcomes(changes: list[Change]) -> set[str]:
    return {change.outcome for change in changes}


# What may be done


@pytest.mark.parametrize("name", NAMES)
def test_a_role_may_do_what_is_declared_in_each_collection_and_nothing_else(shared: Team, name: str) -> None:
    db, allowed = shared.db(name), roles.role_named(name).allowed
    for place in PLACES:
        can = {action for action, attempt in TRIES.items() if not forbidden(lambda a=attempt, p=place: a(db[p]))}
        assert can == set(allowed.get(place, ())), place


@pytest.mark.parametrize("name", NAMES)
def test_a_role_may_not_look_into_other_databases_nor_change_users(shared: Team, name: str) -> None:
    db = shared.db(name)
    elsewhere = db.client["elsewhere"]
    for attempt in (
        lambda: elsewhere.runs.find_one(),
        lambda: elsewhere.runs.insert_one({}),
        lambda: db.client.admin["system.users"].find_one(),
        lambda: db.command("createUser", "me", pwd="x", roles=[]),
        lambda: db.command("updateUser", name, roles=[]),
        lambda: db.command("grantRolesToUser", name, roles=["dbOwner"]),
        lambda: db.command("rolesInfo", 1, showPrivileges=True),
        lambda: db.command("dropDatabase"),
        lambda: db.create_collection("mine"),
    ):
        assert forbidden(attempt)


def test_the_promises_as_people_were_told_them() -> None:
    def who(action: str, *places: str) -> set[str]:
        return {r.name for r in roles.ROLES for place in places if action in r.allowed.get(place, ())}

    assert (who("insert", "ledger"), who("insert", "answers")) == ({"approver", "engineer"}, {"approver"})
    assert who("update", "ledger", "answers") | who("remove", "ledger", "answers") == set()
    assert who("insert", *roles.RUNS) == who("update", "runs", "metrics") == {"scientist"}
    assert who("remove", "runs", "metrics", "fs.files", "sweeps", "approvals", "predictions", "feedback") == set()
    assert (who("insert", "approvals"), who("update", "approvals")) == ({"scientist"}, set())
    assert who("update", "builds", "deployments", "endpoints", "api_keys") == {"engineer"}
    assert who("insert", "predictions", "feedback") == {"console"}
    assert who("find", "predictions", "feedback") == {"console", "auditor"}
    # The console tells gateways elsewhere which keys are revoked.
    assert who("find", "api_keys") == {"engineer", "auditor", "console"}


def test_what_is_kept_of_a_key_holds_no_secret(shared: Team, tmp_path: Path) -> None:
    key, token = Keys(shared.db("engineer"), SigningKeys(tmp_path)).issue("alice", ["predict:tumor"])
    entry = shared.db("auditor").api_keys.find_one({"_id": key.id})
    assert set(entry) == {"_id", "caller", "scopes", "created_at", "expires_at", "revoked_at", "rate", "signed_by"}
    assert not any(part in str(entry) for part in token.split("."))


# Made once


def test_again_changes_nothing_and_no_password(team: Team) -> None:
    assert outcomes(team.changes) == {"created"}
    before = {name: team.url(name) for name in NAMES}
    assert outcomes(bring(team.settings)) == {"unchanged"}
    assert {name: team.url(name) for name in NAMES} == before
    assert {user.address for user in users(team.settings)} == {Address.WORKS}
    assert all(file.stat().st_mode & 0o777 == 0o600 for change in team.changes for file in [change.file])


def test_only_the_rotated_role_gets_a_new_password_and_the_old_one_is_refused(team: Team) -> None:
    before = {name: team.url(name) for name in NAMES}
    assert [c.role for c in bring(team.settings, rotate=["scientist"]) if c.outcome == "rotated"] == ["scientist"]
    assert {name for name in NAMES if team.url(name) != before[name]} == {"scientist"}
    assert team.db("scientist").runs.find_one() is None
    with (
        MongoClient(before["scientist"], serverSelectionTimeoutMS=3000) as old,
        pytest.raises(OperationFailure, match="Authentication failed"),
    ):
        old[team.settings.database].runs.find_one()


def test_what_somebody_widened_or_narrowed_by_hand_is_said_and_mended(team: Team, admin: Any) -> None:
    before = {name: team.url(name) for name in NAMES}
    ledger = {"resource": {"db": admin.name, "collection": "ledger"}, "actions": ["remove", "update"]}
    admin.command("grantPrivilegesToRole", "engineer", privileges=[ledger])
    admin.command("grantRolesToUser", "auditor", roles=["readWrite"])
    admin.command("grantRolesToRole", "console", roles=["read"])
    runs = {"resource": {"db": admin.name, "collection": "runs"}, "actions": ["insert"]}
    admin.command("revokePrivilegesFromRole", "scientist", privileges=[runs])
    admin.command("dropRole", "omniboard")
    found = {user.role.name: user for user in users(team.settings)}
    assert found["engineer"].deviations == ("may also remove ledger", "may also update ledger")
    assert found["auditor"].deviations == (f"the user also is readWrite of {admin.name}",)
    assert found["console"].deviations == (f"also is read of {admin.name}",)
    assert found["scientist"].deviations == ("may not insert runs",)
    assert not found["omniboard"].exists
    assert not found["approver"].drifted
    changes = {change.role: change.outcome for change in bring(team.settings)}
    assert changes.pop("approver") == "unchanged"
    assert set(changes.values()) == {"updated"}
    assert not any(user.deviations or not user.exists for user in users(team.settings))
    assert {name: team.url(name) for name in NAMES} == before
    assert forbidden(lambda: team.db("engineer").ledger.delete_one({}))
    assert forbidden(lambda: team.db("auditor").runs.insert_one({}))


def test_doctor_has_a_line_that_names_a_drifted_role_and_the_remedy(team: Team, admin: Any) -> None:
    def line() -> Diagnosis:
        return next(part for part in examine(team.settings) if part.part == "roles")

    assert line() == Diagnosis("roles", True, "6 as declared")
    admin.command("grantRolesToUser", "scientist", roles=["dbOwner"])
    assert line() == Diagnosis(
        "roles", False, f"scientist the user also is dbOwner of {admin.name}", "yard roles create"
    )


def test_a_lost_password_is_said_and_not_replaced_until_it_is_asked_for(team: Team, yard) -> None:
    file = team.changes[0].file
    before = team.url("scientist")
    file.unlink()
    code, out, err = yard(None, "roles", "create")
    assert code == 0
    assert "not on this machine" in out
    assert "A new one:  yard roles create --rotate scientist" in err
    assert not file.exists()
    with MongoClient(before) as still:
        assert still[team.settings.database].runs.find_one() is None
    assert yard(None, "roles", "create", "--rotate", "scientist")[0] == 0
    assert users(team.settings)[0].address is Address.WORKS


def test_the_address_of_another_database_is_kept_and_the_way_out_is_said(team: Team) -> None:
    file = team.changes[0].file
    foreign = "mongodb://scientist:theirs@db.example.org/other?authSource=other"
    file.write_text(foreign)
    with pytest.raises(Refused, match=r"another database, mongodb://scientist:\.\.\.@db.example.org.*\n.*mv "):
        bring(team.settings, rotate=["scientist"])
    assert file.read_text() == foreign


def test_a_login_elsewhere_keeps_hosts_and_options_and_drops_the_administrators_way_in(
    team: Team, mongo_url: str
) -> None:
    url = team.url("auditor")
    host = mongo_url.rpartition("@")[2].partition("/")[0]
    assert f"@{host}/{team.settings.database}?authSource={team.settings.database}&" in url
    assert "directConnection=true" in url
    assert "authSource=admin" not in url


# Who may make them


def test_who_is_no_administrator_is_told_who_could(team: Team, yard) -> None:
    for args in (["roles"], ["roles", "create"], ["roles", "create", "--rotate", "engineer"]):
        code, _, err = yard("scientist", *args)
        assert code == errors.REFUSED
        assert f"The user scientist may not manage the roles of {team.settings.database}" in err
        assert "export YARD_MONGO_URL=mongodb://admin:" in err
    assert outcomes(bring(team.settings)) == {"unchanged"}


def test_a_mongodb_that_is_asked_without_a_login_has_no_roles(mongo_url: str, tmp_path: Path) -> None:
    bare = "mongodb://" + mongo_url.rpartition("@")[2].replace("authSource=admin&", "")
    settings = read_settings({"YARD_MONGO_URL": bare, "YARD_HOME": str(tmp_path / "bare")}, tmp_path)
    with pytest.raises(Refused, match=r"asked without a login.*\nStart it with --auth"):
        bring(settings)


def test_an_unknown_role_is_told_which_there_are(yard) -> None:
    code, _, err = yard(None, "roles", "create", "--rotate", "boss")
    assert code == errors.REFUSED
    assert "There is no role 'boss'. There are: scientist, approver, engineer" in err


def test_the_commands_show_every_role_and_no_password(team: Team, yard) -> None:
    passwords = [team.url(name).partition("@")[0].rpartition(":")[2] for name in NAMES]
    for args in (["roles"], ["roles", "--json"], ["roles", "create"], ["roles", "create", "--rotate", "auditor"]):
        code, out, err = yard(None, *args)
        assert code == 0, err
        assert all(name in out for name in NAMES)
        assert not any(password in out + err for password in passwords)
    told = json.loads(yard(None, "roles", "--json")[1])
    assert [(role["role"], role["exists"], role["deviations"], role["address"]) for role in told] == [
        (name, True, [], "works") for name in NAMES
    ]
    assert told[0]["may"]["delete"] == ["fs.chunks"]


# Everybody's work


def record(team: Team, role: str, folder: Path) -> int:
    """A run with a metric and an artifact, by our own recording; gives its number."""
    experiment = Experiment("churn", home=lambda: team.home(role))
    experiment.base_dir = str(folder)
    (folder / "notes.txt").write_text("of the run")

    @experiment.main
    def main(_run):
        for step in range(20):
            _run.log_scalar("auc", step / 20)
        _run.add_artifact(str(folder / "notes.txt"))
        return {"auc": 0.95}

    run_id = experiment.run(options={"--loglevel": "ERROR"})._id
    assert isinstance(run_id, int)
    return run_id


def test_a_scientist_records_runs_with_files_and_sweeps_and_pushes(team: Team, tmp_path: Path) -> None:
    run = record(team, "scientist", tmp_path)
    store = RunStore(team.db("scientist"))
    assert store.get(run).status == "COMPLETED"
    assert len(store.curves(run)["auc"].values) == 20
    assert store.artifact(store.get(run), "notes.txt") == b"of the run"
    assert upload_all(team.home("scientist")) == 0
    sweeps, project = SweepStore(team.db("scientist")), load_project(PROJECTS, "tumor")
    sweep = sweeps.begin(project, {}, 1, 1, None)
    sweeps.note_best(sweep, 0.9, 1, run)
    sweeps.end(sweep, "COMPLETED", store.get(run), None)
    assert sweeps.get(sweep.id).best_run == run


def test_a_plain_sacred_script_records_as_a_scientist(team: Team, tmp_path: Path) -> None:
    script = (
        "import os, sacred\nfrom sacred.observers import MongoObserver\n"
        "ex = sacred.Experiment('plain', save_git_info=False)\n"
        "ex.observers.append(MongoObserver(url=os.environ['URL'], db_name=os.environ['DB']))\n"
        "@ex.automain\ndef main(_run):\n"
        "    _run.log_scalar('loss', 1.0)\n    _run.add_artifact(__file__)\n    return 1\n"
    )
    (tmp_path / "plain.py").write_text(script)
    env = {**os.environ, "URL": team.url("scientist"), "DB": team.settings.database}
    subprocess.run([sys.executable, "plain.py"], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120)
    run = RunStore(team.db("auditor")).latest()[0]
    assert (run.experiment, run.status, run.result) == ("plain", "COMPLETED", {"result": 1})


def test_runs_that_an_auditor_exports_are_imported_by_the_scientist_of_another_database(
    team: Team, shared: Team, tmp_path: Path
) -> None:
    run = record(team, "scientist", tmp_path)
    export_runs(team.home("auditor"), [run], tmp_path / "runs.zip")
    imported = import_runs(shared.home("scientist"), tmp_path / "runs.zip")
    store = RunStore(shared.db("scientist"))
    assert store.artifact(store.get(imported.runs[0].id), "notes.txt") == b"of the run"


def ask(team: Team, approvals: Approvals) -> str:
    files = team.home("scientist").files
    with files.new_model() as folder:
        (folder / "mlflow").mkdir()
        (folder / "mlflow" / "model.skops").write_bytes(b"weights")
        digest = files.keep_model(folder)
    lock = files.root / "requirements.lock"
    lock.write_text("numpy==2.0.0\n")
    facts = {
        "run_id": 1, "model": "churn", "model_sha256": digest, "commit": "c" * 40, "dirty": False,
        "lock_sha256": files.keep_lock(lock), "data": {}, "gates": [], "python": "3.11",
        "card": {"owner": "ann", "purpose": "a test", "limitations": "a test"},
    }  # fmt: skip
    return approvals.request(Evidence(facts, ()), "ann").ref


def test_a_scientist_asks_and_only_an_approver_answers(team: Team, yard) -> None:
    registry, files = Registry(team.settings.registry_uri), team.home("scientist").files
    ref = ask(team, Approvals(team.db("scientist"), registry, files))
    for role in ("scientist", "engineer", "auditor"):
        code, _, err = yard(role, "approve", ref, "--reason", "mine")
        assert code == errors.REFUSED
        assert f"The user {role} may not add to answers: ask for the role approver." in err
        assert len(err.strip().splitlines()) == 1
    code, _, err = yard("approver", "approve", ref, "--reason", "it is good", "--alias", "champion")
    assert code == 0, err
    seen = Approvals(team.db("engineer"), registry, files)
    assert seen.require(seen.aliases.resolve("churn@champion")).reason == "it is good"
    assert [entry.kind for entry in seen.ledger.entries()] == ["request", "approve", "promote"]


def test_an_engineer_deploys_splits_retires_and_manages_keys(team: Team, tmp_path: Path) -> None:
    db = team.db("engineer")
    store, keys = EndpointStore(db), Keys(db, SigningKeys(tmp_path))
    for version in (1, 2):
        store.put_deployment(Deployment(f"churn-{version}", "churn", version, "t", "b", "/b", "/e", (1,), "m"))
    store.put(Endpoint.first("churn", "champion", "churn-1").with_variant("challenger", "churn-2"), 1)
    store.put(store.endpoint("churn").split({"champion": 80, "challenger": 20}), 2)
    store.remove_deployment("churn-2")
    assert [deployment.name for deployment in store.deployments()] == ["churn-1"]
    key, _ = keys.issue("alice", ["predict:churn"])
    keys.revoke(key.id)
    assert keys.revoked() == [key.id]
    document = {"ref": "churn:1", "report": {"passed": True}}
    db.builds.replace_one({"_id": "b"}, document, upsert=True)
    db.builds.replace_one({"_id": "b"}, document, upsert=True)


def test_the_console_takes_in_audit_and_feedback_and_sums_them_up(team: Team, serve_app) -> None:
    url = f"http://127.0.0.1:{serve_app(create_app(team.db('console'), 's'))}"
    one = {
        "_id": "a" * 32, "at": datetime.now(UTC).isoformat(), "caller": "alice", "unit": "u", "assigned_by": "unit",
        "endpoint": "churn", "variant": "champion", "version": 1, "status": 200, "latency_ms": 1.0, "inputs": [],
        "outputs": {"predictions": ["yes"]},
    }  # fmt: skip
    with httpx.Client(base_url=url, headers={"x-gateway-secret": "s", "x-caller": "alice"}, timeout=30) as http:
        for new in (1, 0):
            assert http.post("/internal/audit", content=orjson.dumps(one)).json()["new"] == new
        for truth, status in (("yes", 200), ("yes", 200), ("no", 409)):
            assert http.post("/v1/feedback", json={"prediction_id": "a" * 32, "truth": truth}).status_code == status
        assert http.get("/v1/endpoints/churn/results").json()["variants"][0]["mean_reward"] == 1.0


def test_an_auditor_reads_with_every_reading_command(team: Team, yard, admin: Any, tmp_path: Path) -> None:
    run = record(team, "scientist", tmp_path)
    # Somebody's that has died in silence: who may not mark it reads it as it is.
    silent = {"_id": 99, "experiment": {"name": "churn"}, "status": "RUNNING", "config": {}, "info": {}}
    admin.runs.insert_one(silent)
    registry = Registry(team.settings.registry_uri)
    ref = ask(team, Approvals(team.db("scientist"), registry, team.home("scientist").files))
    commands = (
        ["runs"], ["runs", "--sort", "auc"], ["runs", "churn", "-w", "auc>0.5"], ["show", str(run)], ["show", ref],
        ["show", str(run), "--output"], ["compare", str(run), "99"], ["sweeps"], ["models"], ["keys", "list"],
        ["ledger"], ["ledger", "verify"], ["live"], ["status"],
        ["runs", "export", str(run), "-o", str(tmp_path / "runs.zip")], ["config"],
    )  # fmt: skip
    for command in commands:
        code, _, err = yard("auditor", *command)
        assert code == 0, (command, err)
    made = {"model": "churn", "version": 1, "model_sha256": "m", "bento_sha256": "b"}
    admin.predictions.insert_one({"_id": "p", "at": datetime.now(UTC), **made})
    assert "bento" in yard("auditor", "trace", "p")[1]


@pytest.mark.parametrize(
    ("role", "args", "sentence"),
    [
        ("auditor", ["train", "tumor"], "The user auditor may not add to runs: ask for the role scientist."),
        ("engineer", ["train", "tumor"], "The user engineer may not add to runs: ask for the role scientist."),
        ("auditor", ["sweep", "tumor"], "may not"),
        ("auditor", ["reproduce", "1"], "may not add to runs: ask for the role scientist."),
        ("engineer", ["request", "1"], "may not add to approvals: ask for the role scientist."),
        ("scientist", ["build", "tumor:1"], "may not change builds: ask for the role engineer."),
        ("approver", ["deploy", "tumor:1"], "may not change deployments: ask for the role engineer."),
        ("scientist", ["up"], "may not read api_keys: ask for the role engineer or auditor."),
        ("auditor", ["runs", "import", "runs.zip"], "may not"),
        ("scientist", ["keys", "list"], "may not read api_keys: ask for the role engineer or auditor."),
        ("auditor", ["keys", "revoke", "x"], "may not change api_keys: ask for the role engineer."),
        ("auditor", ["keys", "create", "me", "--scope", "predict:x"], "may not add to api_keys: ask for the role"),
        ("engineer", ["trace", "x"], "may not read predictions: ask for the role auditor."),
        ("console", ["runs"], "may not read runs: ask for the role scientist, approver, engineer or auditor."),
        ("console", ["show", "1"], "The user console may not read runs"),
    ],
)  # fmt: skip
def test_what_a_role_may_not_is_one_sentence_and_refused(
    team: Team, yard, tmp_path: Path, role: str, args: list[str], sentence: str
) -> None:
    if "import" in args:
        export_runs(team.home("auditor"), [record(team, "scientist", tmp_path)], tmp_path / "runs.zip")
        args = [*args[:-1], str(tmp_path / "runs.zip")]
        with team.settings.tracking_home.connected() as db:
            db.runs.delete_many({})
    code, _, err = yard(role, *args)
    assert code == errors.REFUSED, err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1, err


def test_a_run_recorded_by_somebody_who_may_not_is_kept_and_pushed_by_who_may(team: Team, tmp_path: Path) -> None:
    home = team.home("auditor")
    experiment = Experiment("churn", home=lambda: home)
    experiment.base_dir = str(tmp_path)
    experiment.main(lambda: 1)
    run = experiment.run(options={"--loglevel": "CRITICAL"})
    assert not isinstance(run._id, int)
    stop_uploader(home.spool)  # the auditor's, which tries on for a while
    waiting: list[int | None] = []
    while not waiting:
        upload_all(team.home("scientist"), lambda _, run_id: waiting.append(run_id))
    assert RunStore(team.db("auditor")).get(waiting[0] or 0).status == "COMPLETED"


def test_a_console_that_could_not_take_in_predictions_is_not_started(team: Team, tmp_path: Path) -> None:
    env = {"YARD_MONGO_URL": team.url("engineer"), "YARD_DATABASE": team.settings.database}
    settings = read_settings(env | {"YARD_HOME": str(tmp_path / "engineers")}, tmp_path)
    with pytest.raises(Refused, match=r"no login that may take in predictions.*\n.*yard roles create"):
        Stack(settings).ensure_console()
