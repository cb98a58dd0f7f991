"""Measure what `eplb-launch -- CMD` adds to the start of CMD, as whole processes.

Next to it runs `python -c` of the same interpreter, which only executes CMD: the least that a
launcher written in Python can cost. CMD is `vllm serve` with a dozen arguments, every setting of
the rule among them; the server is a stand-in that exits at once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from typing import TYPE_CHECKING

from whole_process import (
    ARGUMENTS,
    DOTTED,
    MODEL,
    SAID,
    bare_python,
    interpreter_of,
    machine,
    make_environment,
    measure,
    ratios,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TARGET = 1.5
AIM = 1.35
MANY = 100_000
MANY_SECONDS = 1.0
BARE = "python -c that only execs"

JSON = ("--eplb-config", '{"use_async": true, "window_size": 1000}')
YAML = """\
data-parallel-size: 8
enable-expert-parallel: true
enable-eplb: true
all2all-backend: deepep_low_latency
eplb-config: {use_async: true, window_size: 1000}
max-model-len: 8192
port: 8000
"""


def commands(script: str, directory: str) -> dict[str, list[str]]:
    """Return what is measured, by name; the first is what all is compared with."""
    serve = ["vllm", "serve", MODEL]
    dotted = [*serve, *ARGUMENTS, *DOTTED]
    in_json = [*serve, *ARGUMENTS, *JSON]
    in_yaml = [*serve, "--config", os.path.join(directory, "config.yaml")]
    python = interpreter_of(script)
    given = [script, "--vllm-version", "0.16.0", "--"]
    return {
        BARE: [*bare_python(script), *dotted],
        "release given": [*given, *dotted],
        "release looked up": [script, "--", *dotted],
        "  and JSON --eplb-config": [script, "--", *in_json],
        "  and YAML --config": [script, "--", *in_yaml],
        "  behind one wrapper": [script, "--", "env", "A=1", *dotted],
        "  in bash -c": [script, "--", "bash", "-c", f"exec {shlex.join(dotted)}"],
        "no server in the command": [script, "--quiet", "--", "true"],
        "python -m eplb_launch": [python, "-m", "eplb_launch", *given[1:], *dotted],
        "env NCCL_MAX_CTAS=8": ["env", "NCCL_MAX_CTAS=8", *dotted],
    }


def check(cases: Mapping[str, list[str]], environ: Mapping[str, str]) -> None:
    """Stop if a launcher does not do what is to be measured."""
    for name, argv in cases.items():
        done = subprocess.run(argv, env=environ, capture_output=True, check=True)
        expected = SAID if "--" in argv and "serve" in " ".join(argv) else b""
        if done.stderr != expected:
            raise SystemExit(f"{name}: unexpected on stderr: {done.stderr!r}")


def print_table(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print medians, and ratios within a round; return the ratios."""
    bare = seconds[BARE]
    middles = {}
    print(f"{'':28}{'median ms':>10}{'ratio':>8}   quartiles of the ratio")
    for name, values in seconds.items():
        low, middle, high = ratios(values, bare)
        middles[name] = middle
        median = statistics.median(values) * 1000
        print(f"{name:28}{median:10.2f}{middle:8.2f}   {low:.2f} to {high:.2f}")
    return middles


def print_machine(script: str) -> None:
    """Print what the figures depend on."""
    installer = importlib.metadata.distribution("eplb-launch").read_text("INSTALLER") or "unknown"
    installer = installer.strip()
    if installer == "pip":
        installer += f" (here now: {importlib.metadata.version('pip')})"
    print(f"machine    {machine()}")
    print(f"python     {platform.python_version()}, {interpreter_of(script)}")
    print(f"installed  by {installer}: {script}")


def print_scaling(script: str, environ: Mapping[str, str], rounds: int) -> bool:
    """Print how the time grows with the number of arguments; tell whether the limit is kept."""
    longest = 0.0
    for count in (MANY // 100, MANY // 10, MANY):
        words = [word for number in range(count // 2) for word in (f"--o{number}", "8")]
        argv = [script, "--vllm-version", "0.16.0", "--", "vllm", "serve", *DOTTED, *words]
        longest = statistics.median(run(argv, environ) for _ in range(rounds))
        print(f"{count:7,} arguments {longest * 1000:10.1f} ms")
    return longest < MANY_SECONDS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="how often each command runs")
    parser.add_argument("--beside", help="another eplb-launch, to run in turn with this one")
    given = parser.parse_args()
    rounds = max(2, given.rounds)
    script = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
    print_machine(script)
    with tempfile.TemporaryDirectory() as directory:
        environ = make_environment(directory)
        with open(os.path.join(directory, "config.yaml"), "w") as file:
            file.write(YAML)
        print(f"\n{rounds} rounds, all commands in turn; whole processes\n")
        cases = commands(script, directory)
        if given.beside:
            cases |= {
                f"{name.lstrip()}, other": [given.beside, *argv[1:]]
                for name, argv in cases.items()
                if argv[0] == script
            }
        check(cases, environ)
        middles = print_table(measure(cases, environ, rounds))
        print()
        scales = print_scaling(script, environ, max(3, rounds // 20))
    ratio = middles["release looked up"]
    met = "met" if ratio <= TARGET else "NOT MET"
    print(f"\ntarget     ratio {TARGET} at most, {AIM} aimed at: {ratio:.2f}, {met}")
    print(
        f"           {MANY:,} arguments in {MANY_SECONDS:.0f} s: {'met' if scales else 'NOT MET'}"
    )
    sys.exit(ratio > TARGET or not scales)


if __name__ == "__main__":
    main()
