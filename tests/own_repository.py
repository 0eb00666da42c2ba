"""Repositories, all committed: one that `yard new` makes, with its blanks filled in, and this one as it stands."""

import shutil
import subprocess
from pathlib import Path

from modelyard.scaffold import new_repository
from places import REPOSITORY


def filled_in(folder: Path, name: str = "churn") -> Path:
    new_repository(name, folder)
    file = folder / "projects" / name / "project.toml"
    text = file.read_text()
    for part in ("purpose", "limitations"):
        assert f'{part} = ""' in text
        text = text.replace(f'{part} = ""', f'{part} = "For the tests."')
    file.write_text(text)
    return _committed(folder)


def as_it_stands(folder: Path) -> Path:
    """This repository with what is changed and not committed yet, and without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return _committed(folder)


def _committed(folder: Path) -> Path:
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
