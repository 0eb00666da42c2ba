"""Model versions in MLflow's registry. Files stay where they are; the registry holds name, number and digests."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard_tracking.errors import NotFound, Refused, Unavailable
from modelyard_tracking.recording.redaction import masked

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
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds; MLflow's own are 120, seven times
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        if self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)
            return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """One of MlflowClient's methods.

        Raises:
            Unavailable: the server does not answer, or cannot.
        """
        from mlflow.exceptions import MlflowException

        try:
            return getattr(self._client, method)(*args, **kwargs)
        except MlflowException as error:
            if error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
                raise
            why = str(error).partition("\n")[0].replace(self._uri, masked(self._uri))
            raise Unavailable(
                f"MLflow's registry at {masked(self._uri)} does not answer: {why[:200]}\n"
                "Which address is used, and where it comes from:  yard config"
            ) from error

    def add(self, model: str, source: str, tags: Mapping[str, str]) -> int:
        """Register files as the next version of `model`; gives its number.

        Args:
            source: where the files are; a server takes no folder, since it would be one of its own machine.

        Raises:
            Refused: the registry is a server, and the files are in a folder.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._ask("create_registered_model", model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        told = {f"{TAG}{key}": value for key, value in tags.items()}
        try:
            made = self._ask("create_model_version", model, source=source, tags=told)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise Refused(
                f"The MLflow server at {masked(self._uri)} takes no model from the folder {source}.\n"
                "Set artifacts_url to a store that machines share:  YARD_ARTIFACTS_URL=s3://bucket/prefix"
            ) from error
        return int(made.version)

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._ask("set_model_version_tag", model, str(version), f"{TAG}{key}", value)

    def set_alias(self, model: str, alias: str, version: int) -> None:
        self._ask("set_registered_model_alias", model, alias, str(version))

    def remove_alias(self, model: str, alias: str) -> None:
        self._ask("delete_registered_model_alias", model, alias)

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
        return self.get(*split_ref(ref))

    def shown(self) -> dict[str, dict[str, int]]:
        """Every model, and its aliases as the registry shows them, which is not what counts: see `aliases.Aliases`."""
        found = self._all("search_registered_models")
        return {model.name: {alias: int(number) for alias, number in model.aliases.items()} for model in found}

    def models(self) -> list[str]:
        return sorted(self.shown())

    def aliases(self, model: str) -> dict[str, int]:
        return self.shown().get(model, {})

    def versions(self, model: str | None = None) -> list[ModelVersion]:
        """Every version we registered, by model and number."""
        shown = self.shown()
        query = "" if model is None else "name = '{}'".format(model.replace("'", ""))
        found = [_version(entry, shown.get(entry.name, {})) for entry in self._all("search_model_versions", query)]
        return sorted((v for v in found if v.model_sha256), key=lambda v: (v.model, v.version))

    def _all(self, search: str, *query: str) -> Iterator[Any]:
        """Every page of what MLflow finds."""
        token: str | None = None
        while token is None or token:
            page = self._ask(search, *query, page_token=token)
            yield from page
            token = page.token or ""


def split_ref(ref: str) -> tuple[str, int]:
    """Model and number of `tumor:2`.

    Raises:
        Refused: the text is no such name.
    """
    model, _, number = ref.partition(":")
    if not number.isdigit():
        raise Refused(f"{ref!r} names no model version. Write MODEL:NUMBER or MODEL@ALIAS, such as tumor:2.")
    return model, int(number)


def _version(entry: Any, aliases: Mapping[str, int]) -> ModelVersion:
    tags = {key.removeprefix(TAG): value for key, value in entry.tags.items() if key.startswith(TAG)}
    number = int(entry.version)
    return ModelVersion(
        model=entry.name,
        version=number,
        run_id=int(tags.get("run_id", -1)),
        model_sha256=tags.get("model_sha256", ""),
        state=tags.get("state", ""),
        aliases=tuple(sorted(alias for alias, named in aliases.items() if named == number)),
        source=entry.source,
        created_at=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
        tags=tags,
    )
