"""Package: model, lock, serving wheel and manifest become a bento. The service in it is always ours."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from modelyard_build.errors import Unavailable
from modelyard_serving.manifest import Manifest
from modelyard_serving.model_files import digest_of

# BentoML's own metrics are off: it keeps those of all bentos of a machine in one folder, which the next one to start
# empties, and has a label for whatever path was asked. /metrics is the runtime's.
_SERVICE = '''\
"""Made by `yard build` for {ref}. Not to be edited: a changed bento has another digest and is not deployed."""

from pathlib import Path

import bentoml

from modelyard_serving.runtime.app import create_app, start

app = create_app(Path(__file__).parent)


@bentoml.service(
    name="{model}",
    workers=1,
    traffic={{"timeout": 30}},
    metrics={{"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class Service:
    def __init__(self) -> None:
        start(app)
'''

# Not in the service: there BentoML would look for the lock again whenever it serves, and refuse a path below `.yard`.
_BENTOFILE = """\
service: "service:Service"
labels:
  model: "{model}"
  version: "{version}"
  run: "{run}"
python:
  requirements_txt: "./requirements.lock"
  lock_packages: false
  wheels: ["./wheels/{wheel}"]
docker:
  python_version: "{python}"
"""


_MADE_AT = re.compile(r"^creation_time: .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bento:
    """A packaged bento: its tag, its folder, and the digest of everything in it."""

    tag: str
    path: Path
    sha256: str


def package(
    manifest: Manifest,
    model: Path,
    lock: Path,
    wheel: Path,
    papers: Mapping[str, bytes],
    at: datetime,
    bentoml_home: Path,
    inputs_sha256: str,
) -> Bento:
    """Put the parts into a bento. Its version carries the digest of its inputs: other inputs, another bento.

    Args:
        papers: what is told about the model, such as its bill of materials, by file name.
        at: stands in it as the time when it was made, so that the same parts give the same bento.

    Raises:
        Unavailable: BentoML failed; its own words are in the text.
    """
    version = f"{manifest.version}-{inputs_sha256[:12]}"
    folder = bentoml_home / "bentos" / manifest.model / version
    if folder.exists():  # an earlier build of the same inputs that did not pass, or was changed since
        shutil.rmtree(folder)
    with tempfile.TemporaryDirectory(prefix="yard-build-") as scratch:
        context = Path(scratch)
        shutil.copytree(model, context / "model")
        shutil.copy(lock, context / "requirements.lock")
        (context / "wheels").mkdir()
        shutil.copy(wheel, context / "wheels")
        (context / "manifest.json").write_bytes(manifest.to_json())
        for name, content in papers.items():
            (context / name).write_bytes(content)
        ref = f"{manifest.model}:{manifest.version}"
        (context / "service.py").write_text(_SERVICE.format(ref=ref, model=manifest.model))
        (context / "bentofile.yaml").write_text(
            _BENTOFILE.format(
                model=manifest.model,
                version=manifest.version,
                run=manifest.run_id,
                wheel=wheel.name,
                python=manifest.python,
            )
        )
        env = os.environ | {
            "BENTOML_HOME": str(bentoml_home),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "build", "--version", version, "--output", "tag", str(context)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=env,
            cwd=context,
        )
    if done.returncode or not folder.is_dir():
        raise Unavailable(f"bentoml build failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    described = folder / "bento.yaml"
    described.write_text(_MADE_AT.sub(f"creation_time: '{at.isoformat()}'", described.read_text()))
    return Bento(f"{manifest.model}:{version}", folder, digest_of(folder))
