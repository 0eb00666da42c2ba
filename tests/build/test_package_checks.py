"""The checks of what is installed: licences, known bad versions, and what is only for training."""

import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from modelyard_build.checks import known_bad, licences, packages, slim
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.errors import Refused
from modelyard_build.report import Report
from modelyard_build.supply.known_bad import known_bad as table
from modelyard_build.supply.known_bad import why_bad
from modelyard_build.supply.licences import is_denied, licence_of, to_spdx, unrecognised
from modelyard_build.supply.packages import installed
from modelyard_serving.manifest import Column, Manifest
from modelyard_tracking.errors import Refused as NotAProject
from modelyard_tracking.origin import locked_versions
from modelyard_tracking.project import BuildPlan, EndpointContract, load_project
from places import PROJECTS, REPOSITORY, TUMOR

CLASSIFIER, GPL = "Classifier: License :: OSI Approved :: ", "GNU General Public License v3 (GPLv3)"
NOBODY: Any = None  # these checks look at the environment, and ask no service
MANIFEST = Manifest(
    "m", 1, 1, "m", "", False, "", (), "", "", "", "3.11", (Column("x", "float64"),), ("predict",), ()
)  # fmt: skip


def add(environment: Path, name: str, version: str, *lines: str, files: dict[str, str] | None = None) -> None:
    """A package as an installer leaves it: a folder with its metadata."""
    folder = environment / "lib" / "python3.11" / "site-packages" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    (folder / "METADATA").write_text("\n".join([*head, *lines]))
    for file, text in (files or {}).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)


ENDPOINT = EndpointContract(unit="u", reward="r")
LOCKED = {"numpy": "2.4.6", "Scikit_Learn": "1.9.1"}


def look(check: Any, environment: Path, **plan: Any) -> Finding:
    return check(NOBODY, Subject(MANIFEST, (), {}, (), 0.0, ENDPOINT, (), environment, BuildPlan(**plan), LOCKED))


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("MIT", "MIT"),
        ("MIT License", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache Software License", "Apache-2.0"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("BSD License", "LicenseRef-BSD"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("GPLv3", "GPL-3.0-only"),
        ("GPL", "GPL-1.0-or-later"),
        ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("GNU Lesser General Public License v3", "LGPL-3.0-only"),
        ("GNU Affero General Public License v3", "AGPL-3.0-only"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "MPL-2.0 AND (Apache-2.0 OR MIT)"),
        ("LicenseRef-Our-Own", "LicenseRef-Our-Own"),
        ("UNKNOWN", ""),
        ("MIT AND", ""),
        ("see the file LICENSE", ""),
        ("", ""),
    ],
)
def test_a_licence_is_read_as_people_write_it(text: str, spdx: str) -> None:
    assert to_spdx(text) == spdx


@pytest.mark.parametrize(
    "expression",
    [
        "GPL-2.0-only",
        "AGPL-3.0-or-later",
        "SSPL-1.0",
        "MIT AND GPL-3.0-or-later",
        "GPL-2.0-only OR AGPL-3.0-only",
        "gplv3",
    ],
)
def test_what_can_only_be_had_under_the_gpl_or_its_like_is_denied(expression: str) -> None:
    assert is_denied(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "LGPL-2.1-or-later",
        "MIT OR GPL-2.0-only",
        "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1",
        "nobody knows",
    ],
)
def test_an_alternative_or_an_exception_for_linking_is_not(expression: str) -> None:
    assert not is_denied(expression)


@pytest.mark.parametrize(
    ("lines", "files", "spdx"),
    [
        (["License-Expression: 0BSD", "License: GPL"], {}, "0BSD"),
        (["License: BSD-3-Clause", f"{CLASSIFIER}BSD License"], {}, "BSD-3-Clause"),
        (["License: Copyright (c) somebody", f"{CLASSIFIER}ISC License (ISCL)"], {}, "ISC"),
        ([f"{CLASSIFIER}MIT License", f"{CLASSIFIER}{GPL}"], {}, "GPL-3.0-only AND MIT"),
        (["License: Dual License", f"{CLASSIFIER}MIT License", f"{CLASSIFIER}{GPL}"], {}, "GPL-3.0-only OR MIT"),
        (["License-File: LICENSE"], {"licenses/LICENSE": "MIT License\n\nText."}, "MIT"),
        (["License: as we please"], {}, "as we please"),
        ([], {}, ""),
    ],
    ids=["expression", "text", "classifier", "both hold", "either", "file", "own words", "nothing"],
)
def test_a_licence_is_looked_for_in_every_place_where_packages_say_it(
    lines: list[str], files: dict[str, str], spdx: str, tmp_path: Path
) -> None:
    add(tmp_path, "one", "1.0", *lines, files=files)
    folder = tmp_path / "lib" / "python3.11" / "site-packages" / "one-1.0.dist-info"
    assert licence_of(Distribution.at(folder)) == spdx


def test_licences_can_be_read_by_several_checks_at_once_from_the_first_one_on() -> None:
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from modelyard_build.supply.licences import to_spdx
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(6) as pool:
    print(set(pool.map(to_spdx, ["Apache-2.0 OR BSD-3-Clause"] * 60)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "{'Apache-2.0 OR BSD-3-Clause'}\n", done.stderr


def test_a_package_under_the_gpl_fails_with_its_name_and_what_to_do(tmp_path: Path) -> None:
    add(tmp_path, "Fine", "1.0", "License-Expression: MIT")
    add(tmp_path, "viral_thing", "2.1", f"{CLASSIFIER}{GPL}")
    finding = look(licences.check, tmp_path)
    assert finding.stops
    assert finding.message.startswith("viral-thing 2.1 (GPL-3.0-only): ")
    assert 'licenses_allowed_for = { viral-thing = "the reason" }' in finding.remedy
    assert "fine" not in finding.message.lower().split(":")[0]


def test_a_project_may_say_why_a_package_may_stay_and_the_report_shows_it(tmp_path: Path) -> None:
    add(tmp_path, "viral_thing", "2.1", "License: GPLv3")
    finding = look(licences.check, tmp_path, licenses_allowed_for={"Viral_Thing": "we have bought another licence"})
    assert finding.passed
    assert "viral-thing 2.1 (GPL-3.0-only): we have bought another licence" in finding.message


def test_a_project_may_deny_other_licences(tmp_path: Path) -> None:
    add(tmp_path, "one", "1.0", "License-Expression: MPL-2.0")
    assert look(licences.check, tmp_path).passed
    assert look(licences.check, tmp_path, licenses_denied=["MPL-*"]).stops


@pytest.mark.parametrize("lines", [[], ["License: as we please"], ["License-Expression: LicenseRef-Proprietary"]])
def test_a_licence_that_nobody_knows_is_a_warning_that_stops_no_build(lines: list[str], tmp_path: Path) -> None:
    add(tmp_path, "odd", "1.0", *lines)
    finding = look(licences.check, tmp_path)
    assert (finding.passed, finding.severity, finding.stops) == (False, "warning", False)
    assert "odd 1.0" in finding.message
    assert Report("m:1", "m:1-x", "b", "m", (finding,)).passed
    assert look(licences.check, tmp_path, licenses_allowed_for={"odd": "asked its author"}).passed


def test_the_build_table_of_a_project_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    text = (TUMOR / "project.toml").read_text()
    file = tmp_path / "tumor" / "project.toml"
    file.parent.mkdir()
    file.write_text(f'{text}\n[build]\nlicenses_denied = ["GPL-*"]\nlicenses_allowed_for = {{ odd = "asked" }}\n')
    plan = load_project(tmp_path, "tumor").build
    assert (plan.licenses_denied, plan.licenses_allowed_for) == (["GPL-*"], {"odd": "asked"})
    file.write_text(f"{text}\n[build]\nlicences_denied = []\n")
    with pytest.raises(NotAProject, match="licences_denied"):
        load_project(tmp_path, "tumor")


@pytest.mark.parametrize(
    ("package", "version", "reference"),
    [
        ("bentoml", "1.4.38", "CVE-2026-44345"),
        ("starlette", "0.49.0", "CVE-2025-62727"),
        ("h11", "0.14.0", "CVE-2025-43859"),
        ("protobuf", "6.33.4", "CVE-2026-0994"),
        ("litellm", "1.82.8", "24518"),
        ("ray", "2.53.0rc1", "CVE-2026-27482"),
    ],
)
def test_a_version_that_is_known_to_be_bad_fails_with_the_reason(
    package: str, version: str, reference: str, tmp_path: Path
) -> None:
    add(tmp_path, package, version)
    finding = look(known_bad.check, tmp_path)
    assert finding.stops
    assert f"{package} {version} (" in finding.message
    assert reference in finding.message
    assert "requirements.in" in finding.remedy


@pytest.mark.parametrize(
    ("package", "version"),
    [("bentoml", "1.4.39"), ("protobuf", "5.29.6"), ("litellm", "1.82.9"), ("no-such-package", "1"), ("ray", "of old")],
)
def test_other_versions_are_not_held_against_anybody(package: str, version: str) -> None:
    assert not why_bad(package, version)


def test_every_entry_of_the_table_says_why_and_where_to_read_more() -> None:
    assert len(table()) > 20
    for known in table():
        assert known.why
        assert known.reference.startswith(("CVE-", "https://github.com/"))
        assert str(known.versions), f"{known.package}: every version would be bad"


def test_no_lock_of_this_repository_holds_a_version_that_is_known_to_be_bad() -> None:
    for lock in (REPOSITORY / "requirements.lock", *sorted(PROJECTS.glob("*/requirements.lock"))):
        versions = locked_versions(lock)
        assert versions
        assert [name for name, version in versions.items() if why_bad(name, version)] == []


def test_what_is_only_for_training_is_named_with_who_wants_it(tmp_path: Path) -> None:
    add(tmp_path, "mlflow-skinny", "3.17.2")
    add(tmp_path, "helper", "1.0", "Requires-Dist: MLflow_Skinny>=3", 'Requires-Dist: ray; extra == "big"')
    add(tmp_path, "jupyter_core", "5.9")
    finding = look(slim.check, tmp_path)
    assert finding.stops
    assert "jupyter-core 5.9, mlflow-skinny 3.17.2 (wanted by helper)" in finding.message


def test_a_served_environment_passes_all_three_and_has_nothing_of_the_build(served_environment: Path) -> None:
    findings = [look(one.check, served_environment) for one in (licences, known_bad, slim)]
    assert [finding.message for finding in findings if not finding.passed] == []
    packages = {package.name: package for package in installed(served_environment)}
    assert {"bentoml", "modelyard-serving", "scikit-learn"} <= packages.keys()
    assert "numpy" in packages["scikit-learn"].needs
    assert not packages.keys() & {"model-signing", "sigstore", "cyclonedx-python-lib", "license-expression", "pip"}
    assert not [name for name, package in packages.items() if unrecognised(package.licence)]


def test_a_folder_without_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no virtual environment"):
        installed(tmp_path)


def test_what_is_installed_is_what_was_locked_and_the_runtime_beside_it(tmp_path: Path) -> None:
    for name, version in (("numpy", "2.4.6"), ("scikit-learn", "1.9.1"), ("modelyard_serving", "0.1.0")):
        add(tmp_path, name, version)
    assert look(packages.check, tmp_path).passed


def test_a_version_that_was_changed_after_locking_and_a_package_more_or_less_are_named(tmp_path: Path) -> None:
    for name, version in (("numpy", "2.4.5"), ("left-pad", "1.0")):
        add(tmp_path, name, version)
    finding = look(packages.check, tmp_path)
    assert finding.stops
    assert finding.message == (
        "left-pad is 1.0, and nothing was locked; numpy is 2.4.5, and 2.4.6 was locked; "
        "scikit-learn is not there, and 1.9.1 was locked"
    )
