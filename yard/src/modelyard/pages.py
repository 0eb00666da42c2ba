"""Pages that `yard up` starts on request, on loopback: MLflow's and JupyterLab. Omniboard has a module of its own."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from modelyard.settings import Settings
from modelyard_serving.errors import Unavailable
from modelyard_serving.keys import kept_secret
from modelyard_serving.processes import Process


@dataclass(frozen=True, slots=True)
class Page:
    """A program with pages, before it is started."""

    process: Process
    port: int
    alive_url: str  # answers once it is up
    entrance: str  # what a person is told: the address, and how to log in


def mlflow(settings: Settings) -> Page:
    """MLflow's own pages, over the registry."""
    url = f"http://127.0.0.1:{settings.mlflow_port}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.mlflow_port),
        "--workers",
        "1",
    ]
    env = {
        "MLFLOW_BACKEND_STORE_URI": settings.registry_uri,  # may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Page(Process("mlflow", command, env), settings.mlflow_port, f"{url}/health", url)


def jupyter(settings: Settings) -> Page:
    """JupyterLab in this environment, the one that training wants, and with these settings wherever a notebook is.

    Raises:
        Unavailable: JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise Unavailable(
            "JupyterLab is not in this environment.\nInstall it:  make setup      (it is the extra `lab` of modelyard)"
        )
    url = f"http://127.0.0.1:{settings.jupyter_port}"
    token_file = settings.home / "secrets" / "jupyter"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={settings.jupyter_port}",
        "--ServerApp.port_retries=0",  # the port that is printed, or none
        f"--ServerApp.root_dir={settings.root}",
        "--ServerApp.allow_root=True",  # a container's user often is root
        "--LabApp.extension_manager=readonly",  # installing there would leave the lock
    ]
    env = {
        **settings.environment,
        "JUPYTER_TOKEN_FILE": str(token_file),
        # Switches off the pop-up about news and updates, which asks the network.
        "JUPYTER_CONFIG_PATH": str(Path(__file__).with_name("jupyter")),
    }
    token = kept_secret(token_file, 12)  # short enough for one line of a terminal
    return Page(Process("jupyter", command, env), settings.jupyter_port, f"{url}/api", f"{url}/lab?token={token}")
