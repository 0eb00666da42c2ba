"""How long a person waits for the command itself: `yard --help`, `import modelyard`, `yard status`.

Each figure is the median of whole processes; `python -c pass` is measured beside them, in turn, so that the
ratios hold on a machine whose speed drifts.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from table import print_table

YARD = str(Path(sys.executable).parent / "yard")
COMMANDS = {
    "python_s": [sys.executable, "-c", "pass"],
    "import_s": [sys.executable, "-c", "import modelyard"],
    "help_s": [YARD, "--help"],
    "status_s": [YARD, "status"],
}
ROUNDS = 7


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            if number:  # the first round warms the disk cache
                times[name].append(time.perf_counter() - started)
    figures = {name: statistics.median(values) for name, values in times.items()}
    figures["help_vs_python"] = figures["help_s"] / figures["python_s"]
    print_table("What the command itself costs", figures, {"help_s": "< 0.4"})


if __name__ == "__main__":
    main()
