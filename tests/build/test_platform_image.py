"""The image of console, follower, MLflow and JupyterLab: made on a real docker engine, of what is installed here."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_build.errors import Refused
from modelyard_build.images import platform
from modelyard_build.images.engine import Base, Engine
from modelyard_serving.errors import Refused as ServingRefused
from own_engine import OwnEngine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
ROOTS = ("modelyard-serving[gateway]", "rich")
SMALL = platform.LEFT_OUT | {"bentoml", "skops", "pandas"}
LOOK = """
import json, os, subprocess, sys
from importlib.metadata import version
import modelyard_serving.console.app
said = subprocess.run(["uvicorn", "--version"], capture_output=True, text=True, check=True).stdout
print(json.dumps([sys.prefix, version("rich"), version("modelyard-serving"), said.split()[2], os.getuid()]))
"""
Make = Callable[[], str]


@pytest.fixture
def below(engine: OwnEngine) -> Base:
    return Engine(engine.client).base(engine.base)


@pytest.fixture
def make(engine: OwnEngine, below: Base) -> Make:
    return lambda: platform.make(Engine(engine.client), below, ROOTS, SMALL)


def test_it_runs_what_is_installed_here_and_writes_nothing(engine: OwnEngine, make: Make) -> None:
    said = engine.client.containers.run(
        make(), ["python", "-c", LOOK], remove=True, network_mode="none", read_only=True, cap_drop=["ALL"]
    )
    versions = [version(name) for name in ("rich", "modelyard-serving")]
    prefix, *found, of_uvicorn, user = json.loads(said)
    assert (prefix, found, user) == ("/app/environment", versions, 10001)
    assert of_uvicorn == version("uvicorn")  # a command, which names its Python


def test_it_is_the_same_image_whenever_it_is_made(make: Make) -> None:
    assert make() == make()


def test_it_is_pushed_and_named_by_its_digest(
    engine: OwnEngine, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All that belongs into it is a gigabyte, so here it is less."""
    image = make()
    monkeypatch.setattr(platform, "make", lambda *_: image)
    (tmp_path / "yard.toml").write_text(f'images = "{engine.registry}/team"\n')
    yard = Yard(read_settings({"YARD_MONGO_URL": "mongodb://127.0.0.1:9"}, tmp_path))  # which nobody asks
    ref = yard.platform_image(engine.base)
    assert ref.startswith(f"{engine.registry}/team/modelyard@sha256:")
    assert yard.platform_image(engine.base) == ref
    engine.client.images.pull(ref)


def test_a_base_with_another_python_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "PYTHON", "3.9")
    with pytest.raises(Refused, match=r"has Python 3.11, and"):
        make()


def test_without_a_registry_it_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "yard.toml").touch()
    yard = Yard(read_settings({"YARD_MONGO_URL": "mongodb://127.0.0.1:9"}, tmp_path))
    with pytest.raises(ServingRefused, match=r"No registry is named(.|\n)*export YARD_IMAGES="):
        yard.platform_image()


def test_what_ours_ask_for_must_be_installed_and_what_the_lock_leaves_out_of_others_need_not() -> None:
    assert "jupyterlab" in platform.closure(["modelyard[lab]"], platform.LEFT_OUT)
    assert "rfc3987-syntax" not in platform.closure(["modelyard[lab]"], platform.LEFT_OUT)
    with pytest.raises(Refused, match="modelyard-nowhere belongs into the image, and is not installed"):
        platform.closure(["modelyard-nowhere"], set())
