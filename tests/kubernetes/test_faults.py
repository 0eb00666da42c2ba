"""What goes wrong in a cluster while callers ask: `make faults-kubernetes`, on a real Kubernetes with real images."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from asking import Callers, calling, wait_until
from modelyard_serving.errors import Unavailable
from own_cluster import run_script
from production import PREDICT, Production

pytestmark = [pytest.mark.kubernetes, pytest.mark.faults, pytest.mark.timeout(1200)]

AT_LEAST = 20_000
PER_S = 400  # what two cores carry beside a Kubernetes, and have room besides
CONNECTIONS = 32
DNS_S = 3  # until the gateways hear of a pod that is back: one of two killed before that were both of them
Figure = Callable[[str], None]


def all_well(stage: Production, callers: Callers, figure: Figure, what: str = "") -> None:
    figure(f"{what}{callers.told()}")
    assert set(callers.statuses) == {200}, callers.statuses
    assert len(callers.ids) == len(set(callers.ids)) >= AT_LEAST
    wait_until(lambda: stage.audited(callers.ids) == len(callers.ids), 120)


def test_twenty_killed_pods_fail_no_request(stage: Production, figure: Figure) -> None:
    deployed = stage.deploy(stage.wanted(1), 2)
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        for _ in range(20):
            name = stage.pods("tumor-1")[0]["metadata"]["name"]
            stage.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
            time.sleep(1)
            wait_until(lambda: stage.ready(deployed), 120)
            time.sleep(DNS_S)
    all_well(stage, callers, figure)


def test_two_killed_containers_fail_no_request(stage: Production, figure: Figure) -> None:
    deployed = stage.deploy(stage.wanted(1), 2)
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        for number in range(2):
            stage.kill("tumor-1", "model", number)
            # Kubernetes calls it ready until it notices.
            wait_until(lambda number=number: stage.restarts("tumor-1") == number + 1, 60)
            wait_until(lambda: stage.ready(deployed), 120)
            time.sleep(DNS_S)
    all_well(stage, callers, figure)


def test_five_deleted_pods_fail_no_request(stage: Production, figure: Figure) -> None:
    deployed = stage.deploy(stage.wanted(1), 2)
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        for _ in range(5):
            stage.kubectl("delete", "pod", stage.pods("tumor-1")[0]["metadata"]["name"], "--wait=false")
            time.sleep(2)
            wait_until(lambda: stage.ready(deployed), 120)
    all_well(stage, callers, figure)


def test_twenty_changes_of_the_split_fail_no_request(stage: Production, figure: Figure) -> None:
    stage.both()
    shares = [80, 20, 50, 55, 90, 10, 30, 70, 65, 35, 0, 100, 40, 60, 25, 75, 5, 95, 45, 80]
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        for share in shares:
            stage.yard.split("tumor", {"champion": share, "challenger": 100 - share})
            time.sleep(1)
    all_well(stage, callers, figure)


def test_a_rolling_update_of_a_version_fails_no_request(stage: Production, figure: Figure) -> None:
    stage.deploy(stage.wanted(1), 2)
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        for number in range(3):
            stage.deploy(stage.changed(1, f"LABEL again={number}", f"again{number}"))
    all_well(stage, callers, figure)


def test_a_version_with_one_pod_is_replaced_without_a_failed_request(stage: Production, figure: Figure) -> None:
    stage.deploy(stage.wanted(1))
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        stage.deploy(stage.changed(1, "LABEL again=one", "againone"))
        stage.deploy(stage.wanted(2))
        stage.yard.rollback("tumor")
    all_well(stage, callers, figure)


def test_a_rolling_update_of_the_gateway_fails_no_request(stage: Production, figure: Figure) -> None:
    stage.deploy(stage.wanted(1), 2)
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        stage.kubectl("rollout", "restart", "deployment/gateway")
        stage.kubectl("rollout", "status", "deployment/gateway", "--timeout=110s")
        time.sleep(25)  # the last of the old ones is gone
    all_well(stage, callers, figure)


def test_versions_that_do_not_come_up_fail_no_request_of_the_one_that_answers(
    stage: Production, figure: Figure
) -> None:
    stage.deploy(stage.wanted(1), 2)
    bad = {
        "an image that is not there": replace(stage.wanted(1), image=f"{stage.engine.registry}/x@sha256:{'0' * 64}"),
        "one that crashes": stage.changed(1, 'ENTRYPOINT ["sh", "-c", "exit 3"]', "faultcrash"),
        "one that never gets ready": stage.changed(1, 'ENTRYPOINT ["sleep", "600"]', "faultprobe"),
    }
    impatient = replace(stage.yard.serving.stage, timeout_s=30)
    before = stage.yard.endpoints.deployment("tumor-1")
    with calling(stage.callers(), CONNECTIONS, AT_LEAST, PER_S) as callers:
        for wanted in bad.values():
            with pytest.raises(Unavailable):
                impatient.deploy(before, wanted, None, lambda _: None)
    all_well(stage, callers, figure, f"{', '.join(bad)}: ")
    wait_until(lambda: stage.ready(before), 60)


def test_while_a_kubelet_is_dead_answers_go_on(stage: Production, figure: Figure) -> None:
    """For half as long as it takes until a node without one counts as lost. When it comes back, Kubernetes takes all
    pods of the node for not ready until they were probed again, and here there is no other node."""
    if stage.cluster.home is None:
        pytest.skip("this Kubernetes was not started by the tests, so its kubelet is not theirs to kill")
    deployed = stage.deploy(stage.wanted(1), 2)
    kubelet = int((stage.cluster.home / "k8s" / "run" / "kubelet.pid").read_text())
    os.kill(kubelet, signal.SIGKILL)
    try:
        with calling(stage.callers(), CONNECTIONS, 5_000, PER_S) as callers:
            time.sleep(20)
    finally:
        run_script("up.sh", stage.cluster.home)
    began = time.monotonic()
    wait_until(lambda: stage.ready(deployed) and _answers(stage), 180)
    figure(f"{callers.told()}; all ready again {time.monotonic() - began:.0f} s after it was started")
    assert set(callers.statuses) == {200}, callers.statuses


def _answers(stage: Production) -> bool:
    with suppress(httpx.HTTPError), stage.http() as http:
        return all(http.post(PREDICT, content=stage.body).status_code == 200 for _ in range(20))
    return False


def test_how_long_a_deploy_and_a_rollback_take(stage: Production, figure: Figure) -> None:
    took = {}
    for what, args in (("the first deploy", ("deploy", "tumor:1")), ("the second", ("deploy", "tumor:2"))):
        began = time.monotonic()
        stage.command(*args)
        took[what] = time.monotonic() - began
    began = time.monotonic()
    stage.command("rollback", "tumor")
    with stage.http() as http:
        assert http.post(PREDICT, content=stage.body).headers["x-model-version"] == "1"
    took["a rollback, to its first answer"] = time.monotonic() - began
    figure(", ".join(f"{what} {seconds:.1f} s" for what, seconds in took.items()))
