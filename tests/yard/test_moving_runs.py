"""`yard reproduce`, and runs that leave one yard for another, as a person types it."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from modelyard.commands import bundles, reproducing, terminal
from modelyard_tracking.runs import RunStore
from modelyard_tracking.store import Home

SCRIPT = """
    import os
    from modelyard import Experiment

    ex = Experiment("small")

    @ex.config
    def config():
        db = {"password": "hunter22"}

    @ex.automain
    def main(db):
        return {"length": len(db["password"]), "noise": os.urandom(8).hex() if len(db["password"]) == 3 else ""}
"""

app = typer.Typer()
app.command("reproduce")(reproducing.reproduce)
app.command("export")(bundles.export_command)
app.command("import")(bundles.import_command)


@pytest.fixture
def yard(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run `yard ARGS` where a project lies in a repository and two runs were made."""
    project = tmp_path / "projects" / "small"
    project.mkdir(parents=True)
    (project / "train.py").write_text(textwrap.dedent(SCRIPT))
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for args in (["init", "-q"], ["add", "projects"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *args], cwd=tmp_path, check=True)
    monkeypatch.chdir(project)
    for name, value in {
        "MONGO_URL": home.mongo_url, "DATABASE": home.database, "ARTIFACTS": home.artifacts, "SPOOL": home.spool_root,
        "HOME": tmp_path / "home", "PROJECTS": tmp_path / "projects",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"YARD_{name}", str(value))
    for args in ([], ["with", "db.password=abc"]):
        subprocess.run([sys.executable, "train.py", *args], check=True, capture_output=True, timeout=120)
    yield lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])
    terminal.at_end.close()


def test_reproduce_says_its_verdict_by_exit_code_and_as_json(yard, tmp_path: Path, db) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter22\n")
    said = yard("reproduce", 1, f"db.password=@{secret}")
    assert said.exit_code == 0, said.output
    assert "Run 1, made again as run 3: identical." in said.stderr
    assert "result length" in said.stdout

    said = yard("reproduce", 2, "db.password=abc", "--json")
    assert said.exit_code == 1
    report = json.loads(said.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["verdict"] == "different"
    assert report["explanation"]["cause"] == "nondeterminism"
    assert len(report["reproductions"]) == 2

    assert yard("reproduce", 1, "db.password=@/nowhere").exit_code == 2
    assert RunStore(db).get(3).recorded["redacted"] == ["db.password"]


def test_runs_move_by_a_file(yard, tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "runs.yard"
    said = yard("export", 1, 2, "-o", file)
    assert said.exit_code == 0, said.output
    digest = said.stdout.strip()
    assert digest.startswith("sha256:")
    monkeypatch.setenv("YARD_DATABASE", f"{home.database}_2")
    monkeypatch.setenv("YARD_ARTIFACTS", str(tmp_path / "elsewhere"))
    away = Home(home.mongo_url, f"{home.database}_2", tmp_path / "elsewhere", home.spool_root)
    try:
        said = yard("import", file)
        assert said.exit_code == 0, said.output
        assert said.stdout.splitlines() == ["run 1  was run 1 of the bundle", "run 2  was run 2 of the bundle"]
        assert digest in said.stderr
        assert [run["new"] for run in json.loads(yard("import", file, "--json").stdout)["runs"]] == [False, False]
        assert yard("reproduce", 1, "db.password=hunter22").exit_code == 0, "what was brought along suffices"
    finally:
        with away.connected() as db:
            db.client.drop_database(away.database)
