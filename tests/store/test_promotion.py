"""The store under contention and cut-offs: one winner of each move, and no half request."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from modelyard_tracking.aliases import Aliases
from modelyard_tracking.approval import Approvals
from modelyard_tracking.errors import Refused
from modelyard_tracking.ledger import Ledger
from modelyard_tracking.registry import Registry
from modelyard_tracking.store import Home

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def test_of_16_promotions_at_once_one_wins_and_the_others_are_told_who_50_times(
    home: Home, registry_uri: str, tmp_path: Path
) -> None:
    registry = Registry(registry_uri)
    versions = [
        registry.get("tumor", registry.add("tumor", str(tmp_path), {"model_sha256": "a" * 64, "run_id": "1"}))
        for _ in range(16)
    ]
    together = Barrier(16)

    def race(person: int) -> list[str]:
        said = []
        with home.connected() as db:
            aliases = Aliases(Ledger(db), registry)
            for _ in range(50):
                expected = aliases.current("tumor", "champion")
                together.wait()  # all have seen the same
                mine = versions[person] if versions[person].version != expected else versions[(person + 1) % 16]
                try:
                    aliases.move(mine, "champion", f"person-{person}", "", expected)
                    said.append(f"won with {mine.ref}")
                except Refused as refusal:
                    said.append(str(refusal))
                together.wait()
        return said

    with ThreadPoolExecutor(16) as pool:
        rounds = list(zip(*pool.map(race, range(16)), strict=True))
    with home.connected() as db:
        ledger = Ledger(db)
        assert ledger.verify().faults == ()
        moves = list(ledger.entries(["promote"]))
        assert len(moves) == 50
        for said, entry in zip(rounds, moves, strict=True):
            now = f"tumor:{entry.facts['version']}"
            winners = {text for text in said if text.startswith("won")}
            assert winners == {f"won with {now}"}  # two may have wanted the same version
            assert all(f"tumor@champion is {now} by now" in text for text in said if not text.startswith("won"))
        assert registry.aliases("tumor") == {"champion": moves[-1].facts["version"]}


CUT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from cut_request import CUTS, approvals, evidence_of

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

mine = approvals({url!r}, {database!r}, {artifacts!r}, {registry!r})
if {approves!r}:
    CUTS[{point!r}](die)
    mine.approve("{model}:1", "bob", "good", alias="champion")
else:
    evidence = evidence_of({model!r}, Path({artifacts!r}))
    CUTS[{point!r}](die)
    mine.request(evidence, "ada")
"""


def cut_off(home: Home, registry: str, model: str, point: str, *, approves: bool) -> None:
    given = {
        "tests": str(Path(__file__).parents[1]),
        "point": point,
        "url": home.mongo_url,
        "database": home.database,
        "artifacts": str(home.artifacts),
        "registry": registry,
        "model": model,
        "approves": approves,
    }
    cut = subprocess.run(
        [sys.executable, "-c", CUT.format(**given)], capture_output=True, text=True, timeout=120, check=False
    )
    assert cut.returncode == -signal.SIGKILL, cut.stderr


@pytest.mark.parametrize(
    "point", [f"{when} the {what}" for what in ("row", "evidence", "entry") for when in ("before", "after")]
)
def test_a_request_that_is_killed_anywhere_is_the_same_version_when_it_is_made_again(
    home: Home, registry_uri: str, point: str
) -> None:
    from cut_request import approvals, evidence_of

    model = "m_" + point.replace(" ", "_")
    cut_off(home, registry_uri, model, point, approves=False)
    mine: Approvals = approvals(home.mongo_url, home.database, str(home.artifacts), registry_uri)
    evidence = evidence_of(model, home.artifacts)
    assert mine.request(evidence, "ada").ref == f"{model}:1"
    assert mine.request(evidence, "ada").ref == f"{model}:1"
    assert [version.ref for version in mine.registry.versions(model)] == [f"{model}:1"]
    assert [entry.kind for entry in mine.ledger.entries(subject=f"{model}:1")] == ["request"]
    assert mine.ledger.verify().faults == ()
    assert mine.approve(f"{model}:1", "bob", "good").state == "approved"
    mine.db.client.close()


@pytest.mark.parametrize(
    "point",
    [f"{when} the {what}" for what in ("answer", "entry", "state", "alias") for when in ("before", "after")],
)
def test_an_approval_that_is_killed_anywhere_is_whole_when_it_is_given_again(
    home: Home, registry_uri: str, point: str
) -> None:
    from cut_request import approvals, evidence_of

    model = "a_" + point.replace(" ", "_")
    mine: Approvals = approvals(home.mongo_url, home.database, str(home.artifacts), registry_uri)
    mine.request(evidence_of(model, home.artifacts), "ada")
    cut_off(home, registry_uri, model, point, approves=True)
    assert mine.approve(f"{model}:1", "bob", "good", alias="champion").state == "approved"
    assert [entry.kind for entry in mine.ledger.entries()] == ["request", "approve", "promote"]
    version = mine.aliases.resolve(f"{model}@champion")
    assert (version.ref, version.state, mine.require(version).decided_by) == (f"{model}:1", "approved", "bob")
    assert mine.registry.aliases(model) == {"champion": 1}
    assert mine.ledger.verify().faults == ()
    mine.db.client.close()
