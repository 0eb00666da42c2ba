"""Rerun: a process that executes a recorded run once more. `reproduce` starts it in the run's own environment.

    python -m modelyard_tracking.reproducing.rerun ANSWER < order

The order comes through a pipe, since it holds addresses and redacted values. The run's number is written to the file
ANSWER: what is printed is the training's own.
"""

import sys
from pathlib import Path
from typing import Any

from bson import json_util


def main() -> None:
    order: dict[str, Any] = json_util.loads(sys.stdin.read())
    from modelyard_tracking.experiment import load_experiment
    from modelyard_tracking.store import Home

    folder = Path(order["folder"])
    home = Home.from_json(order["home"])
    found = load_experiment(folder, order["file"])
    found._home = lambda: home
    found.scores_holdout = not order["trial"]
    link = {"modelyard": {"reproduces": order["reproduces"]}}
    try:
        found.run(order["command"], config_updates=order["config"], info=link)
    finally:
        if found.current_run is not None and found.current_run._id is not None:
            Path(sys.argv[1]).write_text(str(found.current_run._id))


if __name__ == "__main__":
    main()
