"""Licences: what a package says of its own, as an SPDX expression where it can be read as one.

Packages say it in four places, from the strict `License-Expression` to the first line of a licence file. Where they
name a family and no member of it, such as "BSD", the expression says `LicenseRef-BSD`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import Distribution
from typing import Any, cast

from license_expression import ExpressionError, LicenseWithExceptionSymbol, Licensing, get_spdx_licensing

# Copyleft that reaches what is linked with it or served by it, and licences that limit what the software is used for.
DENIED = ("AGPL-*", "GPL-*", "SSPL-*", "BUSL-*", "CC-BY-NC-*", "Elastic-*", "PolyForm-*", "RPL-*")
FAMILIES = ("LicenseRef-BSD", "LicenseRef-Public-Domain")  # no member is named, and any would do
# With these, linking is free: what is compiled by GCC may be anything, though its runtime is under the GPL.
_LINKING = ("GCC-exception-*", "Classpath-exception-*", "Bison-exception-*", "Bootloader-exception", "LLVM-exception")

_NAMES = {
    "2 clause bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "boost 1.0": "BSL-1.0",
    "bsd": "LicenseRef-BSD",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "historical permission notice and disclaimer": "HPND",
    "isc": "ISC",
    "mit": "MIT",
    "modified bsd": "BSD-3-Clause",
    "mpl 1.1": "MPL-1.1",
    "mpl 2.0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "other proprietary": "LicenseRef-Proprietary",
    "proprietary": "LicenseRef-Proprietary",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "public domain": "LicenseRef-Public-Domain",
    "simplified bsd": "BSD-2-Clause",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
    "zope public": "ZPL-2.1",
}
_LONG_NAMES = (
    ("gnu affero general public", "agpl"),
    ("gnu lesser general public", "lgpl"),
    ("gnu library or lesser general public", "lgpl"),
    ("gnu general public", "gpl"),
    ("mozilla public", "mpl"),
    ("python software foundation", "psf"),
)
_FILLING = {"the", "license", "licence", "licensed", "software", "version", "gnu", "v"}
_GPL = re.compile(r"(?P<family>[al]?gpl)(?: (?P<major>\d)(?:\.(?P<minor>\d))?)?(?P<later>\+| or later| or newer)?")
_OLDEST = {"gpl": "1.0", "lgpl": "2.0", "agpl": "3.0"}


def licence_of(package: Distribution) -> str:
    """What an installed package says: an SPDX expression, else its own words, else nothing."""
    metadata = cast("Message", package.metadata)
    words = str(metadata.get("License") or "").strip()
    said = [str(metadata.get("License-Expression") or ""), words.partition("\n")[0]]
    for text in said:
        if found := to_spdx(text):
            return found
    either = " OR " if "dual" in words.lower() else " AND "
    for several in (_classified(metadata), _from_files(package, metadata)):
        if names := sorted(set(several)):
            return either.join(names)
    return next((text[:100] for text in said if text and text != "UNKNOWN"), "")


def to_spdx(text: str) -> str:
    """A licence as people write it, as an SPDX expression; empty where it cannot be read as one."""
    if len(text) > 500:
        return ""
    key = _key(text)
    if found := _NAMES.get(key):
        return found
    if gpl := _GPL.fullmatch(key):
        version = f"{gpl['major']}.{gpl['minor'] or 0}" if gpl["major"] else _OLDEST[gpl["family"]]
        return f"{gpl['family'].upper()}-{version}-{'or-later' if gpl['later'] or not gpl['major'] else 'only'}"
    try:
        parsed = _spdx().parse(text)
        strange = [key for key in _spdx().unknown_license_keys(parsed) if not key.startswith("LicenseRef-")]
    except (ExpressionError, ValueError):
        return ""
    return "" if strange or parsed is None else str(parsed.render())


def unrecognised(expression: str) -> bool:
    """Does it say nothing, or something that SPDX has no name for?"""
    found = to_spdx(expression)
    return not found or any(key not in FAMILIES for key in _spdx().unknown_license_keys(found))


def is_denied(expression: str, patterns: Iterable[str] = DENIED) -> bool:
    """Can it only be had under a licence that one of `patterns` fits, such as GPL-*?

    Either side of an OR may be chosen; both sides of an AND hold. An exception for linking lifts the GPL.
    """
    found = to_spdx(expression)
    return bool(found) and _denied(_spdx().parse(found), tuple(patterns))


def _denied(node: Any, patterns: Sequence[str]) -> bool:
    if isinstance(node, LicenseWithExceptionSymbol):
        lifted = _fits(node.exception_symbol.key, _LINKING)
        return _fits(node.license_symbol.key, patterns) and not lifted
    if isinstance(node, _spdx().Symbol):
        return _fits(node.key, patterns)
    parts = [_denied(part, patterns) for part in node.args]
    return all(parts) if isinstance(node, _spdx().OR) else any(parts)


def _fits(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key.lower(), pattern.lower()) for pattern in patterns)


def _classified(metadata: Message) -> Iterator[str]:
    for line in metadata.get_all("Classifier") or ():
        said, *_, name = str(line).split(" :: ")
        if said == "License" and (found := to_spdx(name)):
            yield found


def _from_files(package: Distribution, metadata: Message) -> Iterator[str]:
    for name in metadata.get_all("License-File") or ():
        text = package.read_text(f"licenses/{name}") or package.read_text(str(name)) or ""
        if found := to_spdx(text.strip().partition("\n")[0]):
            yield found


def _key(name: str) -> str:
    """A name without what people add to it: `Apache License, Version 2.0` is `apache 2.0`."""
    plain = re.sub(r"\([^)]*\)", " ", name.lower())
    for long, short in _LONG_NAMES:
        plain = plain.replace(long, short)
    words = re.findall(r"[a-z]+|\d+(?:\.\d+)*\+?", re.sub(r"(?<=gpl)v(?=\d)", " ", plain))
    return " ".join(word for word in words if word not in _FILLING)


@cache
def _spdx() -> Licensing:
    found = get_spdx_licensing()
    found.parse("MIT")  # makes its tables, which it lets others see half made
    return found
