"""Aliases move by compare-and-set, and MLflow's registry only shows them."""

from pathlib import Path

import pytest

from modelyard_tracking.aliases import Aliases
from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.ledger import Ledger
from modelyard_tracking.registry import ModelVersion, Registry


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def aliases(db, mlflow: Registry, tmp_path: Path) -> Aliases:
    for model in mlflow.models():  # of the test before
        for alias in mlflow.aliases(model):
            mlflow.remove_alias(model, alias)
    if not mlflow.models():
        for _ in range(3):
            mlflow.add("tumor", str(tmp_path), {"model_sha256": "a" * 64, "run_id": "1"})
    return Aliases(Ledger(db), mlflow)


def version(aliases: Aliases, number: int) -> ModelVersion:
    return aliases.registry.get("tumor", number)


def test_an_alias_moves_from_where_the_caller_saw_it(aliases: Aliases) -> None:
    aliases.move(version(aliases, 1), "champion", "ada", "the first", None)
    aliases.move(version(aliases, 2), "champion", "bob", "better", 1)
    assert aliases.current("tumor", "champion") == 2
    assert aliases.resolve("tumor@champion").ref == "tumor:2"
    assert aliases.registry.aliases("tumor") == {"champion": 2}
    assert [entry.facts["before"] for entry in aliases.ledger.entries(["promote"])] == [None, 1]


def test_who_saw_an_older_state_is_told_the_current_one_and_moves_nothing(aliases: Aliases) -> None:
    aliases.move(version(aliases, 1), "champion", "ada", "", None)
    aliases.move(version(aliases, 2), "champion", "bob", "", 1)
    with pytest.raises(Refused, match=r"tumor@champion is tumor:2 by now, not tumor:1"):
        aliases.move(version(aliases, 3), "champion", "ada", "", 1)
    with pytest.raises(Refused, match=r"tumor@champion is tumor:2 by now, not no version"):
        aliases.move(version(aliases, 3), "champion", "ada", "", None)
    assert aliases.current("tumor", "champion") == 2


def test_moving_an_alias_to_where_it_is_enters_nothing(aliases: Aliases) -> None:
    aliases.move(version(aliases, 1), "champion", "ada", "", None)
    aliases.move(version(aliases, 1), "champion", "bob", "", None)
    assert len(list(aliases.ledger.entries())) == 1


def test_an_alias_that_was_moved_in_mlflow_moves_nothing_and_is_named_and_mended(aliases: Aliases) -> None:
    aliases.move(version(aliases, 1), "champion", "ada", "", None)
    aliases.registry.set_alias("tumor", "champion", 3)
    aliases.registry.set_alias("tumor", "rogue", 2)
    assert aliases.resolve("tumor@champion").ref == "tumor:1"
    with pytest.raises(NotFound, match="has no alias 'rogue'; it has champion"):
        aliases.resolve("tumor@rogue")
    assert list(aliases.drift()) == [
        "tumor@champion is tumor:3 in MLflow's registry, and tumor:1 by the ledger",
        "tumor@rogue is tumor:2 in MLflow's registry, and no version by the ledger",
    ]
    aliases.show("tumor")
    assert list(aliases.drift()) == []


@pytest.mark.parametrize("name", ["", "Champion", "a b", "7up", "x@y", "x" * 60])
def test_a_name_that_mlflow_or_an_address_could_not_hold_is_refused(aliases: Aliases, name: str) -> None:
    with pytest.raises(Refused, match="no name for an alias"):
        aliases.move(version(aliases, 1), name, "ada", "", None)
