"""The base image is pinned by its digest: a tag may mean another one tomorrow."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.images.engine import ServedImage


def check(served: ServedImage, subject: Subject) -> Finding:  # noqa: ARG001 - the signature of every check
    base = served.base
    if "@sha256:" in base.ref or base.ref.startswith("sha256:"):
        return Finding("base image", True, f"pinned: {base.ref}")
    remedy = f'Pin it:  base_image = "{base.digest or base.id}"  in yard.toml'
    return Finding(
        "base image", False, f"{base.ref} is a tag, which may mean another image tomorrow", remedy, "warning"
    )
