"""Model card: a version for readers outside, Markdown under YAML front matter, as Hugging Face has them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from modelyard_tracking.approval import Approval
from modelyard_tracking.registry import ModelVersion


def model_card(version: ModelVersion, approval: Approval) -> str:
    """The card as text. Everything in it stands in the evidence, or is who approved it."""
    facts = approval.evidence
    front = yaml.safe_dump(_front(version, approval), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{front}---\n\n" + "\n".join(_body(version, approval, facts)).rstrip() + "\n"


def _front(version: ModelVersion, approval: Approval) -> dict[str, Any]:
    facts, card = approval.evidence, approval.evidence["card"]
    results = [_result(facts, name, said) for name, said in (facts.get("evaluations") or {}).items()]
    measured = {metric["type"] for result in results for metric in result["metrics"]}
    front = {
        "license": (card.get("license") or "").lower(),
        "library_name": facts.get("kind", "sklearn"),
        "pipeline_tag": _task(card),
        "tags": ["modelyard"],
        "metrics": sorted(measured or facts["metrics"]),
        "model-index": [{"name": version.ref, "results": results}] if results else None,
        "modelyard": {
            "version": version.ref,
            "state": approval.state,
            "owner": card["owner"],
            "approved_by": approval.approved_by,
            "model_sha256": facts["model_sha256"],
            "evidence_sha256": approval.evidence_sha256,
            "lock_sha256": facts["lock_sha256"],
            "data_sha256": dict(facts["data"]),
            "commit": facts["commit"],
            "dirty": facts["dirty"],
            "run": facts["run_id"],
        },
    }
    return {key: value for key, value in front.items() if value}


def _result(facts: Mapping[str, Any], name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": {"type": _task(facts["card"])},
        "dataset": {"name": f"{facts['model']} {said['data']}", "type": "tabular", "revision": said["data_sha256"]},
        "metrics": [
            {"type": measure, "value": value, "name": f"{name} {measure}"}
            for measure, value in said["measures"].items()
            if math.isfinite(value)
        ],
    }


def _task(card: Mapping[str, Any]) -> str:
    names = [entry["name"] for entry in card.get("outputs") or ()]
    return "tabular-regression" if names == ["prediction"] else "tabular-classification"


def _body(version: ModelVersion, approval: Approval, facts: Mapping[str, Any]) -> Iterator[str]:
    card = facts["card"]
    yield f"# {version.ref}\n"
    for title, part in (("Purpose", "purpose"), ("Limitations", "limitations"), ("Owner", "owner")):
        yield f"## {title}\n\n{card[part]}\n"
    if card.get("outputs"):
        yield "## Outputs\n"
        yield from _table(("answer", "meaning"), [(e["name"], e["meaning"]) for e in card["outputs"]])
    if card.get("inputs"):
        yield "## Inputs\n"
        rows = [(e["name"], e["meaning"], e["unit"], _range(e["range"]), _range(e["observed"])) for e in card["inputs"]]
        yield from _table(("column", "meaning", "unit", "allowed", "in the training data"), rows)
    yield "## Gates\n"
    yield from _table(
        ("gate", "value", "must be", ""),
        [(g["metric"], _number(g["value"]), g["bound"], "passed" if g["passed"] else "failed") for g in facts["gates"]],
    )
    for name, said in (facts.get("evaluations") or {}).items():
        yield f"## Evaluation {name}\n\n{said['rows']} rows of the data `{said['data']}`.\n"
        yield from _table(("measure", "value"), [(m, _number(v)) for m, v in said["measures"].items()])
    yield from _comparison(facts.get("comparison"))
    yield from _slices(facts.get("slices"))
    yield "## Approval\n"
    yield f"Asked by {approval.requested_by}, {approval.requested_at:%Y-%m-%d}. "
    if approval.decided_by and approval.decided_at:
        said = f"{approval.state.capitalize()} by {approval.decided_by}, {approval.decided_at:%Y-%m-%d}"
        yield f"{said}: {approval.reason}\n"
    else:
        yield f"It is {approval.state}.\n"


def _comparison(said: Mapping[str, Any] | None) -> Iterator[str]:
    if not said:
        return
    yield "## Comparison with the champion\n"
    d = said["difference"]
    if d is None:
        yield f"None: {said['why_not']}.\n"
        return
    yield (
        f"{said['metric']} {d['candidate']:.4f} against {d['other']:.4f} of {said['champion']} on the same "
        f"{d['rows']} rows: "
        f"better by {d['difference']:+.4f}, {d['confidence']:.0%} interval {d['low']:+.4f} to {d['high']:+.4f} "
        f"(must lie above {said['min_difference']:+g}; paired bootstrap, {d['resamples']} draws).\n"
    )


def _slices(said: Mapping[str, Any] | None) -> Iterator[str]:
    if not said:
        return
    yield "## Slices\n"
    rows = [
        (f"{part['column']} = {part['value']}", str(part["rows"]), part["why_not"] or _number(part["score"]))
        for part in said["judged"]
    ]
    yield from _table(("slice", "rows", said["metric"]), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _range(ends: Sequence[float] | None) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}" if ends else ""


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
