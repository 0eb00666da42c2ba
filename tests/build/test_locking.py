"""Locks, and the environment that is made of one."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import uv
from packaging.requirements import Requirement

from modelyard_build.ahead.draft import Draft
from modelyard_build.ahead.lock import check_needs
from modelyard_build.environment import make_environment, serving_wheel
from modelyard_build.errors import Refused, Unavailable
from modelyard_build.locks.locking import lock_project, runtime_requirements, served_part
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


@pytest.fixture
def locked_by_uv(tmp_path: Path) -> Path:
    """A project that uv has locked, with everything that serving wants."""
    needs = ",".join(f'"{need}"' for need in runtime_requirements())
    python = 'requires-python = ">=3.11,<3.14"'
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "p"\nversion = "0"\n{python}\ndependencies = [{needs}]\n'
    )
    subprocess.run([uv.find_uv_bin(), "lock", "--quiet", "--project", str(tmp_path)], check=True, timeout=300)
    return tmp_path


def test_a_lock_of_uv_is_taken_over_line_by_line_and_found_to_be_in_step(locked_by_uv: Path) -> None:
    lock = lock_project(locked_by_uv, None)
    versions = locked_versions(lock)
    assert {"bentoml", "skops", "starlette"} <= versions.keys()
    assert "://" not in lock.read_text(), "a lock names no index"
    assert lock.read_text().count("--hash=sha256:") > len(versions)
    assert "bentoml==" in served_part(lock.read_text(), "sklearn")
    [finding] = check_needs(Draft(locked_by_uv, None, "", {}))
    assert (finding.passed, finding.message) == (True, "the lock is that of uv.lock")
    lock.write_text(lock.read_text().replace("bentoml==", "bentoml==9"))
    [finding] = check_needs(Draft(locked_by_uv, None, "", {}))
    assert finding.message == "uv.lock was locked anew, and requirements.lock was not"


def test_a_lock_of_pipenv_is_taken_over_with_markers_and_hashes(tmp_path: Path) -> None:
    ours = locked_versions(REPOSITORY / "requirements.lock")
    names = [Requirement(need).name for need in runtime_requirements()]
    digest = "sha256:" + "0" * 64
    default = {name: {"hashes": [digest], "version": f"=={ours[name]}"} for name in names}
    default["colorama"] = {"hashes": [digest], "version": "==0.4.6", "markers": "sys_platform == 'win32'"}
    (tmp_path / "Pipfile.lock").write_text(json.dumps({"_meta": {}, "default": default, "develop": {"x": {}}}))
    lock = lock_project(tmp_path, None)
    assert locked_versions(lock) == {name: ours[name] for name in names}
    assert f"colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash={digest}\n" in lock.read_text()


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ({}, "does not hold what a model is served with: bentoml"),
        ({"numpy": {"git": "https://code.example/numpy", "ref": "main"}}, "holds numpy without a version and a hash"),
        ({"numpy": {"version": "==2.4.6"}}, r"holds numpy==2\.4\.6 without a version and a hash"),
        ([], "is no lock that Pipenv writes"),
    ],
)
def test_a_lock_of_pipenv_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, packages, said: str) -> None:
    (tmp_path / "Pipfile.lock").write_text(json.dumps({"default": packages}))
    with pytest.raises(Refused, match=said):
        lock_project(tmp_path, None)
    assert not (tmp_path / "requirements.lock").exists()


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
