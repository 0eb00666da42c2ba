"""A wheelhouse: filled by pip from a hashed lock, installed from without a network."""

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import uv

from modelyard_build.environment import make_environment, serving_wheel
from modelyard_build.errors import Refused, Unavailable
from modelyard_build.locks.wheelhouse import fill, offline
from modelyard_build.supply.packages import installed
from modelyard_tracking.origin import python_version

NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "requirements.lock"
    command = [uv.find_uv_bin(), "pip", "compile", "-q", "--universal", "--generate-hashes", "--no-emit-index-url"]
    subprocess.run([*command, "-o", str(file), "-"], input="six\npackaging", text=True, check=True, timeout=120)
    return file


def install(lock: Path, wheels: Path, environment: Path) -> "subprocess.CompletedProcess[str]":
    """Install a lock where no index can be asked and nothing was cached before."""
    env = os.environ | {"UV_OFFLINE": "1", "UV_DEFAULT_INDEX": NOWHERE, "UV_NO_CONFIG": "1"}
    env |= {"UV_CACHE_DIR": str(environment.with_name("cache"))}
    venv = [uv.find_uv_bin(), "venv", "-q", "--python", python_version(), str(environment)]
    subprocess.run(venv, check=True, timeout=60)
    command = [uv.find_uv_bin(), "pip", "install", "--python", str(environment / "bin" / "python")]
    command += ["--require-hashes", "--requirements", str(lock), *offline(wheels)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_lock_is_installed_from_its_wheelhouse_without_a_network(lock: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    fill(lock, wheels, python_version())
    assert [wheel.name.partition("-")[0] for wheel in sorted(wheels.iterdir())] == ["packaging", "six"]
    done = install(lock, wheels, tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-c", "import six, packaging"], check=True, timeout=60)


def test_what_is_not_in_the_wheelhouse_is_not_fetched_from_elsewhere(lock: Path, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    done = install(lock, tmp_path / "wheels", tmp_path / "venv")
    assert done.returncode != 0
    assert re.search("six|packaging", done.stderr)


def test_a_wheel_that_was_changed_in_the_wheelhouse_is_not_installed(lock: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    fill(lock, wheels, python_version())
    [six] = wheels.glob("six-*")
    with zipfile.ZipFile(six, "a") as wheel:
        wheel.writestr("more.py", "print('not what was locked')")
    done = install(lock, wheels, tmp_path / "venv")
    assert done.returncode != 0
    assert re.search("(?i)hash", done.stderr)


def test_filling_again_keeps_what_is_there(lock: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    fill(lock, wheels, python_version())
    before = {wheel: wheel.read_bytes() for wheel in wheels.iterdir()}
    fill(lock, wheels, python_version())
    assert {wheel: wheel.read_bytes() for wheel in wheels.iterdir()} == before


def test_a_lock_that_cannot_be_trusted_or_had_is_refused_in_a_sentence(lock: Path, tmp_path: Path) -> None:
    text = lock.read_text()
    faults = {
        "has no hashes": re.sub(r" \\\n +--hash=\S+|\s+--hash=\S+", "", text),
        "not the one that": re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", text),
        "has no wheel for Python": text.replace("six==1", "six==99"),
    }
    for message, content in faults.items():
        lock.write_text(content)
        with pytest.raises(Refused, match=message):
            fill(lock, tmp_path / "wheels", python_version())
    lock.unlink()
    with pytest.raises(Refused, match="yard lock PROJECT"):
        fill(lock, tmp_path / "wheels", python_version())


def test_what_serves_a_model_is_made_from_its_wheelhouse_where_no_index_answers(
    served_lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(served_lock, tmp_path / "wheels", python_version())
    wheel = serving_wheel(tmp_path)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(Unavailable):
        make_environment(served_lock, wheel, python_version(), tmp_path / "without")
    made = make_environment(served_lock, wheel, python_version(), tmp_path / "with", tmp_path / "wheels")
    assert {package.name for package in installed(made)} >= {"bentoml", "modelyard-serving", "scikit-learn"}
