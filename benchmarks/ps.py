"""Measure `eplb-launch ps` beside `ps aux`, on a machine with thousands of other processes.

They are really there: `sleep`, 5,000 of them by default, which are ended again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import time

SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
START = "i=0; while [ $i -lt $0 ]; do sleep 600 & i=$((i+1)); done; echo; wait"


def start(count: int) -> subprocess.Popen[bytes]:
    """Start `count` processes, all in one process group, and return the shell above them."""
    shell = subprocess.Popen(
        ["sh", "-c", START, str(count)], stdout=subprocess.PIPE, start_new_session=True
    )
    if shell.stdout is not None:
        shell.stdout.readline()
    return shell


def measure_among(
    processes: int, rounds: int, script: str = SCRIPT
) -> tuple[int, dict[str, list[float]]]:
    """Start `processes` more. Return how many there are then, and the seconds of each round.

    `ps aux` is left out if there is no `ps` here.
    """
    commands = {"eplb-launch ps": [script, "ps"], "ps aux": ["ps", "aux"]}
    if shutil.which("ps") is None:
        del commands["ps aux"]
    taken: dict[str, list[float]] = {name: [] for name in commands}
    shell = start(processes)
    there = sum(name.isdigit() for name in os.listdir("/proc"))
    try:
        for _ in range(rounds):
            for name, command in commands.items():
                begin = time.perf_counter()
                ended = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
                taken[name].append(time.perf_counter() - begin)
                if ended.returncode > 1:
                    sys.exit(f"{name}: exit status {ended.returncode}")
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    return there, taken


def main() -> None:
    """Measure without and with the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for count in (0, options.processes):
        there, taken = measure_among(count, options.rounds)
        for name, seconds in taken.items():
            print(
                f"{there:6} processes, {name:14}: median {statistics.median(seconds):.3f} s, "
                f"most {max(seconds):.3f} s of {len(seconds)}"
            )


if __name__ == "__main__":
    main()
