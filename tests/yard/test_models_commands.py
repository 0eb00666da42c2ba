"""The commands about model versions, as an approver types them, over a real database and a real registry."""

import io
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient

from modelyard import cli
from modelyard.evidence_view import BAR_WIDTH, age, interval_bar
from places import TUMOR

Command = Callable[..., "Said"]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def place(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Run `yard ARGS` in a repository with the tumor project. In this process: importing MLflow takes seconds."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(TUMOR, folder / "projects" / "tumor", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text(".yard/\n__pycache__/\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = {"HOME": ".yard", "MONGO_URL": mongo_url, "USER": "ann", "DATABASE": f"test_{uuid.uuid4().hex}"}
        for name, value in settings.items():
            patch.setenv(f"YARD_{name}", value)
        yield _typed
    with MongoClient(mongo_url) as client:
        client.drop_database(settings["DATABASE"])


def _typed(*args: str) -> Said:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["yard", *args])
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module", autouse=True)
def versions(place: Command) -> None:
    """Two versions, the first of them the champion, and a run that is not good enough for a third."""
    said = place("models")
    assert (said.returncode, said.stdout) == (0, "")
    assert "no model versions yet. Make one:  yard request RUN" in said.stderr
    for command in (
        ("train", "tumor", "seed=1"),
        ("request", "1"),
        ("approve", "tumor:1", "--reason", "the first one", "--alias", "champion"),
        ("train", "tumor", "C=0.1", "components=10", "seed=1"),
        ("request", "2"),
        ("train", "tumor", "C=0.0001", "components=2", "seed=1"),
    ):
        done = place(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.fixture
def said(place: Command) -> Callable[..., str]:
    def run(*args: str) -> str:
        done = place(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def told(said: Callable[..., str]) -> Callable[..., Any]:
    return lambda *args: json.loads(said(*args, "--json"))


def test_the_catalog_lists_every_version_with_who_vouches_for_it(said, told) -> None:
    lines = said("models").splitlines()
    assert lines[0].split() == [
        "model", "state", "aliases", "metric", "run", "requested", "by", "decided", "by", "age", "digest",
    ]  # fmt: skip
    assert lines[1].split()[:7] == ["tumor:1", "approved", "champion", "val_auc", "0.9832", "1", "ann"]
    assert lines[2].split()[:2] == ["tumor:2", "requested"]
    assert [entry["version"] for entry in told("models")] == [1, 2]
    assert [entry["version"] for entry in told("models", "tumor")] == [1, 2]


def test_a_model_without_versions_is_said(place: Command) -> None:
    done = place("models", "nosuch")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no model versions of nosuch" in done.stderr


def test_a_stranger_can_read_all_that_speaks_for_a_version(said) -> None:
    text = said("models", "show", "tumor:2")
    for part in (
        "Cytology group", "A second opinion", "Wisconsin 1995", "✓  holdout.roc_auc  0.99658  at least 0.97",
        "✓ roc_auc 0.9966 against 0.9922 of tumor:1, on the same 300 rows", "95% interval +0.0", "above -0.02",
        "worse ┆", "●", "nuclei = large", "small and middle lie", "mean_radius", "length in the image",
        "8.597 to 25.22",
        "malignant", "nobody yet", "asked by     ann", "data holdout     7d2cc937fde4", "evidence",
    ):  # fmt: skip
        assert part in text, part
    assert "ann" in said("models", "show", "tumor@champion")
    assert "the first one" in said("models", "show", "tumor:1")
    assert "there is no champion yet" in said("models", "show", "tumor:1")
    assert said("show", "tumor:2") == text


def test_for_scripts_the_evidence_is_json(told) -> None:
    found = told("models", "show", "tumor:2")
    assert found["evidence"]["comparison"]["passed"] is True
    assert found["evidence"]["slices"]["judged"][0]["passed"] is True


def test_two_versions_stand_side_by_side_with_an_interval(said, told) -> None:
    text = said("models", "compare", "tumor@champion", "tumor:2")
    for part in ("tumor:2 is better by", "holdout roc_auc   0.9922   0.9966   +0.0044", "val_auc", "run", "4000 draws"):
        assert part in text, part
    found = told("models", "compare", "tumor:1", "tumor:2")
    assert found["versions"] == ["tumor:1", "tumor:2"]
    contest = found["contests"][0]
    assert contest["measure"] == "roc_auc"
    assert contest["difference"]["low"] < contest["difference"]["difference"] < contest["difference"]["high"]
    back = told("models", "compare", "tumor:2", "tumor:1")["contests"][0]["difference"]
    assert back["difference"] == -contest["difference"]["difference"]


def test_a_candidate_that_fails_is_refused_with_every_reason(place: Command) -> None:
    done = place("request", "3")
    assert done.returncode == 4
    for part in ("gate val_accuracy", "comparison with the champion tumor:1", "interval of the improvement", "slice"):
        assert part in done.stderr, part


def test_the_model_card_has_front_matter_and_everything_below_it(said, told, place: Command, tmp_path: Path) -> None:
    text = said("models", "card", "tumor:2")
    _, front, body = text.split("---\n", 2)
    read = yaml.safe_load(front)
    assert (read["license"], read["pipeline_tag"]) == ("apache-2.0", "tabular-classification")
    [entry] = read["model-index"]
    [result] = entry["results"]
    assert result["dataset"]["revision"].startswith("7d2cc937fde4")
    assert {"type": "roc_auc", "name": "holdout roc_auc"}.items() <= result["metrics"][0].items()
    assert read["modelyard"]["data_sha256"].keys() == {"train", "validation", "holdout"}
    for part in ("## Limitations", "| mean_radius |", "| malignant |", "## Slices", "better by +0.0", "Asked by ann"):
        assert part in body, part
    assert all(line.count(" | ") == 4 for line in body.splitlines() if line.startswith("| mean_"))
    file = tmp_path / "card.md"
    assert place("models", "card", "tumor:2", "-o", str(file)).stdout == ""
    assert file.read_text() == text == told("models", "card", "tumor:2")["card"]


@pytest.mark.parametrize("command", [["show"], ["card"], ["compare", "tumor:1"]])
def test_an_unknown_version_is_one_sentence(place: Command, command: list[str]) -> None:
    done = place("models", *command, "tumor:99")
    assert done.returncode == 3
    assert "There is no tumor:99. See which there are:  yard models" in done.stderr


def test_a_card_that_cannot_be_written_is_one_sentence(place: Command) -> None:
    done = place("models", "card", "tumor:2", "-o", "/nowhere/card.md")
    assert done.returncode == 4
    assert "/nowhere/card.md cannot be written" in done.stderr


def test_help_of_the_group_names_all_of_its_commands(said) -> None:
    text = said("models", "--help")
    assert all(name in text for name in ("list", "show", "compare", "card"))


@pytest.mark.parametrize(
    ("bar", "drawn"),
    [
        ((-0.5, 0.0, 0.5), "·····━━━━━●━━━━━·····"),
        ((0.5, 0.7, 1.0), "··········│····━━●━━━"),
        ((0.0, 0.0, 0.0), "··········●··········"),
    ],
)
def test_an_interval_is_drawn_around_zero(bar: tuple[float, float, float], drawn: str) -> None:
    limit = 1.0 if bar[0] < 0 else None
    text = interval_bar(*bar, limit, width=21).plain
    assert text.replace("┆", "·") == drawn


@pytest.mark.parametrize("low", [-3.0, -1e-12, 0.0, 2.0])
@pytest.mark.parametrize("limit", [None, 0.0, -0.02, 5.0])
def test_a_bar_is_as_long_as_it_should_be_whatever_it_shows(low: float, limit: float | None) -> None:
    assert len(interval_bar(low, low + 0.5, low + 1, limit).plain) == BAR_WIDTH


def test_an_interval_that_crosses_its_limit_is_neither_good_nor_bad() -> None:
    colours = [interval_bar(low, low + 1, low + 2, -1.0).style for low in (-0.5, -2.0, -4.0)]
    assert colours == ["green", "yellow", "red"]


def test_an_age_is_given_in_its_largest_unit() -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    ages = [age(now - timedelta(seconds=seconds), now) for seconds in (-5, 59, 61, 7200, 200_000)]
    assert ages == ["0 s", "59 s", "1 min", "2 h", "2 d"]
