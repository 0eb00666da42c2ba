"""The commands of MLflow's and JupyterLab's pods are ones that these programs know, and what they are set to holds."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from modelyard_serving.local_stage import free_port
from places import REPOSITORY

Start = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start what a pod's container would, with some of what it says replaced; gives who asks it."""
    with ExitStack() as running:

        def run(manifest: str, port: str, alive: str, replaced: dict[str, str], env: dict[str, str]) -> httpx.Client:
            document = yaml.safe_load((REPOSITORY / "k8s" / "base" / manifest).read_text())
            [container] = document["spec"]["template"]["spec"]["containers"]
            here = str(free_port())
            replaced = {f"={port}": f"={here}", "=0.0.0.0": "=127.0.0.1", **replaced}
            text = "\n".join(container["command"][1:] + container["args"])
            for said, instead in replaced.items():
                assert said in text
                text = text.replace(said, instead)
            assert container["command"][0] == "python"
            process = subprocess.Popen(
                [sys.executable, *text.split("\n")],
                env=os.environ | env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            running.callback(process.wait)
            running.callback(process.terminate)
            client = running.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{here}", timeout=10))
            deadline = time.monotonic() + 90
            while True:
                try:
                    if client.get(alive).status_code == 200:
                        return client
                except httpx.HTTPError:
                    pass
                assert process.poll() is None, "it does not take these arguments"
                assert time.monotonic() < deadline
                time.sleep(0.2)

        yield run


def test_mlflow_answers_by_its_names_only_and_the_kubelet_always(start: Start, tmp_path: Path) -> None:
    mlflow = start(
        "mlflow/deployment.yaml",
        "5000",
        "/health",
        {"s3://$(S3_BUCKET)/mlflow": str(tmp_path), "--workers=2": "--workers=1"},
        {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )
    asked = "/api/2.0/mlflow/registered-models/search"
    names = ("mlflow:5000", "mlflow.modelyard:5000", "mlflow.modelyard.svc:5000", "localhost:5000")
    assert [mlflow.get(asked, headers={"host": name}).status_code for name in names] == [200] * 4
    assert mlflow.get(asked, headers={"host": "evil.example.org"}).status_code == 403
    assert mlflow.get("/health", headers={"host": "10.1.2.3:5000"}).status_code == 200


def test_jupyterlab_asks_for_its_token_and_the_kubelet_needs_none(start: Start, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token")
    env = {"JUPYTER_TOKEN_FILE": f"{tmp_path}/token", "HOME": f"{tmp_path}/home"}
    # Tests may run as root, a pod does not.
    replaced = {"root_dir=/work": f"root_dir={tmp_path}", "--no-browser": "--no-browser\n--ServerApp.allow_root=True"}
    jupyter = start("jupyterlab/stateful-set.yaml", "8888", "/api", replaced, env)
    assert jupyter.get("/api/contents").status_code == 403
    assert jupyter.get("/api/contents", headers={"authorization": "token a-token"}).status_code == 200
