"""Where there is no docker engine."""

import gc
from pathlib import Path

import pytest

from modelyard_build.errors import Unavailable
from modelyard_build.images.engine import Engine


@pytest.mark.parametrize("host", ["unix:///nonexistent/docker.sock", "unix://{tmp}/file", "tcp://127.0.0.1:9"])
def test_that_no_engine_answers_is_said_at_once_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DOCKER_HOST", host.format(tmp=tmp_path))
    with pytest.raises(Unavailable, match=r"No docker engine answers, so no image can be made: .*\nStart one, or name"):
        Engine.connect()
    gc.collect()  # a socket that was left open would be told here
