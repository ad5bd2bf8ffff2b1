"""Measure the cold start of `import pretrainps` and `pretrainps list` against a bare interpreter, in turn.

    python benchmarks/startup.py [--rounds 20]

Each is a separate process, with a warm file cache. Prints the median of each, and its ratio to the bare interpreter.
The budget of `list` is twice the bare interpreter plus 0.1 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import pretrainps": [sys.executable, "-c", "import pretrainps"],
    "pretrainps list": [sys.executable, "-m", "pretrainps", "list"],
    "pretrainps info resnet50-hybrid": [sys.executable, "-m", "pretrainps", "info", "resnet50-hybrid"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(args.rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number > 0:  # the first round fills the file cache
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    bare = medians["python -c pass"]
    for name, median in medians.items():
        print(f"{name:32} {1000 * median:7.1f} ms   {median / bare:6.1f} x bare")
    used = medians["pretrainps list"] / (2 * bare + 0.1)
    print(f"pretrainps list takes {100 * used:.0f} % of its budget of twice the bare interpreter plus 0.1 s")


if __name__ == "__main__":
    main()
