"""What the benchmarks share: a stand-in for vLLM, whole processes in turn, and the machine."""

from __future__ import annotations

import os
import platform
import random
import shutil
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WARM_UP = 5
OTHER_PACKAGES = 250  # in a real vLLM environment
# Says what a launcher did, if its interpreter is a shell; `true` does not look at it.
SERVER = 'echo "${NCCL_MAX_CTAS-unset}" $$\n'

SAID = (
    b"eplb-launch: set NCCL_MAX_CTAS=8: async EPLB with DeepEP low-latency"
    b" (data_parallel_size=8, vLLM 0.16.0)\n"
)

MODEL = "deepseek-ai/DeepSeek-V3"
ARGUMENTS = (
    *("--data-parallel-size", "8", "--enable-expert-parallel", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--max-model-len", "8192", "--port", "8000"),
)
DOTTED = ("--eplb-config.use_async", "true")


def make_environment(
    directory: str, program: str = "true", names: Sequence[str] = ("vllm",)
) -> dict[str, str]:
    """Lay out what a vLLM installation looks like to the launcher; return an environment for it.

    `program` takes the place of its python; the scripts of all `names` are alike.
    """
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
    python = shutil.which(program) or f"/bin/{program}"
    shutil.copy(python, os.path.join(bin_directory, "python"))
    for name in names:
        server = os.path.join(bin_directory, name)
        with open(server, "w") as file:
            file.write(f"#!{bin_directory}/python\n{SERVER}")
        os.chmod(server, 0o700)
    return {"PATH": f"{bin_directory}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": directory}


def interpreter_of(script: str) -> str:
    """Return the interpreter that a script names in its first line."""
    with open(script) as file:
        return file.readline()[2:].split()[0]


def bare_python(script: str) -> list[str]:
    """Return the least that a launcher written in Python, as `script` is, has to do."""
    code = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    return [interpreter_of(script), "-c", code]


def run(argv: Sequence[str], environ: Mapping[str, str]) -> float:
    """Return the seconds from the start to the end of a process."""
    program = shutil.which(argv[0], path=environ["PATH"]) or argv[0]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    begin = time.perf_counter()
    pid = os.posix_spawn(
        program, list(argv), environ, file_actions=quiet
    )  # vfork: our size costs nothing
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"failed with status {os.waitstatus_to_exitcode(status)}: {argv[:9]}")
    return seconds


def measure(
    cases: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    rounds: int,
    warm_up: int = WARM_UP,
) -> dict[str, list[float]]:
    """Return the seconds of each case, one for each round.

    A loop of our own, as pyperf and hyperfine finish one command before they begin the next: here
    all run in turn, so that a machine that slows down slows all of them alike. The order is drawn
    anew for each round: none always runs behind the same other one.
    """
    names = list(cases)
    order = random.Random(8)  # noqa: S311
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm_up + rounds):
        order.shuffle(names)
        for name in names:
            taken = run(cases[name], environ)
            if number >= warm_up:
                seconds[name].append(taken)
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def ratios(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles of how often longer the one took than the other, in the same round."""
    return quartiles([value / other for value, other in zip(values, reference, strict=True)])


def machine() -> str:
    """Return what the figures depend on."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    model = models[0] if models else platform.machine()
    return f"{model}, {os.cpu_count()} CPUs, {system}, load {os.getloadavg()[0]:.2f}"
