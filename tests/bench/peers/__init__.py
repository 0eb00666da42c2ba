"""The peers: how each is installed, started and asked, as its authors would have it on one worker.

All get the same fitted model and one thread for linear algebra; all have uvloop and httptools, also those that do not
ask for them; nobody writes an access log. What would slow a peer down and is not its own affair is left out: the names
of the columns for those that take arrays, since scikit-learn warns about their absence at each request; for MLflow the
model's signature, whose enforcement, column by column, takes three quarters of its time.

MLServer and BentoML batch across requests where they are told to; that is measured beside their defaults.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uv
import yaml
from dialects import DATAFRAME_SPLIT, INSTANCES, INSTANCES_TO_LIST, OPEN_INFERENCE, Dialect
from servers import Tree, serving

from modelyard_serving.local_stage import free_port

HERE = Path(__file__).resolve().parent
KEPT = Path(os.environ.get("BENCH_HOME") or Path.home() / ".cache" / "modelyard" / "bench")
FAST_HTTP = ("httptools==0.9.0", "uvloop==0.23.0")
NUMERIC = ("scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl", "skops")  # as the project's lock has them


@dataclass(frozen=True, slots=True)
class Place:
    """What a peer's command may refer to."""

    python: Path  # of its own environment
    folder: Path  # its own, empty
    joblib: Path  # the model, for those that take arrays
    mlflow: Path  # the model in MLflow's format
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is compared with ours."""

    name: str
    packages: Sequence[str]
    command: Callable[[Place], Sequence[str | Path]]
    path: str
    dialect: Dialect
    ready: str
    batching: str = ""  # the path where it batches across requests, which it does only when told to
    env: Mapping[str, str] = field(default_factory=dict)


def _mlserver(place: Place) -> list[str | Path]:
    for name, batching in (("tumor", {}), ("batching", {"max_batch_size": 32, "max_batch_time": 0.002})):
        model = {"name": name, "implementation": "mlserver_sklearn.SKLearnModel", **batching}
        (place.folder / name).mkdir()
        file = place.folder / name / "model-settings.json"
        file.write_text(json.dumps({**model, "parameters": {"uri": str(place.joblib)}}))
    # No pool of processes: on one worker it only costs a way there and back.
    settings = {"parallel_workers": 0, "debug": False, "gzip_enabled": False, "host": "127.0.0.1"}
    ports = {"http_port": place.port, "grpc_port": free_port(), "metrics_port": free_port()}
    (place.folder / "settings.json").write_text(json.dumps({**settings, **ports}))
    return [place.python.with_name("mlserver"), "start", place.folder]


def _mlflow(place: Place) -> list[str | Path]:
    program = place.python.with_name("mlflow")
    address = ["-h", "127.0.0.1", "-p", str(place.port)]
    return [program, "models", "serve", "-m", place.mlflow, "--env-manager", "local", "--workers", "1", *address]


def _bentoml(place: Place) -> list[str | Path]:
    where = ["--working-dir", HERE, "--host", "127.0.0.1", "--port", str(place.port)]
    return [place.python, "-m", "bentoml", "serve", "bento:Plain", *where]


def _ray_serve(place: Place) -> list[str | Path]:
    return [place.python, HERE / "ray_serve.py"]


def _bare(place: Place) -> list[str | Path]:
    how = ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"]
    return [place.python, "-m", "uvicorn", "bare:app", "--app-dir", HERE, "--port", str(place.port), *how]


PEERS = (
    Peer(
        "mlserver",
        ("mlserver==1.7.1", "mlserver-sklearn==1.7.1"),
        _mlserver,
        "/v2/models/tumor/infer",
        OPEN_INFERENCE,
        "/v2/health/ready",
        "/v2/models/batching/infer",
    ),
    Peer(
        "mlflow",
        ("mlflow==3.17.2",),
        _mlflow,
        "/invocations",
        DATAFRAME_SPLIT,
        "/ping",
        env={"UVICORN_ACCESS_LOG": "0", "UVICORN_LOG_LEVEL": "warning", "MLFLOW_DISABLE_TELEMETRY": "true"},
    ),
    Peer(
        "bentoml",
        ("bentoml==1.4.39",),
        _bentoml,
        "/predict",
        INSTANCES_TO_LIST,
        "/readyz",
        "/predict_batch",
        env={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "ray_serve",
        ("ray[serve]==2.60.0",),
        _ray_serve,
        "/predict",
        INSTANCES,
        "/-/healthz",
        env={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_worker_niceness": "0"},
    ),
    Peer("bare", ("starlette==1.10.0", "uvicorn==0.54.0"), _bare, "/predict", INSTANCES, "/"),
)


def install(peer: Peer, lock: Path) -> Path:
    """The Python of the peer's own environment; made once for what is asked for, and kept outside of the repository.

    Args:
        lock: of the project; what reckons is in the same version everywhere.
    """
    numeric = re.findall(rf"^((?:{'|'.join(NUMERIC)})==[^\\\n]+)", lock.read_text(), re.MULTILINE)
    wanted = "\n".join([*peer.packages, *FAST_HTTP, *map(str.strip, numeric)])
    name = hashlib.sha256(f"{wanted}\n{sys.version}".encode()).hexdigest()[:12]
    folder = KEPT / f"{peer.name}-{name}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {peer.name} into {folder}", file=sys.stderr)
        folder.parent.mkdir(parents=True, exist_ok=True)
        requirements = folder.with_suffix(".txt")
        requirements.write_text(wanted)
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(python), "--requirements", str(requirements))
        (folder / "complete").touch()
    return python


def models(python: Path, trained: Path, folder: Path) -> tuple[Path, Path]:
    """The trained model, in MLflow's format, for the peers: as a joblib file, and as it is but for its signature.

    Args:
        python: of an environment that has skops.
    """
    joblib, mlflow = folder / "model.joblib", folder / "model"
    subprocess.run([python, HERE / "as_joblib.py", trained / "model.skops", joblib], check=True, timeout=120)
    shutil.copytree(trained, mlflow)
    about = yaml.safe_load((mlflow / "MLmodel").read_text())
    del about["signature"]
    (mlflow / "MLmodel").write_text(yaml.safe_dump(about))
    return joblib, mlflow


@contextmanager
def started(peer: Peer, python: Path, scratch: Path, joblib: Path, mlflow: Path) -> Iterator[tuple[Tree, int]]:
    """The peer, answering: its processes and its port."""
    place = Place(python, scratch / peer.name, joblib, mlflow, free_port())
    place.folder.mkdir()
    env = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "BENCH_MODEL": str(joblib),
        "BENCH_PORT": str(place.port),
        "BENTOML_HOME": str(place.folder),
        **peer.env,
    }
    ready = f"http://127.0.0.1:{place.port}{peer.ready}"
    command = list(map(str, peer.command(place)))
    with serving(command, env, place.folder, ready, any_answer=peer.name == "bare") as tree:
        yield tree, place.port


def _uv(*args: str) -> None:
    done = subprocess.run([uv.find_uv_bin(), "--quiet", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv {' '.join(args[:2])} failed:\n{done.stderr}")
