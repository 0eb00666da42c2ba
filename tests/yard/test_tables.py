"""What people see of builds: their checks, and what the ledger says of them."""

from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.table import Table

from modelyard.tables import findings_table, ledger_table
from modelyard_build.checks.finding import Finding
from modelyard_build.report import Report
from modelyard_tracking.ledger import Entry


def shown(findings: list[dict[str, object]]) -> list[str]:
    return printed(findings_table(findings))


def printed(table: Table) -> list[str]:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_check_is_shown_with_what_it_measured_and_a_remedy_only_where_it_is_wanted() -> None:
    findings = (
        Finding("budget", True, "one row within 200 ms", "unused", seconds=1.5, measured="p99 3 ms"),
        Finding("licences", False, "[one] is unknown", "Look it up.", "warning"),
        Finding("golden", False, "row 0 differs", "Train again."),
    )
    lines = shown(Report("m:1", "t", "b", "m", findings).to_dict()["findings"])
    assert lines[1].split() == ["✓", "budget", "one", "row", "within", "200", "ms:", "p99", "3", "ms", "1.5", "s"]
    assert lines[2].split()[:4] == ["!", "licences", "[one]", "is"]
    assert "Look it up." in lines[3]
    assert lines[4].startswith("✗  golden")
    assert "Train again." in lines[5]
    assert not any("unused" in line for line in lines)


def test_a_report_of_before_there_were_seconds_is_shown_too() -> None:
    old = {"check": "golden", "passed": True, "message": "fine", "remedy": ""}
    assert shown([old])[1].split() == ["✓", "golden", "fine"]


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        ("build", {"bento": "tumor:1-ab", "bento_sha256": "0"}, "tumor:1-ab"),
        ("build", {"image": "sha256:cd", "bento_sha256": "0"}, "sha256:cd"),
        ("push", {"image": "sha256:cd", "digest": "sha256:ef"}, "sha256:ef"),
    ],
)
def test_the_ledger_names_what_was_built_and_pushed(kind: str, facts: dict[str, str], said: str) -> None:
    entry = Entry(1, datetime(2026, 1, 1, tzinfo=UTC), kind, "tumor:1", "me", "", facts, "", "0" * 64)
    assert said in printed(ledger_table([entry]))[-1].split()
