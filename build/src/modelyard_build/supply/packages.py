"""Packages: what is really installed in an environment, by the metadata that lies beside each package there."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelyard_build.errors import Refused
from modelyard_build.supply.licences import licence_of


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    name: str  # in the form that package indexes compare: lower case, with -
    version: str
    licence: str  # an SPDX expression, or what it says instead, or nothing
    needs: tuple[str, ...]  # the names of packages it wants, as far as they are installed, too

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def installed(environment: Path) -> tuple[Package, ...]:
    """Every package of a virtual environment, by name. It is read, not asked: no interpreter is started.

    Raises:
        Refused: there is no environment in this folder.
    """
    places = sorted(environment.glob("lib/python3*/site-packages"))
    if not places:
        raise Refused(f"{environment} is no virtual environment: it has no lib/python3*/site-packages. Build it again.")
    site = places[-1]
    found = {canonicalize_name(one.name): one for one in distributions(path=[str(site)])}
    python = site.parent.name.removeprefix("python")
    return tuple(_package(name, found[name], found.keys(), python) for name in sorted(found))


def _package(name: str, one: Distribution, there: Collection[str], python: str) -> Package:
    needs = {_wanted(line, python) for line in one.requires or ()}
    return Package(name, one.version, licence_of(one), tuple(sorted(needs & set(there))))


def _wanted(requirement: str, python: str) -> str:
    """The name in a requirement, if it holds for this Python without any extra; else nothing."""
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return ""
    where = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    return canonicalize_name(wanted.name) if wanted.marker is None or wanted.marker.evaluate(where) else ""
