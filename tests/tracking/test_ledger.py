"""The ledger on a real MongoDB: one chain, whoever writes; every change of it is found."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from modelyard_tracking.errors import Refused
from modelyard_tracking.ledger import START, Head, Ledger, Stands, head_of
from modelyard_tracking.store import Home


@pytest.fixture
def ledger(db) -> Ledger:
    return Ledger(db)


def enter(ledger: Ledger, count: int = 1, subject: str = "tumor:1", **facts: object) -> None:
    for number in range(count):
        ledger.append("request", subject, "ada", lambda number=number: {"run_id": number, **facts}, "because")


def test_entries_follow_on_each_other_and_are_read_back_as_they_were_written(ledger: Ledger) -> None:
    enter(ledger, 3, share=0.1 + 0.2, nested={"ä.$": [1, None, 2.0, True]}, large=2**60)
    first, second, third = ledger.entries()
    assert [entry.number for entry in (first, second, third)] == [1, 2, 3]
    assert (first.previous, second.previous, third.previous) == (START, first.sha256, second.sha256)
    assert third.facts == {"run_id": 2, "share": 0.1 + 0.2, "nested": {"ä.$": [1, None, 2.0, True]}, "large": 2**60}
    assert (third.kind, third.subject, third.by, third.reason) == ("request", "tumor:1", "ada", "because")
    assert all(entry.is_intact for entry in (first, second, third))
    assert ledger.verify().faults == ()
    assert ledger.verify().head == third.head


def test_an_empty_ledger_is_intact(ledger: Ledger) -> None:
    found = ledger.verify()
    assert (found.entries, found.head, found.faults) == (0, None, ())


def test_many_writers_at_once_make_one_chain_without_a_fork(ledger: Ledger, home: Home) -> None:
    def write(writer: int) -> None:
        with home.connected() as db:
            enter(Ledger(db), 10, subject=f"m:{writer}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    found = ledger.verify()
    assert (found.entries, found.faults) == (80, ())
    for writer in range(8):  # and each one's entries are in its own order
        assert [entry.facts["run_id"] for entry in ledger.entries(subject=f"m:{writer}")] == list(range(10))


def test_a_decision_is_made_again_when_another_writer_was_first(ledger: Ledger, home: Home) -> None:
    seen = []

    def decide() -> dict[str, int]:
        count = sum(1 for _ in ledger.entries())
        seen.append(count)
        if len(seen) == 1:
            with home.connected() as db:
                enter(Ledger(db))
        return {"before": count}

    assert ledger.append("split", "tumor", "ada", decide).facts == {"before": 1}
    assert seen == [0, 1]


@pytest.mark.parametrize("why", [Refused("no"), Stands()])
def test_a_decision_that_refuses_enters_nothing(ledger: Ledger, why: Exception) -> None:
    def decide() -> dict[str, int]:
        raise why

    with pytest.raises(type(why)):
        ledger.append("split", "tumor", "ada", decide)
    assert ledger.last() is None


def test_time_never_goes_backwards_in_the_chain(ledger: Ledger, db) -> None:
    enter(ledger)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    db.ledger.update_one({"_id": 1}, {"$set": {"at": later}})  # a clock that was ahead
    enter(ledger)
    assert [entry.at for entry in ledger.entries()][1] >= later


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"by": "eve"}, "entry 2, request of tumor:1, was changed"),
        ({"facts.run_id": 7}, "entry 2, request of tumor:1, was changed"),
        ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, "entry 2, request of tumor:1, was changed"),
        ({"number": 9}, "entry 2, request of tumor:1, was changed"),
        ({"sha256": "0" * 64}, "entry 3 does not follow on entry 2"),
        ({"previous": "0" * 64}, "entry 2 does not follow on entry 1"),
    ],
)
def test_a_changed_entry_is_named(ledger: Ledger, db, change: dict[str, object], fault: str) -> None:
    enter(ledger, 4)
    db.ledger.update_one({"_id": 2}, {"$set": change})
    found = ledger.verify()
    if "number" in change:  # a copy of the key; the key counts
        assert found.faults == ()
    else:
        assert any(fault in text for text in found.faults)


def test_an_entry_that_was_taken_out_is_missed(ledger: Ledger, db) -> None:
    enter(ledger, 4)
    db.ledger.delete_one({"_id": 2})
    assert "between entry 1 and entry 3 entries are missing" in ledger.verify().faults


def test_an_entry_that_was_written_anew_with_a_right_hash_breaks_the_chain_behind_it(ledger: Ledger, db) -> None:
    enter(ledger, 2)
    forged = db.ledger.find_one({"_id": 2})
    db.ledger.delete_one({"_id": 2})
    enter(ledger, 1, subject="tumor:9")
    assert ledger.verify().faults == ()  # alone, the chain cannot know
    head = Head(2, forged["sha256"])
    [fault] = ledger.verify({"the build of tumor-1": head}).faults
    assert fault == "the build of tumor-1 knows another entry 2 than the chain has"


def test_a_chain_that_was_cut_off_is_found_out_by_whoever_knew_its_head(ledger: Ledger, db) -> None:
    enter(ledger, 4)
    head = ledger.last().head
    db.ledger.delete_many({"_id": {"$gt": 2}})
    assert ledger.verify().faults == ()
    [fault] = ledger.verify({"this machine": head}).faults
    assert fault == "this machine knows entry 4, and the chain ends at entry 2"


def test_entries_are_found_by_kind_subject_and_time(ledger: Ledger) -> None:
    enter(ledger, 2)
    between = datetime.now(UTC)
    time.sleep(0.01)
    ledger.append("approve", "tumor:2", "bob", dict)
    assert [entry.number for entry in ledger.entries(["approve"])] == [3]
    assert [entry.number for entry in ledger.entries(subject="tumor:1")] == [1, 2]
    assert [entry.number for entry in ledger.entries(until=between)] == [1, 2]
    assert [entry.number for entry in ledger.entries(newest_first=True, limit=2)] == [3, 2]
    assert ledger.last("request").number == 2


def test_a_head_is_written_and_read_as_text() -> None:
    head = Head(12, "a" * 64)
    assert head_of(str(head)) == head
    assert [head_of(text) for text in ("", "12:abc", "x:" + "a" * 64)] == [None, None, None]
