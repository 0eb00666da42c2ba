"""Aliases: movable names for versions, such as tumor@champion. The ledger says where they point.

MLflow's registry lets whoever writes last have an alias. Here it only shows what the ledger says, so that MLflow's
pages and clients see it: an alias moves by compare-and-set, and one that is moved in the registry itself moves nothing.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.ledger import Ledger, Stands
from modelyard_tracking.registry import ModelVersion, Registry


@dataclass(frozen=True, slots=True)
class Aliases:
    """Reads and moves aliases."""

    ledger: Ledger
    registry: Registry

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `tumor:2` or `tumor@champion` names.

        Raises:
            NotFound: there is no such version or alias.
            Refused: the text is neither.
        """
        return self.registry.resolve(self.ref(ref))

    def ref(self, name: str) -> str:
        """`tumor:2` for `tumor@champion`, by the ledger alone; anything else as it is.

        Raises:
            NotFound: there is no such alias.
        """
        model, at, alias = name.partition("@")
        if not at:
            return name
        version = self.current(model, alias)
        if version is None:
            there = ", ".join(sorted(self.of(model))) or "none"
            raise NotFound(f"{model} has no alias {alias!r}; it has {there}. See what there is:  yard models")
        return f"{model}:{version}"

    def current(self, model: str, alias: str) -> int | None:
        """The version that an alias points at."""
        last = self.ledger.last("promote", subject=f"{model}@{alias}")
        return None if last is None else last.facts["version"]

    def of(self, model: str | None = None) -> dict[str, int]:
        """All aliases, of one model by their names, of all models as `tumor@champion`."""
        found: dict[str, int] = {}
        for entry in self.ledger.entries(["promote"]):
            name, _, alias = entry.subject.partition("@")
            if model is None or name == model:
                found[entry.subject if model is None else alias] = entry.facts["version"]
        return found

    def move(self, version: ModelVersion, alias: str, by: str, reason: str, expected: int | None) -> None:
        """Point an alias at a version; nothing is done if it does already.

        Args:
            expected: the version that it points at now, as far as the caller knows; None for no version.

        Raises:
            Refused: it points at another one by now, or the alias is no name.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", alias):
            raise Refused(f"{alias!r} is no name for an alias: use lower-case letters, digits, _ and -.")
        subject = f"{version.model}@{alias}"

        def decide() -> dict[str, Any]:
            current = self.current(version.model, alias)
            if current == version.version:
                raise Stands
            if current != expected:
                raise Refused(
                    f"{subject} is {_ref(version.model, current)} by now, not {_ref(version.model, expected)}: "
                    f"somebody else moved it.\nLook at that:  yard ledger --of {subject}      "
                    f"Then move it from there:  yard promote {version.ref} {alias}"
                )
            return {"version": version.version, "before": current, "model_sha256": version.model_sha256}

        with suppress(Stands):
            self.ledger.append("promote", subject, by, decide, reason)
        self.show(version.model)

    def show(self, model: str) -> None:
        """Have the registry show what the ledger says; also what somebody else writes meanwhile."""
        for _ in range(5):
            said = self.of(model)
            shown = self.registry.aliases(model)
            if said == shown:
                return
            for alias, number in said.items():
                if shown.get(alias) != number:
                    self.registry.set_alias(model, alias, number)
            for alias in shown.keys() - said.keys():
                self.registry.remove_alias(model, alias)

    def drift(self) -> Iterator[str]:
        """Where the registry shows something else than the ledger says; a sentence each."""
        said = self.of()
        models = self.registry.shown().items()
        shown = {f"{model}@{alias}": number for model, named in models for alias, number in named.items()}
        for name in sorted(said.keys() | shown.keys()):
            if said.get(name) != shown.get(name):
                model = name.partition("@")[0]
                yield (
                    f"{name} is {_ref(model, shown.get(name))} in MLflow's registry, "
                    f"and {_ref(model, said.get(name))} by the ledger"
                )


def _ref(model: str, version: int | None) -> str:
    return "no version" if version is None else f"{model}:{version}"
