"""Shared by the tests of what a served environment holds."""

from pathlib import Path

import pytest

from modelyard_build.environment import make_environment, serving_wheel
from modelyard_build.locks.locking import served_part
from modelyard_tracking.origin import python_version
from places import TUMOR


@pytest.fixture(scope="session")
def served_lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of the example project's lock that its image gets."""
    lock = tmp_path_factory.mktemp("served") / "requirements.lock"
    lock.write_text(served_part((TUMOR / "requirements.lock").read_text(), "sklearn"))
    return lock


@pytest.fixture(scope="session")
def served_environment(served_lock: Path) -> Path:
    """The environment that the example project's model is served from."""
    wheel = serving_wheel(served_lock.parent)
    return make_environment(served_lock, wheel, python_version(), served_lock.parent / "environments")
