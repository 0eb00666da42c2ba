"""Every check passes a model that is well, and says what is wrong with one that is not; asked over real HTTP."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from doors_app import Answer, DoorsApp
from modelyard_build.cases import Case, Expect
from modelyard_build.checks import bad_input, budget, golden, model_kind, provenance, servable, signature
from modelyard_build.checks import cases as cases_check
from modelyard_build.checks.bad_requests import COUNT, bad_requests
from modelyard_build.checks.doors import DOORS, PREDICT
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.checks.running import ALONE, CHECKS, run_checks
from modelyard_build.served import Served, tree_memory_mb
from modelyard_serving.manifest import Column, Manifest
from modelyard_serving.runtime.rows import BadRequest, Schema, parse_rows
from modelyard_tracking.project import BuildPlan, EndpointContract

RNG = np.random.default_rng(7)
TABLE = pd.DataFrame(
    {
        "height": RNG.normal(170, 9, 80),
        "weight": RNG.normal(70, 9, 80),
        "visits": RNG.integers(0, 9, 80),
        "smoker": RNG.integers(0, 2, 80).astype(bool),
        "town": RNG.choice(["Köln", "Bonn", ""], 80),
    }
)
TRUTH = np.where(TABLE["height"] + 10 * (TABLE["town"] == "Bonn") > 172, "tall", "short")
DTYPES = {"height": "float64", "weight": "float64", "visits": "int64", "smoker": "bool", "town": "str"}
ROWS: list[dict[str, Any]] = TABLE.head(12).to_dict("records")
# The server is a thread of the tests' process, on a machine that may do much else.
ENDPOINT = EndpointContract(unit="u", reward="r", p99_ms=5000, memory_mb=100_000)

MANIFEST = Manifest(
    model="size", version=4, run_id=1, experiment="size", commit="c", dirty=False, model_sha256="m" * 64,
    data_sha256=(), lock_sha256="l", evidence_sha256="e", approved_by="a", python="3.11",
    inputs=tuple(Column(name, dtype) for name, dtype in DTYPES.items()),
    methods=("predict", "predict_proba"), classes=("short", "tall"),
)  # fmt: skip


def trained() -> Pipeline:
    columns = make_column_transformer(
        (StandardScaler(), ["height", "weight", "visits"]), (OneHotEncoder(), ["town"]), remainder="passthrough"
    )
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, TRUTH)


def answers_of(model: Any) -> Answer:
    return lambda table: {
        "predict": model.predict(table).tolist(),
        "predict_proba": model.predict_proba(table).tolist(),
    }


def well(name: str = "well", kind: str = "typical", rows: Sequence[Any] = ROWS[:2], **expect: Any) -> Case:
    said = expect or {"one_of": {"predictions": ["short", "tall"]}}
    return Case(name=name, kind=kind, rows=list(rows), expect=Expect.model_validate(said))


INSTALLED = {"packages", "licences", "known bad", "slim"}  # they ask nobody
NAMES = {*INSTALLED, "servable", "provenance", "model kind", "signature", "golden", "cases", "bad input", "budget"}
CASES = (
    well(),
    well("must be right", "critical", ROWS[:1], exact={"predictions": trained().predict(TABLE.head(1)).tolist()}),
    well("a giant", "out-of-domain", [{**ROWS[0], "height": 1e6}]),
    well("no town", "must-fail", [{**ROWS[0], "town": 7}], raises={"status": 400, "text": "town"}),
)


@dataclass(frozen=True)
class Bench:
    """A served model, and what the checks know of it."""

    app: DoorsApp
    served: Served
    subject: Subject

    def find(self, check: Callable[[Served, Subject], Finding]) -> Finding:
        return check(self.served, self.subject)

    def knowing(self, **changes: Any) -> "Bench":
        return replace(self, subject=replace(self.subject, **changes))


@pytest.fixture
def bench(serve_app, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Serve `answer` (the trained model's own, unless one is given); golden rows are always the trained model's."""
    clients: list[httpx.Client] = []
    environment = tmp_path / "environment"  # with nothing in it
    (environment / "lib" / "python3.11" / "site-packages").mkdir(parents=True)

    def serve(answer: Answer | None = None, manifest: Manifest = MANIFEST, **how: Any) -> Bench:
        app = DoorsApp(manifest, answer or answers_of(trained()), **how)
        client = httpx.Client(base_url=f"http://127.0.0.1:{serve_app(app.asgi)}", timeout=30)
        clients.append(client)
        golden_answers = answers_of(trained())(pd.DataFrame(ROWS))
        subject = Subject(MANIFEST, ROWS, golden_answers, CASES, 1e-9, ENDPOINT, (), environment, BuildPlan(), {})
        return Bench(app, Served(client, 1.5, partial(tree_memory_mb, os.getpid())), subject)

    yield serve
    for client in clients:
        client.close()


def test_a_model_that_is_well_passes_every_check(bench) -> None:
    made = bench()
    findings = run_checks(made.served, made.subject)
    assert [(finding.check, finding.message) for finding in findings if not finding.passed] == []
    assert {finding.check for finding in findings} == NAMES
    assert findings[-1].seconds > 0


# How they are run


def test_a_check_that_breaks_off_is_a_failed_finding_of_its_name_and_the_others_still_speak(bench) -> None:
    made = bench()
    gone = replace(made.served, http=httpx.Client(base_url="http://127.0.0.1:9"))
    findings = run_checks(gone, made.subject)
    assert len(findings) == len(CHECKS) + len(ALONE)
    assert {finding.check for finding in findings} == NAMES, "a check's module is called as its findings are"
    assert {finding.check for finding in findings if finding.passed} == {"signature", *INSTALLED}
    assert all("ConnectError" in finding.message for finding in findings if not finding.passed)


def test_checks_run_side_by_side_and_those_that_measure_after_them_one_by_one(bench) -> None:
    made, both, running = bench(), threading.Barrier(2), list[str]()

    def waits_for_the_other(_: Served, __: Subject) -> Finding:
        both.wait(10)  # raises where nobody else comes
        running.append("beside")
        time.sleep(0.05)
        running.remove("beside")
        return Finding("beside", True, "")

    def alone(_: Served, __: Subject) -> Finding:
        running.append("alone")
        time.sleep(0.05)
        seen = list(running)
        running.remove("alone")
        return Finding("alone", seen == ["alone"], f"{seen}")

    findings = run_checks(made.served, made.subject, [waits_for_the_other] * 2, [alone] * 2)
    assert [finding.check for finding in findings] == ["beside", "beside", "alone", "alone"]
    assert [finding.message for finding in findings if not finding.passed] == []
    assert {check.__module__.rpartition(".")[2] for check in ALONE} == {"bad_input", "budget"}


# Servable, provenance, kind


def test_a_model_that_is_not_ready_any_more_is_found(bench) -> None:
    made = bench()
    assert made.find(servable.check).measured == "in 1.5 s"
    made.app.ready = False
    assert made.find(servable.check).message.startswith("/readyz answered 503")


def test_a_model_that_says_it_is_another_is_found(bench) -> None:
    made = bench(manifest=replace(MANIFEST, version=5, kind="pickle"))
    assert "another manifest" in made.find(provenance.check).message
    assert made.find(model_kind.check).message == "the bento serves 'pickle', not 'sklearn'"


# Golden rows


def _scaler_constant(model: Pipeline) -> Answer:
    model[0].transformers_[0][1].mean_ *= 1.000001
    return answers_of(model)


def _category_order(model: Pipeline) -> Answer:
    encoder = model[0].transformers_[1][1]
    encoder.categories_ = [encoder.categories_[0][::-1]]
    return answers_of(model)


def _swapped_columns(model: Pipeline) -> Answer:
    swapped = {"height": "weight", "weight": "height"}
    return lambda table: answers_of(model)(table.rename(columns=swapped)[list(table)])


def _class_order(model: Pipeline) -> Answer:
    model[-1].classes_ = model[-1].classes_[::-1]
    return answers_of(model)


@pytest.mark.parametrize("change", [_scaler_constant, _category_order, _swapped_columns, _class_order])
def test_a_model_changed_after_training_is_found_by_its_golden_rows(bench, change) -> None:
    finding = bench(change(trained())).find(golden.check)
    assert not finding.passed
    assert "training's predict" in finding.message
    assert ", /predict answers " in finding.message


def test_a_version_of_a_library_that_computes_a_little_otherwise_is_found(bench) -> None:
    """As when sums are rounded elsewhere: in the eighth digit, and no prediction changes."""
    model = trained()

    def otherwise(table: pd.DataFrame) -> dict[str, list[Any]]:
        return answers_of(model)(table) | {"predict_proba": model.predict_proba(table).astype("float32").tolist()}

    made = bench(otherwise)
    assert "training's predict_proba gave [0." in made.find(golden.check).message
    assert made.knowing(tolerance=1e-6).find(golden.check).passed, "unless the project tolerates it"


def test_a_model_that_answers_one_row_otherwise_than_many_is_found(bench) -> None:
    model = trained()

    def centred(table: pd.DataFrame) -> dict[str, list[Any]]:
        return answers_of(model)(table if len(table) > 1 else table.assign(height=170.0))

    assert not bench(centred).find(golden.check).passed


@pytest.mark.parametrize("value", [float("nan"), None, float("inf")])
def test_a_model_that_answers_nan_is_found_and_it_is_said(bench, value) -> None:
    def broken(table: pd.DataFrame) -> dict[str, list[Any]]:
        answers = answers_of(trained())(table)
        return answers | {"predict_proba": [[value, 1.0] for _ in answers["predict_proba"]]}

    assert "which is no finite number" in bench(broken).find(golden.check).message


@pytest.mark.parametrize("door", [door.address(MANIFEST) for door in DOORS])
def test_a_door_that_answers_otherwise_than_the_others_is_found_and_named(bench, door: str) -> None:
    made = bench()
    made.app.skewed = door
    assert f", {door} answers " in made.find(golden.check).message


def test_a_door_that_is_not_there_is_found(bench) -> None:
    made = bench()
    made.app.closed = "/invocations"
    assert made.find(golden.check).message.startswith("/invocations answered the golden rows from 0 with 404: ")


def test_an_answer_that_is_none_of_its_protocol_is_found(bench) -> None:
    made = bench(lambda table: {"predict_proba": trained().predict_proba(table).tolist()})
    assert "training's predict gave 12 answers, /predict answers 0 answers" in made.find(golden.check).message


# Cases


def test_cases_of_which_a_kind_is_missing_do_not_pass(bench) -> None:
    finding = bench().knowing(cases=CASES[:3]).find(cases_check.check)
    assert finding.message == "cases.json has no case that is must-fail"
    finding = bench().knowing(cases=()).find(cases_check.check)
    assert "no case that is typical and none that is critical and none" in finding.message


def test_a_case_that_is_answered_otherwise_is_named(bench) -> None:
    wrong = well("the one", "critical", ROWS[:1], exact={"predictions": ["huge"]})
    finding = bench().knowing(cases=(*CASES, wrong)).find(cases_check.check)
    assert finding.message.startswith("case 'the one': expected predictions ['huge'], got ['")


def test_a_case_that_must_fail_and_does_not_is_named(bench) -> None:
    lenient = well("a giant is refused", "must-fail", [{**ROWS[0], "height": 1e6}], raises={})
    finding = bench().knowing(cases=(*CASES, lenient)).find(cases_check.check)
    assert finding.message.startswith("case 'a giant is refused': expected to be refused with a 4xx, got 200")


# Signature


def live(version: int, **changes: Any) -> Manifest:
    return replace(MANIFEST, version=version, **changes)


def inputs(**dtypes: str) -> tuple[Column, ...]:
    return tuple(Column(name, dtype) for name, dtype in {**DTYPES, **dtypes}.items() if dtype)


@pytest.mark.parametrize(
    "was",
    [
        {},
        {"inputs": tuple(reversed(MANIFEST.inputs))},
        {"methods": ("predict",)},
        {"classes": ("tall",)},
        {"classes": ()},
    ],
    ids=["the same", "columns are sent by name", "a method more", "a class more", "classes"],
)
def test_what_is_only_added_breaks_with_nobody(bench, was: Mapping[str, Any]) -> None:
    finding = bench().knowing(live=[live(3, **was)]).find(signature.check)
    assert (finding.passed, finding.message) == (True, "compatible with size:3, live now")


@pytest.mark.parametrize(
    ("was", "said"),
    [
        ({"inputs": inputs(extra="str")}, "input extra is gone"),
        ({"inputs": inputs(town="")}, "input town is new, and nobody sends it yet"),
        ({"inputs": inputs(visits="float64")}, "input visits is int64 and was float64"),
        ({"methods": ("predict", "predict_proba", "predict_log_proba")}, "predict_log_proba is gone"),
        ({"classes": ("short", "tall", "huge")}, "class 'huge' is gone"),
        ({"classes": ("tall", "short")}, "the classes are in another order"),
    ],
)
def test_what_the_callers_of_the_live_version_would_miss_is_listed(bench, was: Mapping[str, Any], said: str) -> None:
    made = bench().knowing(live=[live(2), live(3, **was)])
    finding = made.find(signature.check)
    assert finding.message == f"not compatible with what is live, size:3: {said}"
    assert 'breaks = "size:3"' in finding.remedy
    declared = made.knowing(endpoint=ENDPOINT.model_copy(update={"breaks": "size:3"})).find(signature.check)
    assert (declared.passed, declared.message) == (
        True, f"breaks with what is live, as project.toml declares, size:3: {said}",
    )  # fmt: skip


def test_a_declared_break_covers_earlier_versions_and_no_later_one(bench) -> None:
    made = bench().knowing(live=[live(2, methods=("transform",)), live(5, methods=("transform",))])
    assert not made.knowing(endpoint=ENDPOINT.model_copy(update={"breaks": "size:3"})).find(signature.check).passed
    assert made.knowing(endpoint=ENDPOINT.model_copy(update={"breaks": "size:5"})).find(signature.check).passed


def test_the_first_version_breaks_with_nobody(bench) -> None:
    assert bench().find(signature.check).message == "nothing is live to break with"


# Bad input

SIGNATURES = [
    {"x": 1.5, "y": 2.5},
    {"x": "text"},
    {"only": 1},
    {"flag": True, "town": "Köln", "x": 1.5},
    {f"pixel_{number}": 0.5 for number in range(64)},
]
TYPES = {float: "float64", str: "str", int: "int64", bool: "bool"}


@pytest.mark.parametrize("row", SIGNATURES, ids=["numbers", "a text", "an int", "mixed", "many"])
def test_every_generated_body_is_bad_and_the_row_it_was_made_from_is_good(row) -> None:
    columns = tuple(Column(name, TYPES[type(value)]) for name, value in row.items())
    manifest = replace(MANIFEST, inputs=columns)
    Schema(columns).read(parse_rows(bad_body(manifest, row), columns))
    made = bad_requests(manifest, row)
    assert len(made) == COUNT
    assert {request.path for request in made} >= {door.address(manifest) for door in DOORS}
    for request in made:
        if request.path == "/predict":
            with pytest.raises(BadRequest):
                Schema(columns).read(parse_rows(request.content, columns))


def bad_body(manifest: Manifest, row: Mapping[str, Any]) -> bytes:
    """What the bad ones are made from."""
    return httpx.Request("POST", "http://x", json=PREDICT.document([row], manifest.inputs)).content


def test_the_same_model_gets_the_same_bad_requests_and_another_model_others() -> None:
    made = bad_requests(MANIFEST, ROWS[0])
    assert made == bad_requests(MANIFEST, ROWS[0])
    other = bad_requests(replace(MANIFEST, model_sha256="n" * 64), ROWS[0])
    assert len(set(other) - set(made)) > COUNT / 4
    assert len(set(made)) > COUNT * 0.9, "they are not the same few again and again"


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool", "str"])
def test_bad_input_of_every_type_is_refused_by_every_door(bench, dtype: str) -> None:
    value = {"bool": True, "str": "Köln"}.get(dtype, 1)
    manifest = replace(MANIFEST, inputs=(Column("x", dtype), Column("y", dtype)))
    made = bench(lambda _: {"predict": ["tall"]}, manifest)
    made = made.knowing(manifest=manifest, golden_rows=[{"x": value, "y": value}])
    finding = made.find(bad_input.check)
    assert finding.message == "500 malformed requests were refused with a 4xx and a reason, and none reached the model"
    assert made.app.calls == 0


def test_bad_input_that_reaches_the_model_is_found_though_it_is_refused_in_the_end(bench) -> None:
    finding = bench(lax=True).find(bad_input.check)
    assert not finding.passed
    assert "500 malformed requests were refused, but the model was called" in finding.message


def test_a_door_that_answers_bad_input_is_found_with_the_input(bench) -> None:
    made = bench()
    made.app._ask = lambda rows: {"predict": ["tall"] * len(rows)}  # whatever the rows hold
    message = made.find(bad_input.check).message
    assert message.startswith("bad request 14 of 500, the document [[]], to /predict was answered 200, not 4xx")


def test_a_model_whose_calls_nobody_counts_is_found(bench) -> None:
    message = bench(counts=False).find(bad_input.check).message
    assert message.startswith("/metrics does not count modelyard_model_calls_total")


# Time and memory


def tall(table: pd.DataFrame) -> dict[str, list[Any]]:
    """A model that takes no time."""
    return {"predict": ["tall"] * len(table)}


def test_the_budget_says_what_was_measured(bench) -> None:
    finding = bench(tall).find(budget.check)
    assert finding.passed
    assert finding.message == "one row within 5000 ms at p99, and within 100000 MB"
    assert re.fullmatch(r"p50 \d+\.\d ms, p99 \d+\.\d ms, \d+ MB", finding.measured)


def test_a_model_that_is_slow_is_found(bench) -> None:
    made = bench(tall).knowing(endpoint=ENDPOINT.model_copy(update={"p99_ms": 4.0}))
    made.app.takes_s = 0.005
    finding = made.find(budget.check)
    assert re.fullmatch(r"p99 is \d+\.\d ms, and p99_ms allows 4", finding.message)


def test_a_model_that_was_slow_for_a_while_because_of_something_else_passes(bench) -> None:
    made = bench(tall).knowing(endpoint=ENDPOINT.model_copy(update={"p99_ms": 100.0}))

    def slow_at_first(table: pd.DataFrame) -> dict[str, list[Any]]:
        if 30 <= made.app.calls < 40:
            time.sleep(0.15)
        return tall(table)

    made.app.answer = slow_at_first
    assert made.find(budget.check).passed
    assert made.app.calls > budget.WARM_UP + budget.REQUESTS


def test_a_model_that_holds_too_much_memory_is_found(bench) -> None:
    made = bench(tall).knowing(endpoint=ENDPOINT.model_copy(update={"memory_mb": 1.0}))
    assert made.find(budget.check).message.endswith("MB, and memory_mb allows 1")


def test_a_model_that_stops_answering_is_found_while_it_is_measured(bench) -> None:
    made = bench()
    made.app._ask = made.app.answer  # which is no longer given a table
    assert "a golden row was answered with 500" in made.find(budget.check).message


def test_checks_know_more_than_one_kind_of_answer(bench) -> None:
    model = LinearRegression().fit(TABLE[["height"]], TABLE["weight"])
    manifest = replace(MANIFEST, inputs=(Column("height", "float64"),), methods=("predict",), classes=())
    made = bench(lambda table: {"predict": model.predict(table).tolist()}, manifest)
    rows = [{"height": row["height"]} for row in ROWS]
    expected = {"predict": model.predict(pd.DataFrame(rows)).tolist()}
    assert made.knowing(manifest=manifest, golden_rows=rows, golden_answers=expected).find(golden.check).passed
    moved = {"predict": [*expected["predict"][:-1], expected["predict"][-1] + 1e-3]}
    wrong = made.knowing(manifest=manifest, golden_rows=rows, golden_answers=moved).find(golden.check)
    assert wrong.message.startswith("golden row 11: training's predict gave ")
