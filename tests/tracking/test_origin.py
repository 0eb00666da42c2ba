"""Git state and locks."""

import subprocess
from pathlib import Path

from modelyard_tracking.origin import git_state, has_commit, locked_versions


def test_a_folder_without_a_repository_or_without_a_commit_has_no_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert git_state(tmp_path) is None


def test_a_commit_is_known_in_its_own_repository_only(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, "commit", "-qm", "x", "--allow-empty"], cwd=tmp_path, check=True)
    state = git_state(tmp_path)
    assert state is not None
    assert not state.dirty
    assert has_commit(tmp_path, state.commit)
    assert not has_commit(tmp_path, "0" * 40)
    (tmp_path / "new.py").write_text("")
    changed = git_state(tmp_path)
    assert changed is not None
    assert changed.changes == ("?? new.py",)


def test_bytecode_that_python_writes_beside_the_code_is_no_change(tmp_path: Path) -> None:
    # A fresh machine found this: where Python may write bytecode, importing train.py made every run dirty.
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    for folder in (tmp_path, tmp_path / "project"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"x")
    assert git_state(tmp_path / "project").changes == ()
    (tmp_path / "project" / "new.py").write_text("")
    assert git_state(tmp_path / "project").changes == ("?? project/new.py",)


def test_a_password_in_the_repositorys_address_is_not_recorded(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, "commit", "-qm", "x", "--allow-empty"], cwd=tmp_path, check=True)
    assert git_state(tmp_path).url == str(tmp_path)
    subprocess.run(["git", "remote", "add", "origin", "https://me:hunter2@example.org/x.git"], cwd=tmp_path, check=True)
    assert git_state(tmp_path).url == "https://example.org/x.git"


def test_only_the_lines_for_this_python_and_platform_count(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# a comment\n"
        "numpy==2.4.6 ; python_full_version >= '3.11' \\\n    --hash=sha256:00\n"
        "numpy==1.0 ; python_full_version < '3.11' \\\n    --hash=sha256:00\n"
        "pywin32==311 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
        "uvicorn[standard]==0.54.0 \\\n    --hash=sha256:00\n"
    )
    assert locked_versions(lock) == {"numpy": "2.4.6", "uvicorn": "0.54.0"}
