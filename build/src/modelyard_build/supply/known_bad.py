"""Known bad: versions of packages that nobody should run, with the reason, from one table."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

TABLE = Path(__file__).with_name("known_bad.toml")


@dataclass(frozen=True, slots=True)
class KnownBad:
    """Versions of one package, and what is wrong with them."""

    package: str
    versions: SpecifierSet
    why: str
    reference: str


@cache
def known_bad() -> tuple[KnownBad, ...]:
    """The whole table."""
    rows = tomllib.loads(TABLE.read_text())["bad"]
    return tuple(KnownBad(**row | {"versions": SpecifierSet(row["versions"])}) for row in rows)


def why_bad(package: str, version: str) -> tuple[KnownBad, ...]:
    """What is known against this version; a version that cannot be read counts as one that is not known."""
    try:
        this = Version(version)
    except InvalidVersion:
        return ()
    return tuple(
        known for known in known_bad() if known.package == package and known.versions.contains(this, prereleases=True)
    )
