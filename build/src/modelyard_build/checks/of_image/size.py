"""The image is no larger than the project allows."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.images.engine import ServedImage


def check(served: ServedImage, subject: Subject) -> Finding:
    size, budget = (served.image["Size"] - served.base.size) / 1e6, subject.build.image_mb
    message = f"{size:.1f} MB beyond {served.base.ref}; {budget:g} are allowed"
    remedy = "Take packages out of requirements.in that serving does not need, or raise [build] image_mb."
    return Finding("image size", size <= budget, message, "" if size <= budget else remedy)
