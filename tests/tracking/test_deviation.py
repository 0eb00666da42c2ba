"""How far two runs lie apart, and what explains it."""

import math

import numpy as np
import pytest

from modelyard_tracking.reproducing.deviation import (
    Cause,
    Outcome,
    Verdict,
    compare,
    deviation,
    explain,
    overall,
    tell_apart,
)

FRAME = {"sha256": "a" * 64, "rows": 180, "columns": 3}


@pytest.mark.parametrize(
    ("was", "now", "apart"),
    [
        (1.0, 1.0, 0.0),
        (1, 1.0, 0.0),
        (math.nan, math.nan, 0.0),
        (math.inf, math.inf, 0.0),
        (0.0, -0.0, 0.0),
        (1.0, 1.1, 0.1 / 1.1),
        (-2.0, 2.0, 2.0),
        (0.0, 1e-300, 1.0),
        (1.0, math.nan, math.inf),
        (1.0, math.inf, math.inf),
        ("yes", "yes", 0.0),
        ("yes", "no", math.inf),
        (True, 1, math.inf),
        (None, 0.0, math.inf),
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0], math.inf),
        ({"a": 1.0, "b": [4.0]}, {"a": 1.0, "b": [5.0]}, 0.2),
        ({"a": 1.0}, {"b": 1.0}, math.inf),
    ],
)
def test_values_lie_apart_by_their_largest_relative_difference(was, now, apart: float) -> None:
    found = deviation(was, now)
    assert found == apart or found == pytest.approx(apart, rel=1e-12)


def test_arrays_lie_apart_against_their_largest_number() -> None:
    was = np.array([1e-17, 10.0, np.nan])
    assert deviation(was, np.array([3e-17, 10.0, np.nan])) < 1e-17
    assert deviation(was, np.array([1e-17, 11.0, np.nan])) == pytest.approx(1 / 11)
    assert deviation(was, np.array([1e-17, 10.0, 0.0])) == math.inf
    assert deviation(was, was.astype("float32")) == math.inf
    assert deviation(np.array([1, 2]), np.array([1, 3])) == math.inf
    assert deviation(np.array([]), np.array([])) == 0


def test_bytes_between_the_fields_of_a_record_do_not_count() -> None:
    """scikit-learn's trees are such records."""
    dtype = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    one, two = np.zeros(2, dtype), np.frombuffer(bytearray(b"\xff" * 32), dtype)  # a copy may leave them out
    for name in dtype.names:
        two[name] = one[name]
    assert one.tobytes() != two.tobytes()
    assert deviation(one, two) == 0


def test_the_worst_item_decides() -> None:
    old = Outcome(1, "COMPLETED", result={"a": 1.0, "b": 2.0}, curves={"loss": ([0, 1], [3.0, 1.0])})
    new = Outcome(2, "COMPLETED", result={"a": 1.0, "b": 2.0 + 1e-8}, curves={"loss": ([0, 1], [3.0, 1.0])})
    items = {item.what: item.verdict for item in compare(old, new, 1e-6)}
    assert items == {
        "status": Verdict.IDENTICAL, "result a": Verdict.IDENTICAL, "result b": Verdict.WITHIN,
        "metric loss": Verdict.IDENTICAL,
    }  # fmt: skip
    assert overall(compare(old, new, 1e-6)) is Verdict.WITHIN
    assert overall(compare(old, new, 0)) is Verdict.DIFFERENT
    assert overall(compare(old, old, 0)) is Verdict.IDENTICAL


def test_what_only_one_run_left_behind_is_a_difference() -> None:
    old = Outcome(1, "COMPLETED", curves={"loss": ([0], [1.0])}, artifacts=(("plot", "1"), ("plot", "2")))
    new = Outcome(2, "COMPLETED", artifacts=(("plot", "1"),))
    different = [item.what for item in compare(old, new, 1.0) if item.verdict is Verdict.DIFFERENT]
    assert different == ["metric loss", "artifact plot (2)"]


def test_a_step_that_moved_is_a_difference() -> None:
    old, new = (Outcome(1, "COMPLETED", curves={"loss": (steps, [1.0, 2.0])}) for steps in ([0, 1], [0, 2]))
    assert overall(compare(old, new, 1e-6)) is Verdict.DIFFERENT


def test_the_first_cause_is_named_data_before_code_before_environment() -> None:
    everything = {
        "data": {"train": FRAME | {"sha256": "b" * 64, "rows": 181}},
        "sources": {"train.py": "2"},
        "software": {"numpy": "2.0"},
    }
    old = Outcome(1, "COMPLETED", data={"train": FRAME}, sources={"train.py": "1"}, software={"numpy": "1.0"})
    new = Outcome(2, "COMPLETED", **everything)
    found = explain(old, new)
    assert found is not None
    assert found.cause is Cause.DATA
    assert found.because == (f"train was {'a' * 12} (180 rows), and is {'b' * 12} (181 rows)",)
    found = explain(old, Outcome(2, "COMPLETED", **everything | {"data": {"train": FRAME}}))
    assert found is not None
    assert found.cause is Cause.CODE
    assert "train.py" in found.because[0]
    found = explain(
        old, Outcome(2, "COMPLETED", {"train": FRAME}, sources={"train.py": "1"}, software={"numpy": "2.0"})
    )
    assert found is not None
    assert found.cause is not Cause.CODE


def test_other_packages_explain_a_difference_and_the_same_ones_do_not() -> None:
    old = Outcome(1, "COMPLETED", software={"numpy": "1.0", "Python": "3.11.7"})
    found = explain(old, Outcome(2, "COMPLETED", software={"numpy": "2.0", "Python": "3.11.7"}))
    assert found is not None
    assert (found.cause, found.because) == (Cause.ENVIRONMENT, ("numpy was 1.0, and is 2.0",))
    assert explain(old, Outcome(2, "COMPLETED", software=old.software)) is None


def test_a_data_set_that_a_failed_reproduction_never_read_explains_nothing() -> None:
    found = explain(Outcome(1, "COMPLETED", data={"train": FRAME}), Outcome(2, "FAILED", failure="KeyError: 'x'"))
    assert found is not None
    assert found.cause is Cause.ENVIRONMENT
    assert "KeyError" in found.because[0]


def test_two_reproductions_tell_nondeterminism_from_the_machine() -> None:
    old = Outcome(1, "COMPLETED", result={"a": 1.0}, machine={"CPU": "old"})
    new, same, other = (Outcome(n, "COMPLETED", result={"a": a}, machine={"CPU": "new"}) for n, a in
                        ((2, 2.0), (3, 2.0), (4, 3.0)))  # fmt: skip
    found = tell_apart(old, new, other)
    assert found.cause is Cause.NONDETERMINISM
    assert "result a" in found.because[0]
    found = tell_apart(old, new, same)
    assert found.cause is Cause.ENVIRONMENT
    assert "CPU was old, and is new" in found.because
