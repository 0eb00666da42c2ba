"""Shared by the tests of k8s/: everything rendered, once."""

import os

import pytest

from rendering import (
    K8S,
    OVERLAYS,
    PROFILES,
    Object,
    Rendered,
    Workload,
    render,
    render_profile,
    what_is_missing,
    workloads,
)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Everything, by overlay and profile."""
    if missing := what_is_missing():
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(missing)
    overlays = {name: render(K8S / "overlays" / name) for name in OVERLAYS}
    return overlays | {name: render_profile(name, tmp_path_factory.mktemp(name)) for name in PROFILES}


@pytest.fixture(scope="session")
def pods(rendered: Rendered) -> list[Workload]:
    """Whatever makes pods, of all of them."""
    return [workload for place, objects in rendered.items() for workload in workloads(place, objects)]


@pytest.fixture(scope="session")
def production(rendered: Rendered) -> tuple[Object, ...]:
    return rendered["production"]
