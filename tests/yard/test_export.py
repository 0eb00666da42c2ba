"""`yard export`: YAML and nothing else on stdout, what is lost on stderr."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from modelyard.cli import app
from modelyard.commands import serving
from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore


@pytest.fixture
def export(home, db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Run `yard export ARGS` where two versions are in pods."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    store = EndpointStore(db)
    for version in (1, 2):
        image = f"registry.example/tumor@sha256:{version:064x}"
        store.put_deployment(
            Deployment(
                f"tumor-{version}", "tumor", version, "", "", "", "", (), "", image, 2, f"tumor-{version}.svc", 512
            )
        )
    made = Endpoint.first("tumor", "champion", "tumor-1").with_variant("challenger", "tumor-2")
    store.put(made.split({"champion": 80, "challenger": 20}), 1)
    (tmp_path / "yard.toml").touch()
    yard = Yard(read_settings({"YARD_MONGO_URL": home.mongo_url, "YARD_DATABASE": home.database}, tmp_path))
    monkeypatch.setattr(serving, "open_yard", lambda _stage: yard)
    yield lambda *args: CliRunner().invoke(app, ["export", "tumor", *args])
    yard.close()


@pytest.mark.parametrize("form", ["httproute", "inferenceservice"])
def test_stdout_is_yaml_and_what_is_lost_is_on_stderr(export, form: str) -> None:
    said: Result = export("--as", form, "--to", "models")
    assert said.exit_code == 0, said.output
    documents = list(yaml.safe_load_all(said.stdout))
    assert {document["kind"].lower() for document in documents} == {form}
    assert said.stdout.startswith("---\n")
    assert "lost: keys" in said.stderr


def test_to_the_gateway_nothing_is_lost(export) -> None:
    said: Result = export("--as", "httproute", "--gateway", "infra/public")
    [route] = yaml.safe_load_all(said.stdout)
    assert route["spec"]["parentRefs"] == [{"namespace": "infra", "name": "public"}]
    assert said.stderr == ""
