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
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TARGET = 1.5
AIM = 1.35
WARM_UP = 5
MANY = 100_000
MANY_SECONDS = 1.0
OTHER_PACKAGES = 250  # in a real vLLM environment
BARE = "python -c that only execs"

SAID = (
    b"eplb-launch: set NCCL_MAX_CTAS=8: async EPLB with DeepEP low-latency"
    b" (data_parallel_size=8, vLLM 0.16.0)\n"
)

ARGUMENTS = (
    *("--data-parallel-size", "8", "--enable-expert-parallel", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--max-model-len", "8192", "--port", "8000"),
)
DOTTED = ("--eplb-config.use_async", "true")
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


def make_environment(directory: str) -> None:
    """Lay out what a vLLM installation looks like to the launcher, with `true` as its python."""
    packages = os.path.join(directory, "lib/python3.12/site-packages")
    bin_directory = os.path.join(directory, "bin")
    os.makedirs(bin_directory)
    for number in range(OTHER_PACKAGES):
        os.makedirs(os.path.join(packages, f"package_{number}"))
        os.makedirs(os.path.join(packages, f"package_{number}-1.{number}.dist-info"))
    os.makedirs(os.path.join(packages, "vllm"))
    os.makedirs(os.path.join(packages, "vllm-0.16.0.dist-info"))
    with open(os.path.join(directory, "pyvenv.cfg"), "w") as file:
        file.write("home = /usr/bin\nversion = 3.12.0\n")
    true = shutil.which("true") or "/bin/true"
    shutil.copy(true, os.path.join(bin_directory, "python"))
    server = os.path.join(bin_directory, "vllm")
    with open(server, "w") as file:
        file.write(f"#!{bin_directory}/python\n")
    os.chmod(server, 0o700)
    with open(os.path.join(directory, "config.yaml"), "w") as file:
        file.write(YAML)


def interpreter_of(script: str) -> str:
    """Return the interpreter that a script names in its first line."""
    with open(script) as file:
        return file.readline()[2:].split()[0]


def commands(script: str, directory: str) -> dict[str, list[str]]:
    """Return what is measured, by name; the first is what all is compared with."""
    serve = ["vllm", "serve", "deepseek-ai/DeepSeek-V3"]
    dotted = [*serve, *ARGUMENTS, *DOTTED]
    in_json = [*serve, *ARGUMENTS, *JSON]
    in_yaml = [*serve, "--config", os.path.join(directory, "config.yaml")]
    python = interpreter_of(script)
    bare = [python, "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"]
    given = [script, "--vllm-version", "0.16.0", "--"]
    return {
        BARE: [*bare, *dotted],
        "release given": [*given, *dotted],
        "release looked up": [script, "--", *dotted],
        "  and JSON --eplb-config": [script, "--", *in_json],
        "  and YAML --config": [script, "--", *in_yaml],
        "no server in the command": [script, "--", "true"],
        "python -m eplb_launch": [python, "-m", "eplb_launch", *given[1:], *dotted],
        "env NCCL_MAX_CTAS=8": ["env", "NCCL_MAX_CTAS=8", *dotted],
    }


def run(argv: list[str], environ: Mapping[str, str]) -> float:
    """Return the seconds from the start to the end of a process."""
    program = argv[0] if "/" in argv[0] else shutil.which(argv[0]) or argv[0]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    begin = time.perf_counter()
    pid = os.posix_spawn(
        program, argv, environ, file_actions=quiet
    )  # vfork: our size costs nothing
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"failed with status {os.waitstatus_to_exitcode(status)}: {argv[:9]}")
    return seconds


def check(cases: Mapping[str, list[str]], environ: Mapping[str, str]) -> None:
    """Stop if a launcher does not do what is to be measured."""
    for name, argv in cases.items():
        done = subprocess.run(argv, env=environ, capture_output=True, check=True)
        expected = SAID if "--" in argv and "serve" in argv else b""
        if done.stderr != expected:
            raise SystemExit(f"{name}: unexpected on stderr: {done.stderr.decode()}")


def measure(
    cases: Mapping[str, list[str]],
    environ: Mapping[str, str],
    rounds: int,
) -> dict[str, list[float]]:
    """Return the seconds of each case, one for each round.

    A loop of our own, as pyperf and hyperfine finish one command before they begin the next: here
    all run in turn, so that a machine that slows down slows all of them alike.
    """
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(WARM_UP + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken = run(cases[name], environ)
            if number >= WARM_UP:
                seconds[name].append(taken)
    return seconds


def print_table(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print medians, and ratios within a round; return the ratios."""
    bare = seconds[BARE]
    ratios = {}
    print(f"{'':28}{'median ms':>10}{'ratio':>8}   quartiles of the ratio")
    for name, values in seconds.items():
        each = [value / reference for value, reference in zip(values, bare, strict=True)]
        low, middle, high = statistics.quantiles(each, n=4)
        ratios[name] = middle
        median = statistics.median(values) * 1000
        print(f"{name:28}{median:10.2f}{middle:8.2f}   {low:.2f} to {high:.2f}")
    return ratios


def print_machine(script: str) -> None:
    """Print what the figures depend on."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    installer = importlib.metadata.distribution("eplb-launch").read_text("INSTALLER") or "unknown"
    installer = installer.strip()
    if installer == "pip":
        installer += f" (here now: {importlib.metadata.version('pip')})"
    print(f"machine    {models[0] if models else platform.machine()}, {os.cpu_count()} CPUs,")
    print(f"           {platform.system()} {platform.release()}, load {os.getloadavg()[0]:.2f}")
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
    rounds = max(2, parser.parse_args().rounds)
    script = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
    print_machine(script)
    with tempfile.TemporaryDirectory() as directory:
        make_environment(directory)
        search_path = f"{directory}/bin:/usr/bin:/bin"
        environ = {"PATH": search_path, "LANG": "C.UTF-8", "HOME": directory}
        os.environ["PATH"] = search_path
        print(f"\n{rounds} rounds, all commands in turn; whole processes\n")
        cases = commands(script, directory)
        check(cases, environ)
        ratios = print_table(measure(cases, environ, rounds))
        print()
        scales = print_scaling(script, environ, max(3, rounds // 20))
    ratio = ratios["release looked up"]
    verdict = "met" if ratio <= TARGET else "NOT MET"
    print(f"\ntarget     ratio {TARGET} at most, {AIM} aimed at: {ratio:.2f}, {verdict}")
    print(
        f"           {MANY:,} arguments in {MANY_SECONDS:.0f} s: {'met' if scales else 'NOT MET'}"
    )
    sys.exit(ratio > TARGET or not scales)


if __name__ == "__main__":
    main()
