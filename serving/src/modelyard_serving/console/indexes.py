"""The indexes the console relies on. Making them again does nothing; the console's own user may make none."""

from typing import Any

from pymongo.database import Database

from modelyard_serving.console.feedback import WAITING

# All that results read of a prediction and of feedback: they are summed up from the indexes, not from the documents.
OF_PREDICTIONS = {"units": ("endpoint", "cell", "at"), "speeds": ("endpoint", "speed")}
OF_FEEDBACK = ("endpoint", "cell", "score", "predicted_at", "duplicates", "contradictions")


def prepare(db: "Database[dict[str, Any]]") -> None:
    for name, of in OF_PREDICTIONS.items():
        db.predictions.create_index([(field, 1) for field in of], name=name)
    db.feedback.create_index([(field, 1) for field in OF_FEEDBACK], name="results")
    db.feedback.create_index([("at", 1)], name="waiting", partialFilterExpression={"state": WAITING})
    for collection in (db.predictions, db.bad_records):  # MongoDB removes what has expired
        expires = {"expires_at": {"$type": "date"}}
        collection.create_index("expires_at", name="expiry", expireAfterSeconds=0, partialFilterExpression=expires)
