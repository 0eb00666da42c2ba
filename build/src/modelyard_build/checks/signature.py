"""Who calls the version that is live can call this one, or the project says that it breaks with it."""

from collections.abc import Sequence

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_serving.manifest import Manifest


def check(served: Served, subject: Subject) -> Finding:  # noqa: ARG001 - all checks are called alike
    return compared(subject.manifest, subject.live, subject.endpoint.breaks)


def compared(new: Manifest, live: Sequence[Manifest], breaks: str) -> Finding:
    """A version beside those that are live; `breaks` names the last one that it may break with, or is empty."""
    differing = {other.version: found for other in live if (found := differences(other, new))}
    declared = _version(breaks)
    undeclared = {version: found for version, found in differing.items() if version > declared}
    if undeclared:
        said = "; ".join(f"{new.model}:{version}: {', '.join(found)}" for version, found in undeclared.items())
        remedy = (
            "Its callers would be refused, or misread the answer. Keep the signature, or say in project.toml that it "
            f'breaks with this version and those before:  [endpoint] breaks = "{new.model}:{max(undeclared)}"'
        )
        return Finding("signature", False, f"not compatible with what is live, {said}", remedy)
    if differing:
        said = "; ".join(f"{new.model}:{version}: {', '.join(found)}" for version, found in differing.items())
        return Finding("signature", True, f"breaks with what is live, as project.toml declares, {said}")
    names = " and ".join(f"{other.model}:{other.version}" for other in live)
    return Finding(
        "signature", True, f"compatible with {names}, live now" if names else "nothing is live to break with"
    )


def differences(live: Manifest, new: Manifest) -> tuple[str, ...]:
    """What a caller of `live` would miss in `new`, each in a few words. What is only added to the answer is no loss."""
    was, now = ({column.name: column.dtype for column in manifest.inputs} for manifest in (live, new))
    kept = [value for value in live.classes if value in new.classes]
    return (
        *(f"input {name} is gone" for name in was if name not in now),
        *(f"input {name} is {now[name]} and was {was[name]}" for name in was if now.get(name, was[name]) != was[name]),
        *(f"input {name} is new, and nobody sends it yet" for name in now if name not in was),
        *(f"{method} is gone" for method in live.methods if method not in new.methods),
        *(f"class {value!r} is gone" for value in live.classes if value not in new.classes),
        *(["the classes are in another order"] if kept != [v for v in new.classes if v in live.classes] else []),
    )


def _version(ref: str) -> int:
    """The version that a declared break names; 0 where none is declared."""
    return int(ref.rpartition(":")[2] or 0)
