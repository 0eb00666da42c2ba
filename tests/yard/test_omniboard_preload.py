"""Omniboard's pages are on loopback, unless somebody says where else. Node.js alone is enough to see that."""

import os
import subprocess
from pathlib import Path

import pytest

from modelyard import omniboard
from modelyard_serving.errors import Unavailable

PRELOAD = Path(omniboard.__file__).with_name("omniboard.js")
SERVER = """
const server = require("http").createServer().listen(0, () => {
  console.log(server.address().address, process.argv.includes("me:mine:session"), process.env.OMNIBOARD_LOGIN);
  server.close();
});
"""


@pytest.mark.parametrize(("said", "listens"), [({}, "127.0.0.1"), ({"OMNIBOARD_HOST": "127.0.0.2"}, "127.0.0.2")])
def test_it_listens_where_it_is_told_and_its_login_leaves_the_environment(said: dict[str, str], listens: str) -> None:
    try:
        node = omniboard.find_node()
    except Unavailable as missing:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(str(missing))
    env = {**os.environ, "OMNIBOARD_LOGIN": "me:mine:session", **said}
    command = [node.binary, "--require", str(PRELOAD), "--eval", SERVER]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.split() == [listens, "true", "undefined"]
