"""Packages: what is installed is what was locked when the model was trained, in these versions and no others."""

from collections.abc import Mapping

from packaging.utils import canonicalize_name

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_build.supply.packages import installed

OURS = "modelyard-serving"  # beside the lock: the runtime itself


def check(_: Served, subject: Subject) -> Finding:
    return compared("packages", {package.name: package.version for package in installed(subject.environment)}, subject)


def compared(name: str, found: Mapping[str, str], subject: Subject) -> Finding:
    """What differs between the packages that were found and the lock."""
    there = {
        canonicalize_name(package): version for package, version in found.items() if canonicalize_name(package) != OURS
    }
    wanted = {canonicalize_name(package): version for package, version in subject.locked.items()}
    wrong = [
        f"{package} is {there.get(package, 'not there')}, and {wanted.get(package, 'nothing')} was locked"
        for package in sorted(there.keys() | wanted.keys())
        if there.get(package) != wanted.get(package)
    ]
    if not wrong:
        return Finding(name, True, f"{len(there)} packages, each in the version that was locked")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    remedy = "Somebody changed the environment: remove it (.yard/environments), and build again."
    return Finding(name, False, "; ".join(wrong[:3]) + more, remedy)
