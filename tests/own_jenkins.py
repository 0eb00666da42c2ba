"""Runs and lints Jenkinsfiles with tests/jenkins/run.sh."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from places import REPOSITORY

_RUN = REPOSITORY / "tests" / "jenkins" / "run.sh"
# What every agent is set up with: how it reaches a package index.
_AGENT = re.compile(r"(UV|PIP|SSL)_.*|.*_(CA_BUNDLE|PROXY)", re.IGNORECASE)
_GROOVY = Path("/usr/share/java/groovy-all.jar")


@dataclass(frozen=True)
class Ran:
    """What came of a Jenkinsfile."""

    result: str  # SUCCESS, FAILURE, UNSTABLE, ABORTED
    stages: Mapping[str, Any]  # name -> status, ms, sh: [script, rc]
    log: str
    workspace: Path

    @property
    def statuses(self) -> dict[str, str]:
        return {name: stage["status"] for name, stage in self.stages.items()}


@dataclass(frozen=True)
class Jenkins:
    """Stands for one, in a folder of its own; `yard`, `pytest` and python are those of these tests."""

    folder: Path

    def lint(self, file: Path) -> str:
        """What is wrong with a Jenkinsfile; empty where nothing is."""
        done = _started(["--lint", str(file)], 120)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def run(
        self,
        file: Path,
        *,
        parameters: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        options: tuple[str, ...] = ("--branch", "main"),
        timeout_s: float = 600,
    ) -> Ran:
        """Run a Jenkinsfile on a copy of the folder that it lies in, as the first build of its job."""
        agent = {name: value for name, value in os.environ.items() if _AGENT.fullmatch(name)}
        named = [("-P", parameters), ("--cred", credentials), ("-E", {**agent, **(env or {})})]
        given = [text for flag, pairs in named for k, v in (pairs or {}).items() for text in (flag, f"{k}={v}")]
        report = self.folder / "report.json"
        places = ["--src", str(file.parent), "--home", str(self.folder), "--json", str(report)]
        done = _started([*places, *options, *given, str(file)], timeout_s)
        assert report.is_file(), done.stdout + done.stderr
        said = json.loads(report.read_text())
        return Ran(said["result"], said["stages"], done.stdout + done.stderr, self.folder / "workspace")


def missing_programs() -> list[str]:
    """What Jenkinsfiles cannot be run without, and is not here."""
    return [*(["java"] if shutil.which("java") is None else []), *([] if _GROOVY.is_file() else [str(_GROOVY)])]


def _started(arguments: list[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("YARD_")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    return subprocess.run(
        [str(_RUN), *arguments], env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
