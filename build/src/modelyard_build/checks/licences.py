"""Licences of what is installed: none that a served image must not have, and none that nobody can name."""

from packaging.utils import canonicalize_name

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_build.supply.licences import DENIED, is_denied, unrecognised
from modelyard_build.supply.packages import Package, installed

_ALLOW = '[build] licenses_allowed_for = {{ {name} = "the reason" }}'


def check(_: Served, subject: Subject) -> Finding:
    packages = installed(subject.environment)
    plan = subject.build
    patterns = DENIED if plan.licenses_denied is None else plan.licenses_denied
    reasons = {str(canonicalize_name(name)): reason for name, reason in plan.licenses_allowed_for.items()}
    left = [package for package in packages if package.name not in reasons]
    denied = [package for package in left if is_denied(package.licence, patterns)]
    strange = [package for package in left if unrecognised(package.licence)]
    if denied:
        message = f"{_named(denied)}: not to be had under a licence other than {', '.join(patterns)}"
        return Finding("licences", False, message, f"Do without, or say in project.toml:  {_remedy(denied)}")
    if strange:
        message = f"nobody could say which licence {_named(strange)} has"
        remedy = f"Look it up, and write it down in project.toml:  {_remedy(strange)}"
        return Finding("licences", False, message, remedy, "warning")
    excused = "".join(f"; {one} ({one.licence}): {reasons[one.name]}" for one in packages if one.name in reasons)
    return Finding("licences", True, f"{len(left)} packages have licences that are fine{excused}")


def _named(packages: list[Package]) -> str:
    return ", ".join(f"{package} ({package.licence or 'it says nothing'})" for package in packages)


def _remedy(packages: list[Package]) -> str:
    return _ALLOW.format(name=packages[0].name)
