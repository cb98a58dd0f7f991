"""How long `eplb-launch check` takes: 1,000 manifests, and files that were made to hurt.

    python benchmarks/check.py

Each is one process of the installed command. Prints seconds and the peak of its memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.path.dirname(HERE), "tests", "data", "manifests")
HEAD = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"


def manifests(folder: str, count: int) -> None:
    """Fill a folder with manifests of every shape, over and over."""
    names = [name for name in sorted(os.listdir(DATA)) if name.endswith(".yaml")]
    for number in range(count):
        source = os.path.join(DATA, names[number % len(names)])
        shutil.copy(source, os.path.join(folder, f"{number:04}.yaml"))


def large(folder: str) -> None:
    """Write 50 MB that mention vLLM."""
    with open(os.path.join(folder, "large.yaml"), "w", encoding="ascii") as file:
        file.writelines("a: vllm\n" * (1 << 17) for _ in range(50))


def full(folder: str) -> None:
    """Write 8 MB, just not too large, of small values."""
    with open(os.path.join(folder, "full.yaml"), "w", encoding="ascii") as file:
        file.write("vllm:\n" + "- a\n" * 2_000_000)


def deep(folder: str) -> None:
    """Write 8 MB of brackets."""
    with open(os.path.join(folder, "deep.yaml"), "w", encoding="ascii") as file:
        file.write("vllm: " + "[" * 8_000_000)


def laughs(folder: str) -> None:
    """Write aliases of aliases, and a container 100,000 times."""
    lines = ["a: &a [vllm]\n"]
    lines += [f"k{i}: &k{i} [{', '.join(['*k' + str(i - 1)] * 9)}]\n" for i in range(1, 30)]
    lines[1] = "k0: &k0 [*a, *a]\n" + lines[1]
    with open(os.path.join(folder, "laughs.yaml"), "w", encoding="ascii") as file:
        file.writelines(lines)
    with open(os.path.join(folder, "again.yaml"), "w", encoding="ascii") as file:
        file.write(HEAD + "  - &c {image: vllm, args: [m]}\n" + "  - *c\n" * 100_000)


def script(folder: str) -> None:
    """Write a script of 250 kB that starts 10,000 servers."""
    with open(os.path.join(folder, "a.sh"), "w", encoding="ascii") as file:
        file.write('vllm serve m -dp "$DP"\n' * 10_000)


@dataclass(frozen=True)
class Run:
    """What one process took, and the last line that it wrote."""

    seconds: float
    megabytes: int
    last: str


def measure(command: Sequence[str], folder: str) -> Run:
    """Run the command on the folder."""
    start = time.monotonic()
    with subprocess.Popen([*command, folder], stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    last = output.rstrip().rpartition("\n")[2]
    return Run(seconds, usage.ru_maxrss >> 10, last)


def main() -> None:
    """Measure each, and print a line for it."""
    command = [sys.executable, "-m", "eplb_launch", "check"]
    cases: list[tuple[str, Callable[[str], None]]] = [
        ("1,000 manifests", lambda folder: manifests(folder, 1000)),
        ("a file of 50 MB", large),
        ("a file of 8 MB, 2 million values", full),
        ("a file of 8 MB, brackets", deep),
        ("aliases", laughs),
        ("a script of 10,000 servers", script),
    ]
    for name, write in cases:
        folder = tempfile.mkdtemp(prefix="eplb-launch-")
        try:
            write(folder)
            run = measure(command, folder)
            print(f"{name:34} {run.seconds:5.1f} s {run.megabytes:5} MB  {run.last}")
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
