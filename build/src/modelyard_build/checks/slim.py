"""Slim: an image holds what serving needs, and nothing that is only for training, notebooks or the yard itself."""

from fnmatch import fnmatchcase

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_build.supply.packages import installed

NOT_SERVED = (
    "hyperopt",
    "ipykernel",
    "jupyter*",
    "mlflow*",
    "modelyard",
    "modelyard-build",
    "modelyard-tracking",
    "notebook",
    "pip",
    "ray",
    "sacred",
)


def check(_: Served, subject: Subject) -> Finding:
    packages = installed(subject.environment)
    heavy = [package for package in packages if any(fnmatchcase(package.name, pattern) for pattern in NOT_SERVED)]
    if not heavy:
        return Finding("slim", True, f"{len(packages)} packages, none of them only for training or notebooks")
    named = []
    for package in heavy:
        wanting = [other.name for other in packages if package.name in other.needs]
        named.append(f"{package} (wanted by {', '.join(wanting)})" if wanting else str(package))
    message = f"in the environment, and not for serving: {', '.join(named)}"
    return Finding("slim", False, message, "Take it out of requirements.in, then:  yard lock PROJECT, and train again.")
