"""Redaction: secrets of a configuration are taken out before anything is stored, and named, so that it is no riddle.

A name tells: every text under a name with `pass`, `pwd`, `token`, `secret`, `credential`, `api_key` or `private_key`
in it. A number is kept (`max_tokens`, `passes`) unless the name is exactly such a word (`password`). Passwords inside
addresses (`mongodb://user:password@host`) are taken out wherever they stand. A value that was redacted once is redacted
in every other text of the run document, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REDACTED = "<redacted>"

_PART = re.compile(r"pass|pwd|token|secret|credential|api_?key|private_?key|access_?key", re.IGNORECASE)
_WHOLE = re.compile(r"(?:.*[_.-])?(?:pass|password|passwd|passphrase|pwd|token|secret|credentials?|pin)", re.IGNORECASE)
_INNOCENT = re.compile(r"tokeni[sz]|passenger|passage|compass|bypass|passes|passive", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)@")
_SHORTEST = 6  # characters; a shorter secret is not looked for in other texts, which it would riddle with holes


def masked(address: str) -> str:
    """An address as it may be shown: its password is replaced by dots. Anything else stays as it is."""
    return re.sub(r"://([^:/@]*):.*@", r"://\1:...@", address)


@dataclass
class Redactor:
    """Takes secrets out of values; remembers which entries it emptied, and what stood there."""

    names: set[str] = field(default_factory=set)  # dotted names of configuration entries
    _values: set[str] = field(default_factory=set)

    def config(self, config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """The configuration without its secrets."""
        return {name: self._entry(f"{prefix}{name}", name, value) for name, value in config.items()}

    def everywhere(self, value: Any) -> Any:
        """`value` without passwords in addresses, what was redacted before, and entries named like a secret."""
        if isinstance(value, Mapping):
            return {
                name: REDACTED if _is_secret(str(name), item) else self.everywhere(item) for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.everywhere(item) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def updates(self, arguments: Any) -> Any:
        """Command line updates such as `["with", "password=x"]` without their secrets."""
        if not isinstance(arguments, list | tuple):
            return self.everywhere(arguments)
        cleaned = []
        for argument in arguments:
            name, equals, value = str(argument).partition("=")
            cleaned.append(f"{name}={REDACTED}" if equals and _is_secret(name, value) else self._text(str(argument)))
        return cleaned

    def _entry(self, path: str, name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self.config(value, f"{path}.")
        if _is_secret(str(name), value):
            self.names.add(path)
            if isinstance(value, str) and len(value) >= _SHORTEST:
                self._values.add(value)
            return REDACTED
        if isinstance(value, list | tuple):
            return [self._entry(f"{path}.{number}", "", item) for number, item in enumerate(value)]
        if isinstance(value, str) and self._text(value) != value:
            self.names.add(path)
            self._values |= {found[2] for found in _IN_URL.finditer(value) if len(found[2]) >= _SHORTEST}
            return self._text(value)
        return value

    def _text(self, text: str) -> str:
        text = _IN_URL.sub(rf"\1:{REDACTED}@", text)
        for secret in self._values:
            text = text.replace(secret, REDACTED)
        return text


def _is_secret(name: str, value: Any) -> bool:
    if value is None or isinstance(value, bool) or value in ("", REDACTED):
        return False
    if _WHOLE.fullmatch(name):
        return True
    return isinstance(value, str | bytes | list | tuple) and bool(_PART.search(_INNOCENT.sub("", name)))
