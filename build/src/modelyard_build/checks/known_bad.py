"""Known bad versions: nothing is installed that `known_bad.toml` warns of.

The table is our own and short. It knows what was bad when it was written, and is no substitute for a scanner that asks
a database of advisories.
"""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_build.supply.known_bad import why_bad
from modelyard_build.supply.packages import installed


def check(_: Served, subject: Subject) -> Finding:
    packages = installed(subject.environment)
    bad = [
        f"{package} ({known.why}; {known.reference}; any version but {known.versions} will do)"
        for package in packages
        for known in why_bad(package.name, package.version)
    ]
    if bad:
        remedy = "Ask for another version in requirements.in, then:  yard lock PROJECT, and train again."
        return Finding("known bad", False, ", ".join(bad), remedy)
    return Finding("known bad", True, f"none of {len(packages)} packages is in a version known to be bad")
