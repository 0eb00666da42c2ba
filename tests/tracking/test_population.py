"""Population based training: who goes on from whom, with which configuration."""

import warnings
from random import Random
from typing import Any

import pytest

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import SweepPlan
from modelyard_tracking.sweeping.population import Member, Population
from modelyard_tracking.sweeping.search import PART, TRIAL, Finished, OrderedSearch
from modelyard_tracking.sweeping.space import Space

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hyperopt import hp
    from ray.tune.search import Searcher

SPACE = Space(
    {
        "lr": hp.loguniform("lr", -7, 0),
        "width": hp.uniformint("width", 4, 64),
        "shuffle": True,
        "optimiser": hp.choice("kind", [{"name": "adam"}, {"name": "sgd", "momentum": hp.uniform("m", 0.5, 0.99)}]),
    },
    "search_space.py",
)
PLAN = SweepPlan(scheduler="pbt", max_steps=10, perturb_every=4, trials=26)
EIGHT = Population.of(PLAN, 26)


def _search(finished: dict[int, Finished] | None = None, seed: int = 3) -> OrderedSearch:
    given: dict[str, Any] = {"kind": "tpe", "trials": 24, "window": 3, "metric": "loss", "mode": "min"}
    return OrderedSearch(SPACE, seed=seed, population=EIGHT, finished=finished, **given)


def _run(search: OrderedSearch, stop_after: int = 1000) -> dict[int, tuple[dict[str, Any], list[Any], float]]:
    """Run all trials, three at a time, of which a random one ends first."""
    live: dict[str, dict[str, Any]] = {}
    ended: dict[int, tuple[dict[str, Any], list[Any], float]] = {}
    order = Random(len(ended))  # noqa: S311
    while len(ended) < stop_after:
        suggested = search.suggest(f"t{len(live) + len(ended)}") if len(live) < 3 else None
        if isinstance(suggested, dict):
            live[f"t{len(live) + len(ended)}"] = suggested
        elif suggested == Searcher.FINISHED and not live:
            break
        else:
            name = order.choice(sorted(live))
            config = live.pop(name)
            number, part = config.pop(TRIAL), config.pop(PART)
            value = abs(config["lr"] - 0.1)
            search.on_trial_complete(name, {"loss": value})
            ended[number] = (config, part, value)
    return ended


def test_trials_are_the_population_times_the_generations() -> None:
    assert (EIGHT.size, EIGHT.generations, EIGHT.trials) == (8, 3, 24)
    assert [EIGHT.until(number) for number in (0, 7, 8, 16, 23)] == [4, 4, 8, 10, 10]


def test_a_population_of_less_than_four_is_refused_with_how_many_trials_it_takes() -> None:
    with pytest.raises(Refused, match=r"11 trials make a population of 3.*\nGive it at least 12 trials"):
        Population.of(PLAN, 11)


@pytest.mark.parametrize(("mode", "worst", "best"), [("min", 7, 0), ("max", 0, 7)])
def test_the_worst_go_on_from_the_best_and_the_others_from_themselves(mode: str, worst: int, best: int) -> None:
    before = [Member(SPACE.sample(number), float(number)) for number in range(8)]
    sources = [EIGHT.next(8 + member, before, SPACE, 1, mode)[1] for member in range(8)]
    bests = {best, abs(best - 1)}
    for member, source in enumerate(sources):
        assert source in bests if abs(member - worst) < 2 else source == member
    assert EIGHT.next(8 + 4, before, SPACE, 1, mode)[0] == before[4].config


def test_a_member_that_failed_goes_on_from_one_of_the_best() -> None:
    before = [Member(SPACE.sample(number), None if number in (2, 5) else float(number)) for number in range(8)]
    assert EIGHT.next(16 + 5, before, SPACE, 1, "min")[1] in (8, 9)


def test_where_all_failed_each_is_tried_again_as_it_was() -> None:
    before = [Member({"lr": 0.1}, None)] * 8
    assert EIGHT.next(8 + 3, before, SPACE, 1, "min") == ({"lr": 0.1}, 3)


def test_a_changed_configuration_is_one_of_the_space_and_not_far_away() -> None:
    rng = Random(1)  # noqa: S311
    before = {"lr": 0.9, "width": 5, "shuffle": True, "optimiser": {"name": "sgd", "momentum": 0.9}}
    drawn = [SPACE.perturbed(before, rng) for _ in range(300)]
    assert all(0.0009 < config["lr"] <= 1 for config in drawn)
    assert {type(config["width"]) for config in drawn} == {int}
    assert all(4 <= config["width"] <= 64 for config in drawn)
    assert all(config["shuffle"] is True for config in drawn)
    near = [config for config in drawn if config["lr"] in (0.9 * 0.8, 1.0)]
    assert 0.6 < len(near) / len(drawn) < 0.9  # the others were drawn anew
    assert {config["width"] for config in drawn} >= {4, 6}  # a whole number moves by one at least
    assert {config["optimiser"]["name"] for config in drawn} == {"adam", "sgd"}
    momenta = [config["optimiser"].get("momentum", 0.5) for config in drawn]
    assert all(0.5 <= momentum <= 0.99 for momentum in momenta)


def test_a_space_with_one_expression_in_two_places_is_refused_before_anything_runs() -> None:
    twice = hp.uniform("twice", 0, 1)
    with pytest.raises(Refused, match="used twice"):
        OrderedSearch(
            Space({"a": twice, "b": twice}, "search_space.py"),
            kind="random",
            trials=24,
            window=1,
            seed=0,
            metric="loss",
            mode="min",
            population=EIGHT,
        )


def test_a_generation_waits_for_all_of_the_one_before() -> None:
    search = _search()
    asked = [search.suggest(str(number)) for number in range(8)]
    assert [config[PART] for config in asked] == [[None, 4]] * 8
    for number in range(7):
        search.on_trial_complete(str(number), {"loss": asked[number]["lr"]})
    assert search.suggest("next") is None
    search.on_trial_complete("7", {"loss": asked[7]["lr"]})
    assert search.suggest("next")[PART][1] == 8


def test_the_same_seed_gives_the_same_population_and_later_generations_are_better() -> None:
    first, second = _run(_search()), _run(_search())
    assert first == second
    assert len(first) == 24
    assert _run(_search(seed=4)) != first
    values = [first[number][2] for number in range(24)]
    assert sorted(values[16:])[6] < sorted(values[:8])[6]  # the second worst of the last and of the first generation


@pytest.mark.parametrize("stop_after", [3, 8, 19])
def test_a_population_that_was_cut_off_goes_on_as_if_it_had_not_been(stop_after: int) -> None:
    whole = _run(_search())
    before = _run(_search(), stop_after)
    rest = _run(_search({number: Finished(config, value) for number, (config, _, value) in before.items()}))
    assert before | rest == whole
    assert not before.keys() & rest.keys()


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        ({"max_steps": 4}, "perturb_every"),
        ({"perturb_every": 2}, "max_steps"),
        ({"max_steps": 4, "perturb_every": 2, "search": "tpe"}, "draws its population at random"),
    ],
)
def test_a_plan_for_a_population_that_does_not_fit_is_refused(plan: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        SweepPlan(scheduler="pbt", **plan)
