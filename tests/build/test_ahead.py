"""What can be known of a project before it is trained: each planted fault is found, by the check that should."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from modelyard_build.ahead.examine import examine
from modelyard_build.cases import KINDS
from modelyard_build.checks.finding import Finding, passed
from modelyard_build.errors import Refused
from modelyard_build.junit import junit_xml, write_junit
from modelyard_tracking.errors import NotFound
from places import PROJECTS

Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example project in a place of its own, with nothing wrong but that no commit has it."""
    shutil.copytree(PROJECTS / "tumor", tmp_path / "projects" / "tumor", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "projects" / "tumor"


def wrong(folder: Path) -> list[Finding]:
    return [finding for finding in examine(folder.parent, folder.name) if not finding.passed]


def errors(folder: Path) -> list[Finding]:
    return [finding for finding in wrong(folder) if finding.severity == "error"]


def replaced(file: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def lines_without(file: str, part: str) -> Change:
    def change(folder: Path) -> None:
        lines = (folder / file).read_text().splitlines(keepends=True)
        left = [line for line in lines if part not in line]
        assert len(left) < len(lines)
        (folder / file).write_text("".join(left))

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def removed(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def written(file: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).write_text(text)

    return change


def without_cases(kind: str) -> Change:
    def change(folder: Path) -> None:
        file = folder / "cases.json"
        file.write_text(json.dumps([case for case in json.loads(file.read_text()) if case["kind"] != kind]))

    return change


def notebook(output: str) -> Change:
    cell = {"cell_type": "code", "source": [], "outputs": [{"output_type": "stream", "text": [output]}]}
    return written("explore.ipynb", json.dumps({"cells": [cell]}))


TOML, TRAIN, LOCK = "project.toml", "train.py", "requirements.lock"

FAULTS: list[tuple[str, str, Change]] = [
    (TOML, "is not valid TOML", written(TOML, "name = ")),
    (TOML, "at_lest", replaced(TOML, "at_least = 0.9 }", "at_lest = 0.9 }")),
    (TOML, "'breast'", replaced(TOML, 'name = "tumor"', 'name = "breast"')),
    ("metric", "val_ouc is no key", replaced(TOML, 'name = "val_auc"', 'name = "val_ouc"')),
    ("gates", "none are declared", lines_without(TOML, "{ at_least = 0.9")),
    ("gates", "val_acuracy is no key", replaced(TOML, "val_accuracy", "val_acuracy")),
    ("gates", "there is: holdout", replaced(TOML, "holdout.roc_auc", "test.roc_auc")),
    ("gates", "without positive=", replaced(TRAIN, 'positive="malignant", ', "")),
    ("comparison", "which no file records", replaced(TOML, 'row\nevaluation = "holdout"', 'row\nevaluation = "test"')),
    ("slices", "without slices", replaced(TRAIN, ", slices=slices)", ")")),
    ("card", "leaves owner blank", replaced(TOML, "Cytology group <cytology@example.org>", " ")),
    ("card", "describes no outputs", lines_without(TOML, "the histology is expected")),
    ("card", "describes *texxture*", replaced(TOML, '"*texture*"', '"*texxture*"')),
    ("lock", "no requirements.lock", removed(LOCK)),
    ("lock", "is empty", written(LOCK, "\n")),
    ("lock", "without a hash: a2wsgi", replaced(LOCK, "a2wsgi==1.10.10 \\\n", "a2wsgi==1.10.10\nx==1 \\\n")),
    ("lock", "not pinned to one version: a2wsgi>=1.10.10", replaced(LOCK, "a2wsgi==", "a2wsgi>=")),
    ("needs", "asks for polars, which the lock does not", replaced("requirements.in", "pandas>", "polars\npandas>")),
    ("needs", "asks for pandas>=9", replaced("requirements.in", "pandas>=2.3", "pandas>=9")),
    ("needs", "no longer asks for scikit-learn", replaced("requirements.in", "scikit-learn>=1.7", "")),
    ("needs", "serving asks for skops", replaced(LOCK, "skops==", "skips==")),
    ("needs", "there is no requirements.in", removed("requirements.in")),
    ("needs", "served with cloudpickle", both(
        replaced(TOML, "[sweep]", "[model]\nallow_pickle = true\n[sweep]"), replaced(LOCK, "cloudpickle==", "pickles==")
    )),
    ("cases", "is missing", removed("cases.json")),
    ("cases", "not valid JSON", written("cases.json", "[")),
    *[("cases", f"no case is {kind}", without_cases(kind)) for kind in KINDS],
    (TRAIN, "is missing", removed(TRAIN)),
    (TRAIN, "is no Python: line 8", replaced(TRAIN, "from sklearn.linear_model import", "from sklearn.linear_model")),
    (TRAIN, "is called 'breast'", replaced(TRAIN, 'Experiment("tumor")', 'Experiment("breast")')),
    (TRAIN, "defines no experiment", replaced(TRAIN, 'Experiment("tumor")', "None")),
    (TRAIN, "no main function", replaced(TRAIN, "@ex.automain", "")),
    (TRAIN, "never calls save_model", replaced(TRAIN, "    ex.save_model(model, examples=x_val.head(32))\n", "")),
    (TRAIN, "never hands a model over", replaced(TRAIN, "    ex.hand_over(model)\n", "")),
    ("imports", "train.py imports sklaern", replaced(TRAIN, "sklearn.decomposition", "sklaern.decomposition")),
    ("search space", "search_space.py is missing", removed("search_space.py")),
    ("search space", "defines no space()", replaced("search_space.py", "def space", "def spice")),
    ("search space", "logniform", replaced(TOML, '"search_space.py"', "{ C = { logniform = [0, 1] } }")),
    ("notebooks", "an address with a password", notebook("mongodb://yard:hunter22@10.0.0.1/")),
    ("notebooks", "an access key", notebook("AKIAABCDEFGHIJKLMNOP")),
    ("notebooks", "a private key", notebook("-----BEGIN RSA PRIVATE KEY-----")),
    ("notebooks", "is no notebook", written("explore.ipynb", "{}")),
]  # fmt: skip


@pytest.mark.parametrize(("check", "said", "plant"), FAULTS, ids=[f"{check}: {said}" for check, said, _ in FAULTS])
def test_a_planted_fault_is_found_by_the_check_that_should(folder: Path, check: str, said: str, plant: Change) -> None:
    plant(folder)
    found = [finding for finding in errors(folder) if finding.check == check and said in finding.message]
    assert found, wrong(folder)
    assert found[0].remedy


@pytest.mark.parametrize("name", ["tumor", "digits"])
def test_the_example_projects_are_ready(name: str) -> None:
    assert passed(examine(PROJECTS, name))


def test_an_unknown_project_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(NotFound, match="There is: tumor"):
        examine(folder.parent, "churn")


def test_with_nothing_planted_there_is_nothing_to_find(folder: Path) -> None:
    assert errors(folder) == []


def test_nothing_of_the_project_is_run(folder: Path) -> None:
    for file in folder.glob("*.py"):
        file.write_text(f"{file.read_text()}\nopen({str(folder / 'ran')!r}, 'w')\n")
    assert errors(folder) == []
    assert not (folder / "ran").exists()


def test_what_cannot_be_told_before_it_runs_is_not_claimed(folder: Path) -> None:
    replaced(TRAIN, "    return scores\n", "    scores.update(dataset.more())\n    return scores\n")(folder)
    replaced(TOML, "val_accuracy", "val_anything")(folder)
    assert errors(folder) == []


def test_keys_that_are_added_one_by_one_are_seen(folder: Path) -> None:
    replaced(TRAIN, "    return scores\n", '    scores["val_f1"] = 1.0\n    return scores\n')(folder)
    replaced(TOML, "val_accuracy =", "val_f1 =")(folder)
    assert errors(folder) == []


def test_code_that_no_commit_has_is_a_warning(folder: Path) -> None:
    [said] = wrong(folder)
    assert (said.check, said.severity) == ("git", "warning")
    repository = folder.parents[1]
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *command], cwd=repository, check=True)
    assert wrong(folder) == []
    (folder / "train.py").write_text("ex = None\n")
    [said] = [finding for finding in wrong(folder) if finding.check == "git"]
    assert "projects/tumor/train.py" in said.message


def test_an_environment_that_is_not_the_locks_is_a_warning(folder: Path) -> None:
    replaced(LOCK, "pandas==", "pandas==0.")(folder)
    assert any(f.check == "environment" and f.severity == "warning" and "pandas" in f.message for f in wrong(folder))


def test_a_module_that_only_happens_to_be_installed_is_a_warning(folder: Path) -> None:
    replaced(TRAIN, "import dataset", "import dataset\nimport matplotlib")(folder)
    assert any(f.check == "imports" and "not in the lock" in f.message for f in wrong(folder))
    assert errors(folder) == []


def test_the_report_for_jenkins_has_a_classname_for_each_testcase_and_fails_for_errors_only() -> None:
    findings = (
        Finding("lock", True, "fine", seconds=0.25),
        Finding("git", False, "not committed", "git commit", "warning"),
        Finding("card", False, "blank \x00 <purpose>", "Fill it in."),
        Finding("card", False, "blank limitations", "Fill it in."),
    )
    [suite] = ElementTree.fromstring(junit_xml({"modelyard.tumor.project": findings}))  # noqa: S314 - our own
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["lock", "git", "card", "card (2)"]
    assert {case.get("classname") for case in cases} == {"modelyard.tumor.project"}
    assert [len(case.findall("failure")) for case in cases] == [0, 0, 1, 1]
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("4", "2", "0.250")
    assert "<purpose>" in str(cases[2].find("failure").get("message"))


def test_a_report_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written"):
        write_junit(tmp_path / "file" / "report.xml", {"x": ()})
