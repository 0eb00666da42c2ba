"""A real mongod of a benchmark's own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.mongod import mongod_process, wait_until_primary
from modelyard.settings import embedded_mongo_url
from modelyard_serving.local_stage import free_port


@contextmanager
def mongod(folder: Path) -> Iterator[str]:
    port = free_port()
    wanted = mongod_process(folder, port)
    with subprocess.Popen(wanted.command, env=os.environ | wanted.env, stdout=subprocess.DEVNULL) as running:
        try:
            wait_until_primary(folder, port)
            yield embedded_mongo_url(folder, port)
        finally:
            running.terminate()
