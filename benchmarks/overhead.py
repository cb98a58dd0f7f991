"""Measure `eplb-launch -- CMD` beside other launchers, `ps` beside `ps aux`, and `check`.

All launchers start the same stand-in for `vllm serve` with the same dozen arguments, on which the
rule of vLLM 0.16.0 fires, or, where it says "no server", the same with the name of `echo`. They are
installed the same way into an environment of their own, and run in turn, in a random order.

Writes overhead.json, overhead.svg and overhead.md into benchmarks/results, and the tables into
README.md. With --render it writes these anew from overhead.json, and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tempfile
from typing import TYPE_CHECKING

import check
import ps
from overhead_peers import ROOT, launchers, said_version, versions
from overhead_plot import to_svg
from overhead_results import Other, Results, Row, between, from_json, to_markdown
from whole_process import (
    ARGUMENTS,
    DOTTED,
    MODEL,
    SAID,
    machine,
    make_environment,
    measure,
    quartiles,
    ratios,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from overhead_peers import Launcher

RESULTS = os.path.join(ROOT, "benchmarks", "results")
README = os.path.join(ROOT, "README.md")
FOLDER = os.path.join(ROOT, "build", "overhead")
NAMES = ("vllm", "echo")
PROCESSES = 5000
MANIFESTS = 1000


def command(launcher: Launcher) -> list[str]:
    """Return the whole command line."""
    return [*(launcher.words or []), launcher.server, "serve", MODEL, *ARGUMENTS, *DOTTED]


def watch(launcher: Launcher, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Return the variable as the server sees it, and whether the launcher stays as its parent."""
    with subprocess.Popen(
        command(launcher), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{launcher.name}: status {process.returncode}: {err.decode()}")
    variable, pid = out.decode().split()
    if launcher.name.startswith("eplb-launch"):
        needed = launcher.server == "vllm"
        if (variable, err) != (("8", SAID) if needed else ("unset", b"")):
            raise SystemExit(f"{launcher.name}: {variable}, and on stderr: {err.decode()}")
    return variable, int(pid) != process.pid


def measure_launchers(found: Sequence[Launcher], rounds: int) -> list[Row]:
    """Measure the installed launchers in turn."""
    there = [launcher for launcher in found if launcher.words is not None]
    with tempfile.TemporaryDirectory() as directory:
        telling = make_environment(os.path.join(directory, "telling"), "sh", NAMES)
        seen = {launcher.name: watch(launcher, telling) for launcher in there}
        silent = make_environment(os.path.join(directory, "silent"), "true", NAMES)
        seconds = measure({launcher.name: command(launcher) for launcher in there}, silent, rounds)
    rows = []
    for launcher in found:
        if launcher.name not in seen:
            rows.append(Row(launcher.name, launcher.version))
            continue
        taken = seconds[launcher.name]
        low, middle, high = (round(value * 1000, 2) for value in quartiles(taken))
        to_env, to_python = (
            round(ratios(taken, seconds[other])[1], 2) for other in ("env", "python -c, only execs")
        )
        variable, stays = seen[launcher.name]
        rows.append(
            Row(
                launcher.name,
                launcher.version,
                (low, middle, high),
                to_env,
                to_python,
                variable,
                stays,
            )
        )
    return rows


def measure_others(script: str, rounds: int) -> list[Other]:
    """Measure `ps` among thousands of processes, and `check` on a thousand manifests."""
    there, taken = ps.measure_among(PROCESSES, rounds, script)
    others = [
        Other(name, f"{there:,} processes", _rounded(taken[name]) if name in taken else None)
        for name in ("eplb-launch ps", "ps aux")
    ]
    with tempfile.TemporaryDirectory() as folder:
        check.manifests(folder, MANIFESTS)
        runs = [check.measure([script, "check"], folder) for _ in range(rounds)]
    seconds = _rounded([run.seconds for run in runs])
    megabytes = max(run.megabytes for run in runs)
    others.append(Other("eplb-launch check", f"{MANIFESTS:,} manifests", seconds, megabytes))
    return others


def _rounded(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = (round(value, 3) for value in quartiles(values))
    return low, middle, high


def measure_all(rounds: int) -> Results:
    """Install, measure, and return what was found."""
    found = launchers(FOLDER)
    for launcher in found:
        print(f"{launcher.name:24}{'NOT FOUND' if launcher.words is None else launcher.version}")
    commands = os.path.join(FOLDER, "venv", "bin")
    # One CPU for all: a program that is moved to another one has to fill its caches again.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    before = machine()
    rows = measure_launchers(found, rounds)
    return Results(
        machine=before,
        python=platform.python_version(),
        pip=versions(commands)["pip"],
        child=f"a copy of `true` of coreutils {said_version('true')}",
        rounds=rounds,
        rows=rows,
        others=measure_others(os.path.join(commands, "eplb-launch"), max(3, rounds // 20)),
    )


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def render(text: str) -> str:
    """Write the file, the drawing and the tables; return the tables."""
    results = from_json(text)
    block = to_markdown(results)
    files = {
        os.path.join(RESULTS, "overhead.json"): text,
        os.path.join(RESULTS, "overhead.svg"): to_svg(results),
        os.path.join(RESULTS, "overhead.md"): block,
        README: between(_read(README), block),
    }
    for path, content in files.items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    return block


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="how often each launcher runs")
    parser.add_argument("--render", action="store_true", help="from overhead.json, no measuring")
    options = parser.parse_args()
    if options.render:
        text = _read(os.path.join(RESULTS, "overhead.json"))
    else:
        text = measure_all(max(3, options.rounds)).to_json()
    print(render(text), end="")


if __name__ == "__main__":
    main()
