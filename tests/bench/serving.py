"""What the whole path from caller to model carries, beside its peers: same machine, same fitted model, same rows.

The whole path is Envoy with key, scope and sticky split, validation, the model, and the audit record, which is
shipped to the console meanwhile. The peers do less: MLServer, `mlflow models serve`, `bentoml serve`, Ray Serve, and
a bare Starlette handler on uvicorn; each has one worker, in an environment of its own that is made on first use and
kept in ~/.cache/modelyard/bench, or in the folder that BENCH_HOME names.

Each is asked for the class of each row, and answers no more: ours and MLflow by MLflow's dataframe_split, MLServer by
the Open Inference Protocol, BentoML, Ray Serve and the bare handler by {"instances": [[...]]}. Ours is also asked at
its native door ({"rows": [{...}]}), which answers probabilities, too, and by the Open Inference Protocol. The package
`peers` says how each is run, and why.

First all must answer the rows with the same predictions. Then they are loaded in turn, in rounds; whoever is not in
turn is stopped, so that nobody's idling and nobody's backlog is in another's figures. A ratio is of two loads that
follow one another, since a machine that others use, too, is not as fast a minute later; who is first changes from round
to round. What is printed is the median of the rounds.
"""

import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import ours as our_side
import wrk
from dialects import DATAFRAME_SPLIT, NATIVE, OPEN_INFERENCE, Dialect, Row
from ours import PROJECT, Ours, port_of
from peers import PEERS, install, models, started
from servers import Tree
from table import print_table

from modelyard.demo import holdout_rows

ROUNDS = 5
SECONDS = 2  # of each load; wrk counts whole ones
WARM_UP_S = 1
CONNECTIONS = 32
ROWS = 64  # different requests, sent in turn
MANY = 100  # rows in a large request
RIVALS = ("mlserver", "mlflow", "bentoml", "ray_serve", "bare", "mlserver_batching", "bentoml_batching")
# Whose load is set against whose, and what of it.
RATIOS = {
    **{f"vs_{rival}": ("ours", rival, "per_s") for rival in RIVALS},
    "p99_vs_mlserver": ("ours", "mlserver", "p99_ms"),
    "p50_c1_vs_bare": ("ours_c1", "bare_c1", "p50_ms"),
    "rows100_vs_bare": ("ours_rows100", "bare_rows100", "per_s"),
    "native_vs_bare": ("ours_native", "bare", "per_s"),
    "native_rows100_vs_bare": ("ours_native_rows100", "bare_rows100", "per_s"),
    "runtime_oip_vs_mlserver": ("runtime_oip", "mlserver", "per_s"),
}
# The same, and what the first is short of the second.
SHARES = {"proxy_share": ("ours", "runtime", "per_s"), "audit_cost": ("runtime", "without_audit", "per_s")}
GOALS = {
    "vs_mlserver": ">= 5",
    "vs_mlflow": ">= 8",
    "vs_bentoml": ">= 10",
    "vs_bare": ">= 2.3",
    "p99_vs_mlserver": "<= 0.5",
    "p50_c1_vs_bare": "<= 1.8",
    "rows100_vs_bare": ">= 0.9",
    "proxy_share": "<= 0.35",
    "audit_cost": "<= 0.10",
    "cold_start_s": "<= 5",
    "rss_mb": "<= 200",
    "failures": "0",
}

Pairs = dict[tuple[str, str], tuple[wrk.Load, wrk.Load]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """An address that is loaded, what is sent to it, and whose it is."""

    name: str
    tree: Tree
    port: int
    dialect: Dialect
    requests: Sequence[wrk.Request]
    connections: int = CONNECTIONS
    settles: bool = False  # it ships what it has recorded after the answer

    def load(self) -> wrk.Load:
        with self.tree.in_turn():
            if self.settles:
                self.tree.wait_until_idle()
            wrk.drive(self.port, self.requests, self.connections, WARM_UP_S)
            return wrk.drive(self.port, self.requests, self.connections, SECONDS)

    def predictions(self) -> list[list[str]]:
        """What it answers to each request, once."""
        with self.tree.in_turn(), httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as client:
            answers = []
            for request in self.requests:
                headers = {"content-type": "application/json", **request.headers}
                answer = client.post(request.path, content=request.body, headers=headers)
                if answer.status_code != 200:
                    sys.exit(f"{self.name} answered {answer.status_code}: {answer.text[:500]}")
                answers.append(self.dialect.answered(answer.json()))
        return answers


def main() -> None:
    if not wrk.installed():
        sys.exit("There is no wrk on PATH; install it:  make wrk")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # nothing that was started stays behind
    pythons = {peer.name: install(peer, PROJECT / "requirements.lock") for peer in PEERS}
    rows = [row for _, row, _ in holdout_rows(PROJECT)]
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as scratch, ExitStack() as running:
        folder = Path(scratch)
        ours = running.enter_context(our_side.deployed(folder / "repository", rows[0]))
        contestants = [*_ours(ours, rows, folder, running), *_peers(ours.model, pythons, rows, folder, running)]
        _check_answers(contestants)
        named = {contestant.name: contestant for contestant in contestants}
        rounds = []
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
            rounds.append(_round(named, turned=number % 2 == 1))
        figures = _medians([_ratios(pairs) for pairs in rounds]) | {
            "cold_start_s": ours.cold_start_s,
            "rss_mb": ours.rss_mb(),
        }
    loads: dict[str, list[wrk.Load]] = {name: [] for name in named}
    for pairs in rounds:
        for pair, both in pairs.items():
            for name, load in zip(pair, both, strict=True):
                loads[name].append(load)
    details = {
        name: _medians([{"per_s": load.per_s, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms} for load in of])
        | {"failures": sum(load.failures for load in of)}
        for name, of in loads.items()
    }
    figures["failures"] = sum(of["failures"] for of in details.values())
    print_table("The whole path to a scikit-learn pipeline of 30 features, and its peers", figures, GOALS, details)


def _ours(ours: Ours, rows: Sequence[Row], folder: Path, running: ExitStack) -> Iterable[Contestant]:
    """Through Envoy, straight at the runtime, and at a runtime that records nothing."""
    one, many = bodies(DATAFRAME_SPLIT, rows), bodies(DATAFRAME_SPLIT, rows, MANY)
    native, native_many = bodies(NATIVE, rows), bodies(NATIVE, rows, MANY)
    key = {"authorization": f"Bearer {ours.token}"}
    # Straight at the runtime: the gateway's own headers, so that the same code runs.
    inside = {"x-gateway-secret": ours.secret, "x-caller": "bench", "x-endpoint": "tumor", "x-variant": "champion"}
    gateway, runtime = ours.settings.gateway_port, port_of(ours.deployment)
    silent, silent_port = running.enter_context(ours.without_audit(folder / "without-audit"))
    silent.pause()

    def whole_path(name: str, dialect: Dialect, sent: Sequence[bytes], connections: int = CONNECTIONS) -> Contestant:
        asked = requests(our_side.NATIVE_PATH if dialect is NATIVE else our_side.PATH, sent, key)
        return Contestant(name, ours.stack, gateway, dialect, asked, connections, settles=True)

    def alone(name: str, dialect: Dialect, path: str, sent: Sequence[bytes]) -> Contestant:
        return Contestant(name, ours.stack, runtime, dialect, requests(path, sent, inside), settles=True)

    recording_nothing = requests("/invocations", one, inside)
    return [
        whole_path("ours", DATAFRAME_SPLIT, one),
        whole_path("ours_c1", DATAFRAME_SPLIT, one, connections=1),
        whole_path("ours_rows100", DATAFRAME_SPLIT, many),
        whole_path("ours_native", NATIVE, native),
        whole_path("ours_native_rows100", NATIVE, native_many),
        alone("runtime", DATAFRAME_SPLIT, "/invocations", one),
        alone("runtime_oip", OPEN_INFERENCE, "/v2/models/tumor/infer", bodies(OPEN_INFERENCE, rows)),
        Contestant("without_audit", silent, silent_port, DATAFRAME_SPLIT, recording_nothing),
    ]


def _peers(
    trained: Path, pythons: Mapping[str, Path], rows: Sequence[Row], folder: Path, running: ExitStack
) -> Iterable[Contestant]:
    """The peers, each up and stopped."""
    joblib, mlflow = models(pythons["bare"], trained, folder)
    for peer in PEERS:
        print(f"starting {peer.name}", file=sys.stderr)
        tree, port = running.enter_context(started(peer, pythons[peer.name], folder, joblib, mlflow))
        tree.pause()
        one = requests(peer.path, bodies(peer.dialect, rows))
        yield Contestant(peer.name, tree, port, peer.dialect, one)
        if peer.batching:
            batching = requests(peer.batching, bodies(peer.dialect, rows))
            yield Contestant(f"{peer.name}_batching", tree, port, peer.dialect, batching)
        if peer.name == "bare":
            many = requests(peer.path, bodies(peer.dialect, rows, MANY))
            yield Contestant("bare_c1", tree, port, peer.dialect, one, connections=1)
            yield Contestant("bare_rows100", tree, port, peer.dialect, many)


def bodies(dialect: Dialect, rows: Sequence[Row], size: int = 1) -> list[bytes]:
    """ROWS different bodies of `size` rows each."""
    return [dialect.body([rows[(at + more) % len(rows)] for more in range(size)]) for at in range(ROWS)]


def requests(path: str, sent: Sequence[bytes], headers: Mapping[str, str] | None = None) -> list[wrk.Request]:
    """A request for each body, for a unit of its own; to peers that is one more header, which they do not read."""
    return [
        wrk.Request(path, {**(headers or {}), "x-unit-id": f"patient-{number}"}, body)
        for number, body in enumerate(sent)
    ]


def _check_answers(contestants: Sequence[Contestant]) -> None:
    """Every one must predict what the first does, which its build has held against the training's own answers."""
    expected: dict[int, list[list[str]]] = {}
    for contestant in contestants:
        answers = contestant.predictions()
        size = len(answers[0])
        if answers != expected.setdefault(size, answers):
            sys.exit(f"{contestant.name} answers the same rows otherwise than {contestants[0].name}.")
        if len({prediction for answer in answers for prediction in answer}) < 2:
            sys.exit(f"{contestant.name} answers all rows alike, so nothing is compared.")


def _round(contestants: Mapping[str, Contestant], *, turned: bool) -> Pairs:
    """Load every pair that is compared, one right after the other; or the other right after the one."""
    pairs: Pairs = {}
    for one, other in dict.fromkeys((one, other) for one, other, _ in (*RATIOS.values(), *SHARES.values())):
        order = (other, one) if turned else (one, other)
        found = {name: contestants[name].load() for name in order}
        pairs[one, other] = found[one], found[other]
    return pairs


def _ratios(pairs: Pairs) -> dict[str, float]:
    """The figures of one round."""

    def ratio(one: str, other: str, what: str) -> float:
        first, second = pairs[one, other]
        return float(getattr(first, what) / getattr(second, what))

    return {name: ratio(*of) for name, of in RATIOS.items()} | {name: 1 - ratio(*of) for name, of in SHARES.items()}


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
