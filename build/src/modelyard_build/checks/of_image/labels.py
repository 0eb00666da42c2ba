"""The image's labels say what it was made from, for those who have only the registry."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.images.engine import ServedImage


def check(served: ServedImage, subject: Subject) -> Finding:  # noqa: ARG001 - the signature of every check
    labels = served.image["Config"].get("Labels") or {}
    wrong = {name: labels.get(name) for name, value in served.labels.items() if labels.get(name) != value}
    if not wrong:
        return Finding(
            "image labels", True, f"{len(served.labels)} labels name its model, run, data, lock and approval"
        )
    name, found = next(iter(wrong.items()))
    message = f"{name} is {found!r} instead of {served.labels[name]!r}"
    return Finding("image labels", False, message, "Build it again: it is not the image of this build.")
