"""Model versions in MLflow's registry. Files stay where they are; the registry holds name, number and digests."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard_tracking.errors import NotFound, Refused

TAG = "modelyard."


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version as the registry knows it."""

    model: str
    version: int
    run_id: int
    model_sha256: str
    state: str  # requested, approved, rejected, withdrawn
    aliases: tuple[str, ...]
    source: str
    created_at: datetime
    tags: Mapping[str, str]

    @property
    def ref(self) -> str:
        return f"{self.model}:{self.version}"


class Registry:
    """A thin layer over MlflowClient that speaks of what we keep."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)
            return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def add(self, model: str, source: Path, tags: Mapping[str, str]) -> int:
        """Register files as the next version of `model`; gives its number."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self._client.create_model_version(
            model, source=str(source), tags={f"{TAG}{key}": value for key, value in tags.items()}
        )
        return int(made.version)

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(model, str(version), f"{TAG}{key}", value)

    def set_alias(self, model: str, alias: str, version: int) -> None:
        self._client.set_registered_model_alias(model, alias, str(version))

    def remove_alias(self, model: str, alias: str) -> None:
        self._client.delete_registered_model_alias(model, alias)

    def get(self, model: str, version: int) -> ModelVersion:
        for found in self.versions(model):
            if found.version == version:
                return found
        raise NotFound(f"There is no {model}:{version}. See which there are:  yard models")

    def resolve(self, ref: str) -> ModelVersion:
        """`tumor:2`; an alias is resolved by `aliases.Aliases`.

        Raises:
            NotFound: no such version.
            Refused: the text is no such name.
        """
        model, _, number = ref.partition(":")
        if not number.isdigit():
            raise Refused(f"{ref!r} names no model version. Write MODEL:NUMBER or MODEL@ALIAS, such as tumor:2.")
        return self.get(model, int(number))

    def models(self) -> list[str]:
        return sorted(registered.name for registered in _all(self._client.search_registered_models))

    def aliases(self, model: str) -> dict[str, int]:
        """What the registry shows, which is not what counts: see `aliases.Aliases`."""
        for registered in _all(self._client.search_registered_models):
            if registered.name == model:
                return {alias: int(number) for alias, number in registered.aliases.items()}
        return {}

    def versions(self, model: str | None = None) -> list[ModelVersion]:
        """Every version we registered, by model and number."""
        aliases: dict[tuple[str, int], list[str]] = {}
        for registered in _all(self._client.search_registered_models):
            for alias, number in registered.aliases.items():
                aliases.setdefault((registered.name, int(number)), []).append(alias)
        query = "" if model is None else "name = '{}'".format(model.replace("'", ""))
        found = [_version(entry, aliases) for entry in _all(self._client.search_model_versions, query)]
        return sorted((v for v in found if v.model_sha256), key=lambda v: (v.model, v.version))


def _all(search: Callable[..., Any], *query: str) -> Iterator[Any]:
    """Every page of what MLflow finds."""
    token: str | None = None
    while token is None or token:
        page = search(*query, page_token=token)
        yield from page
        token = page.token or ""


def _version(entry: Any, aliases: Mapping[tuple[str, int], list[str]]) -> ModelVersion:
    tags = {key.removeprefix(TAG): value for key, value in entry.tags.items() if key.startswith(TAG)}
    number = int(entry.version)
    return ModelVersion(
        model=entry.name,
        version=number,
        run_id=int(tags.get("run_id", -1)),
        model_sha256=tags.get("model_sha256", ""),
        state=tags.get("state", ""),
        aliases=tuple(sorted(aliases.get((entry.name, number), ()))),
        source=entry.source,
        created_at=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
        tags=tags,
    )
