"""Locks, and the environment that is made of one."""

import shutil
import subprocess
from pathlib import Path

import pytest
import uv

from modelyard_build.environment import make_environment, serving_wheel
from modelyard_build.errors import Refused, Unavailable
from modelyard_build.locking import lock_project, runtime_requirements
from modelyard_tracking.origin import locked_versions, python_version
from places import REPOSITORY, TUMOR


def test_a_lock_holds_the_projects_needs_and_the_runtimes_and_stays_with_the_workspace(tmp_path: Path) -> None:
    shutil.copy(TUMOR / "requirements.in", tmp_path)
    lock = lock_project(tmp_path, REPOSITORY / "requirements.lock")
    versions, workspace = locked_versions(lock), locked_versions(REPOSITORY / "requirements.lock")
    assert {"scikit-learn", "bentoml", "skops", "starlette"} <= versions.keys()
    assert versions.items() <= workspace.items()
    text = lock.read_text()
    assert "://" not in text, "a lock names no index, so that it installs through any mirror"
    assert text.count("--hash=sha256:") > len(versions)


def test_the_committed_lock_of_the_example_project_is_up_to_date(tmp_path: Path) -> None:
    shutil.copytree(TUMOR, tmp_path / "tumor")
    lock = lock_project(tmp_path / "tumor", REPOSITORY / "requirements.lock")
    assert locked_versions(lock) == locked_versions(TUMOR / "requirements.lock")


def test_needs_that_contradict_the_runtime_are_refused_with_the_resolvers_words(tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("starlette<0.1\n")
    with pytest.raises(Refused, match="starlette"):
        lock_project(tmp_path, None)


def test_a_project_without_requirements_is_told_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="List what the model needs"):
        lock_project(tmp_path, None)


def test_the_runtime_needs_no_database_no_gateway_and_nothing_of_training() -> None:
    names = " ".join(runtime_requirements())
    for heavy in ("pymongo", "envoy", "supervisor", "ray", "sacred", "mlflow", "hyperopt", "jupyter"):
        assert heavy not in names


def test_the_serving_wheel_is_the_same_every_time(tmp_path: Path) -> None:
    wheels = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wheels.append(serving_wheel(tmp_path / name).read_bytes())
    assert wheels[0] == wheels[1]


def test_a_lock_that_lacks_what_the_runtime_needs_makes_no_environment(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    _compile(["orjson"], lock)
    wheel = serving_wheel(tmp_path)
    with pytest.raises(Refused, match="does not hold all"):
        make_environment(lock, wheel, python_version(), tmp_path / "environments")


def test_a_package_whose_hash_is_another_is_not_installed(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    _compile(["orjson"], lock)
    hashes = [word for word in lock.read_text().split() if word.startswith("--hash=sha256:")]
    version = lock.read_text().split("==")[1].split()[0]
    lock.write_text(f"orjson=={version} --hash=sha256:{'0' * 64}\n")
    assert hashes
    with pytest.raises(Unavailable, match=r"(?i)hash"):
        make_environment(lock, serving_wheel(tmp_path), python_version(), tmp_path / "environments")


def _compile(requirements: list[str], lock: Path) -> None:
    command = [
        uv.find_uv_bin(),
        "pip",
        "compile",
        "-q",
        "--generate-hashes",
        "--no-emit-index-url",
        "-o",
        str(lock),
        "-",
    ]
    subprocess.run(command, input="\n".join(requirements), text=True, check=True, timeout=120)
