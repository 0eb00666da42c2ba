"""Feedback: what a caller says of a prediction, minutes or weeks later, joined with its audit record.

Either may come first. What is said is kept once by prediction id in `feedback`; with the record it gets the unit,
variant and epoch of the prediction and its score, so that results are summed up without reading a prediction again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from modelyard_serving.console.evidence import feedback_cell
from modelyard_serving.endpoints import FEEDBACK_DAYS

Document = dict[str, Any]

MAX_AT_ONCE = 1000
DUPLICATE_KEY = 11000  # MongoDB's error code

WAITING = "waiting"  # its audit record has not come yet
COUNTED = "counted"
LATE = "late"
FOREIGN = "foreign"  # somebody else's prediction, and no scope for it
UNUSABLE = "unusable"  # of a prediction that was not answered, or a truth of another length than the answer

_ABOUT = ("endpoint", "assigned_by", "epoch", "variant", "version", "unit")
_OF_PREDICTION = dict.fromkeys((*_ABOUT, "at", "caller", "status", "outputs.predictions"), 1)


def _storable(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number is larger than 64 bits")
    return value


Scalar = Annotated[str | bool | int | Annotated[float, Field(allow_inf_nan=False)], BeforeValidator(_storable)]


class Feedback(BaseModel):
    """A reward, or the truth; the names are Seldon's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prediction_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    reward: Annotated[float, Field(allow_inf_nan=False)] | None = None
    truth: Scalar | Annotated[list[Scalar], Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Feedback":
        if (self.reward is None) == (self.truth is None):
            raise ValueError("send either reward or truth")
        return self


class Several(BaseModel):
    """Up to `MAX_AT_ONCE` at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    feedback: Annotated[list[Feedback], Field(min_length=1, max_length=MAX_AT_ONCE)]


_ONE, _SEVERAL = TypeAdapter(Feedback), TypeAdapter(Several)


@dataclass(slots=True)
class Kept:
    """What became of feedback, by prediction id."""

    accepted: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)  # said before, in the same words; it counts once
    contradicting: list[str] = field(default_factory=list)  # said otherwise before; the first stays
    foreign: list[str] = field(default_factory=list)  # somebody else's prediction


def parse(body: bytes) -> tuple[list[Feedback], bool]:
    """The feedback in a body, and whether it came as a list.

    Raises:
        pydantic.ValidationError: it is no feedback.
    """
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        sent = None
    if isinstance(sent, dict) and "feedback" in sent:
        return _SEVERAL.validate_json(body).feedback, True
    return [_ONE.validate_json(body)], False


def keep(
    db: "Database[dict[str, Any]]", said: Sequence[Feedback], caller: str, scopes: Sequence[str], at: datetime
) -> Kept:
    """Keep what is said, each once.

    Args:
        scopes: those of the caller's key. Who has `feedback:tumor` may judge every prediction of that endpoint, whoever
            asked for it; without it, only the caller's own.
    """
    kept = Kept()
    predictions = _predictions(db, [item.prediction_id for item in said])
    windows = _windows(db, predictions.values())
    documents: dict[str, Document] = {}
    again: list[Document] = []
    for item in said:
        document = _document(item, caller, scopes, at)
        prediction = predictions.get(item.prediction_id)
        if prediction is not None:
            document |= joined(document, prediction, windows)
        if document["state"] == FOREIGN:
            kept.foreign.append(item.prediction_id)
        elif item.prediction_id in documents:
            again.append(document)
        else:
            documents[item.prediction_id] = document
    known = _insert(db, list(documents.values()))
    again += [documents[prediction_id] for prediction_id in known]
    kept.accepted = [prediction_id for prediction_id in documents if prediction_id not in known]
    _repeated(db, again, kept)
    # The record may have come between the look for it and the insert; or MongoDB went away there, the last time.
    waiting = [i for i in kept.accepted if i in documents and documents[i]["state"] == WAITING]
    join_waiting(db, [*waiting, *kept.duplicates])
    return kept


def join_waiting(db: "Database[dict[str, Any]]", ids: Sequence[str]) -> None:
    """Join feedback that came before its audit record."""
    waiting = list(db.feedback.find({"_id": {"$in": list(ids)}, "state": WAITING})) if ids else []
    if not waiting:
        return
    predictions = _predictions(db, [document["_id"] for document in waiting])
    windows = _windows(db, predictions.values())
    writes = [
        UpdateOne({"_id": document["_id"], "state": WAITING}, {"$set": joined(document, prediction, windows)})
        for document in waiting
        if (prediction := predictions.get(document["_id"])) is not None
    ]
    if writes:
        db.feedback.bulk_write(writes, ordered=False)


def joined(feedback: Mapping[str, Any], prediction: Mapping[str, Any], windows: Mapping[str, int]) -> Document:
    """What a prediction adds to its feedback: where it belongs, and what it is worth. Pure."""
    endpoint = prediction.get("endpoint")
    score = score_of(feedback, prediction)
    window = timedelta(days=windows.get(endpoint or "", FEEDBACK_DAYS))
    if feedback["caller"] != prediction.get("caller") and not _covers(feedback["scopes"], endpoint):
        state = FOREIGN
    elif score is None:
        state = UNUSABLE
    else:
        state = LATE if feedback["at"] - prediction["at"] > window else COUNTED
    found = {name: prediction.get(name) for name in _ABOUT}
    found |= {"predicted_at": prediction["at"], "state": state, "score": score if state == COUNTED else None}
    return {**found, "cell": feedback_cell(found)}


def score_of(feedback: Mapping[str, Any], prediction: Mapping[str, Any]) -> float | None:
    """The reward as given, or the fraction of the answers that equal the truth; None where neither can be said."""
    if prediction["status"] >= 400:
        return None
    if feedback["reward"] is not None:
        return float(feedback["reward"])
    answers = (prediction.get("outputs") or {}).get("predictions")
    truth = feedback["truth"] if isinstance(feedback["truth"], list) else [feedback["truth"]]
    if not answers or len(truth) != len(answers):
        return None
    return sum(bool(answer == true) for answer, true in zip(answers, truth, strict=True)) / len(answers)


def _document(item: Feedback, caller: str, scopes: Sequence[str], at: datetime) -> Document:
    said = {"caller": caller, "reward": item.reward, "truth": item.truth, "at": at}
    held = [scope for scope in scopes if scope.partition(":")[0] in ("feedback", "*")]
    return {"_id": item.prediction_id, **said, "scopes": held, "state": WAITING, "duplicates": 0, "contradictions": 0}


def _covers(scopes: Sequence[str], endpoint: str | None) -> bool:
    return any(scope.partition(":")[2] in ("*", endpoint) for scope in scopes)


def _predictions(db: "Database[dict[str, Any]]", ids: Sequence[str]) -> dict[str, Document]:
    # A shadow's record has an id of its own, which no caller is told.
    return {found["_id"]: found for found in db.predictions.find({"_id": {"$in": list(ids)}}, _OF_PREDICTION)}


def _windows(db: "Database[dict[str, Any]]", predictions: Iterable[Document]) -> dict[str, int]:
    names = list({prediction.get("endpoint") for prediction in predictions} - {None})
    found = db.endpoints.find({"_id": {"$in": names}}, {"feedback_days": 1}) if names else ()
    return {endpoint["_id"]: endpoint.get("feedback_days") or FEEDBACK_DAYS for endpoint in found}


def _insert(db: "Database[dict[str, Any]]", documents: list[Document]) -> set[str]:
    """Insert; gives the ids that were there before."""
    if not documents:
        return set()
    try:
        db.feedback.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        faults = error.details["writeErrors"]
        if error.details.get("writeConcernErrors") or any(fault["code"] != DUPLICATE_KEY for fault in faults):
            raise
        return {documents[fault["index"]]["_id"] for fault in faults}
    return set()


def _repeated(db: "Database[dict[str, Any]]", again: Sequence[Document], kept: Kept) -> None:
    """What was said before is counted, not kept; but feedback of somebody who had no say gives way."""
    before = {d["_id"]: d for d in db.feedback.find({"_id": {"$in": [d["_id"] for d in again]}})} if again else {}
    writes: list[UpdateOne] = []
    for document in again:
        first = before[document["_id"]]
        if first["state"] == FOREIGN:
            writes.append(UpdateOne({"_id": first["_id"], "state": FOREIGN}, {"$set": _without_id(document)}))
            kept.accepted.append(first["_id"])
            continue
        same = (first["reward"], first["truth"]) == (document["reward"], document["truth"])
        (kept.duplicates if same else kept.contradicting).append(first["_id"])
        count = "duplicates" if same else "contradictions"
        writes.append(UpdateOne({"_id": first["_id"]}, {"$inc": {count: 1}}))
    if writes:
        db.feedback.bulk_write(writes, ordered=False)


def _without_id(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "_id"}
