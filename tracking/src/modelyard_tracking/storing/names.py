"""Names: where in a store a thing of a kind lies, by its digest; the same on this disk and in a shared store."""

from typing import Literal

from modelyard_tracking.errors import Refused

Kind = Literal["model", "frame", "file", "lock"]

PLACES: dict[Kind, str] = {  # a model is a folder, the others are files
    "model": "models/{}",
    "frame": "data/{}.parquet",
    "file": "data/{}.file",
    "lock": "locks/{}.lock",
}


def name_of(kind: Kind, digest: str) -> str:
    """The name of a thing in a store.

    Raises:
        Refused: what should be a digest could lead to another place.
    """
    if digest and not (digest.isascii() and digest.isalnum()):
        raise Refused(f"{digest[:80]!r} is no digest, so nothing is looked for under it.")
    return PLACES[kind].format(digest)


def kind_and_digest(name: str) -> tuple[Kind, str] | None:
    """What a name says, or the name of a file in a model says of the model; None: it is nobody's place."""
    for kind, place in PLACES.items():
        before, _, after = place.partition("{}")
        if name.startswith(before) and name.endswith(after):
            digest = name.removeprefix(before).removesuffix(after)
            digest = digest.partition("/")[0] if kind == "model" else digest
            if is_digest(digest):
                return kind, digest
    return None


def is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")
