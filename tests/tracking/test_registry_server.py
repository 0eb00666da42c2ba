"""The registry behind a real MLflow server, as teams have it, and what is said when that is not there."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelyard_serving.local_stage import free_port
from modelyard_tracking.aliases import Aliases
from modelyard_tracking.errors import Refused, Unavailable
from modelyard_tracking.ledger import Ledger
from modelyard_tracking.registry import Registry

TAGS = {"model_sha256": "a" * 64, "run_id": "1", "state": "requested"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, folder = free_port(), tmp_path_factory.mktemp("mlflow")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    env = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    if httpx.get(f"{url}/health", timeout=2).status_code == httpx.codes.OK:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            else:
                pytest.fail((folder / "log").read_text()[-2000:])
            yield url
        finally:
            process.terminate()
            process.wait(30)


def test_versions_and_aliases_are_kept_by_a_server(server: str, db) -> None:
    registry = Registry(server)
    for _ in range(2):
        registry.add("tumor", f"s3://models/{'a' * 64}/mlflow", TAGS)
    aliases = Aliases(Ledger(db), registry)
    aliases.move(registry.get("tumor", 2), "champion", "ada", "", None)
    assert aliases.resolve("tumor@champion").ref == "tumor:2"
    assert registry.aliases("tumor") == {"champion": 2}
    registry.tag("tumor", 2, {"state": "approved"})
    assert [version.state for version in registry.versions("tumor")] == ["requested", "approved"]
    assert registry.versions("tumor")[1].source == f"s3://models/{'a' * 64}/mlflow"


def test_a_server_takes_no_folder_of_this_machine_and_the_remedy_is_said(server: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Set artifacts_url to a store that machines share"):
        Registry(server).add("churn", str(tmp_path), TAGS)


def test_a_server_that_does_not_answer_is_said_soon_and_without_its_password() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer") as caught:
        Registry(f"http://ada:s3cret@127.0.0.1:{free_port()}").models()
    assert time.monotonic() - began < 30
    assert "s3cret" not in str(caught.value)
