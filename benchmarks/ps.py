"""Measure `eplb-launch ps` as a whole process, on a machine with thousands of other processes.

They are really there: `sleep`, 5,000 of them by default, which are ended again.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import time

PS = (os.path.join(sysconfig.get_path("scripts"), "eplb-launch"), "ps")
START = "i=0; while [ $i -lt $0 ]; do sleep 600 & i=$((i+1)); done; echo; wait"


def start(count: int) -> subprocess.Popen[bytes]:
    """Start `count` processes, all in one process group, and return the shell above them."""
    shell = subprocess.Popen(
        ["sh", "-c", START, str(count)], stdout=subprocess.PIPE, start_new_session=True
    )
    if shell.stdout is not None:
        shell.stdout.readline()
    return shell


def measure(rounds: int) -> list[float]:
    """Return the seconds that each of `rounds` runs took."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        ended = subprocess.run(PS, stdout=subprocess.DEVNULL, check=False)
        taken.append(time.perf_counter() - begin)
        if ended.returncode > 1:
            sys.exit(f"eplb-launch ps: exit status {ended.returncode}")
    return taken


def main() -> None:
    """Measure without and with the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for count in (0, options.processes):
        shell = start(count)
        there = sum(name.isdigit() for name in os.listdir("/proc"))
        try:
            taken = measure(options.rounds)
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        print(
            f"{there:6} processes: median {statistics.median(taken):.3f} s, "
            f"most {max(taken):.3f} s of {len(taken)}"
        )


if __name__ == "__main__":
    main()
