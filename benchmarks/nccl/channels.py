"""Start NCCL through eplb-launch and compare what it does with what is expected of it.

NCCL says in its log what it has read and how many channels it has; the profiler says how many
blocks its send/receive kernel has. Needs one NVIDIA GPU and PyTorch. Exit status 1 where anything
differs.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import nccl_rows as rows
from nccl_launch import ROOT, Bench, Launch, Outcome
from nccl_report import Report, machine, shorten

sys.path.insert(0, ROOT)
from eplb_launch.nccl import variables as nccl
from eplb_launch.vllm import releases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nccl_rows import Row

    Result = tuple[Outcome, list[str]]  # and what is not as expected

WIDTH = 46


def modelled(outcome: Outcome) -> tuple[int, int] | None:
    """Return the channels that eplb-launch computes from the same variables and files."""
    answer = outcome.answers[0]
    version = tuple(int(part) for part in answer["nccl"].split("."))
    vllm = next(
        (
            f"0.{minor}.0"
            for minor in range(12, 60)
            if releases.release_of(f"0.{minor}.0").nccl == (version,)
        ),
        None,
    )
    if vllm is None:
        return None  # eplb-launch does not know which vLLM has this NCCL
    environ = dict(outcome.environ)
    if answer["variable"] is not None:
        environ[releases.VARIABLE] = answer["variable"]
    (reading,) = nccl.readings(environ, vllm)
    values = {name: value.text for name, value in reading.items()}
    return nccl.channels(values)


def judge(row: Row, outcome: Outcome) -> list[str]:
    """Return what is not as expected."""
    if outcome.trouble:
        return [outcome.trouble]
    wrong = []
    channels = outcome.channels
    if channels is None:
        return ["NCCL does not say how many channels it has"]
    for rank, answer in enumerate(outcome.answers):
        seen = (*channels[:2], answer["grid"])
        if seen != row.expected:
            wrong.append(f"rank {rank} has {seen}")
        if answer["variable"] != row.variable:
            wrong.append(f"NCCL_MAX_CTAS is {answer['variable']!r}, not {row.variable!r}")
        if answer.get("correct") is False:
            wrong.append("the received data differ from the sent data")
    wrong += [f"NCCL does not say: {text}" for text in row.log if text not in outcome.log]
    model = modelled(outcome)
    if model is not None and model != channels[:2]:
        wrong.append(f"eplb-launch computes {model}")
    return wrong


def show(report: Report, title: str, table: Sequence[Row], results: Sequence[Result]) -> None:
    """Print a table of expected against seen."""
    report.line(f"\n{title}\n")
    head = f"{'':{WIDTH}}{'NCCL_MAX_CTAS':>15}   {'expected':14}{'seen':14}"
    report.line(head.rstrip())
    for row, (outcome, wrong) in zip(table, results, strict=True):
        answer = outcome.answers[0] if outcome.answers else {}
        channels = outcome.channels or ("?", "?")
        seen = "/".join(str(part) for part in (*channels[:2], answer.get("grid", "?")))
        expected = "/".join(str(part) for part in row.expected)
        variable = answer.get("variable")
        shown = "unset" if variable is None else f'"{variable}"'
        verdict = "DIFFERS" if wrong else "ok"
        name = ascii(row.name)[1:-1] if not row.name.isascii() else row.name
        shown = ascii(shown)[1:-1] if not shown.isascii() else shown
        report.line(f"{name:{WIDTH}}{shown:>15}   {expected:14}{seen:14}{verdict}")
        for text in wrong:
            report.line(f"    {text}")
        report.differences += bool(wrong)
        report.rows += 1


def conf_files() -> list[str]:
    """Return the conf files on this machine that would change the rows."""
    home = pwd.getpwuid(os.getuid()).pw_dir
    return [p for p in (f"{home}/.nccl.conf", "/etc/nccl.conf") if os.path.lexists(p)]


def with_home_file(bench: Bench, jobs: int) -> list[Result]:
    """Run the rows that need a .nccl.conf in the user's home, and remove it again."""
    path = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".nccl.conf")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(rows.FOUR)
        return start_all(bench, rows.REAL_HOME, jobs)
    finally:
        os.unlink(path)


def start_all(bench: Bench, table: Sequence[Row], jobs: int) -> list[Result]:
    """Start the rows, some at a time: they share the GPU without disturbing each other."""

    def start(row: Row) -> Result:
        outcome = bench.run(row.launch)
        return outcome, judge(row, outcome)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(start, table))


def quote(report: Report, capped: Outcome) -> None:
    """Print what NCCL said, in its own words, and its kernel."""
    answer = capped.answers[0] if capped.answers else {}
    report.line("\nOf the second row, NCCL's own log (rank 0):\n")
    wanted = ("NCCL version", "NCCL_MAX_CTAS", "NCCL_MIN_CTAS", "coll channels", "Init COMPLETE")
    for line in capped.log.splitlines():
        if any(text in line for text in wanted):
            report.line("    " + shorten(line))
    if answer:
        kernel, threads, registers = answer["kernel"], answer["threads"], answer["registers"]
        report.line(f"\nIts kernel: {kernel}, {answer['grid']} blocks of {threads} threads of")
        report.line(f"{registers} registers, by PyTorch's profiler")


def main() -> None:
    """Run all rows and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", help="write what is printed to this file, too")
    parser.add_argument("--jobs", type=int, default=6, help="rows at a time")
    parser.add_argument(
        "--write-home",
        action="store_true",
        help="also write .nccl.conf into your home, which must not have one, and remove it again",
    )
    options = parser.parse_args()
    found = conf_files()
    if found:
        parser.exit(2, f"the rows mean nothing beside {' and '.join(found)}\n")
    begin = time.monotonic()
    report = Report(options.output)
    with tempfile.TemporaryDirectory(prefix="eplb-nccl-") as directory:
        bench = Bench(directory)
        first = bench.run(Launch("count", None))
        machine(report, "NCCL, started through eplb-launch", first)
        version = tuple(int(part) for part in first.answers[0]["nccl"].split("."))
        report.line("\nChannels for collectives / for send and receive, by NCCL's log, and the")
        report.line("blocks of the send/receive kernel, by the profiler")
        files = (*rows.FILES, *rows.home_rows(version))
        sections = (
            ("Two ranks on one GPU: what reaches NCCL", rows.REACHES),
            ("One rank: beside NCCL_MAX_CTAS=8, set by eplb-launch", rows.BESIDE),
            ("One rank, without eplb-launch: how NCCL reads NCCL_MAX_CTAS", rows.VALUES),
            ("One rank: NCCL_MAX_CTAS is set already when eplb-launch starts", rows.GIVEN),
            ("One rank: what the file says that NCCL_CONF_FILE names", files),
        )
        results = start_all(bench, [row for _, table in sections for row in table], options.jobs)
        place = 0
        for title, table in sections:
            show(report, title, table, results[place : place + len(table)])
            if place == 0:
                quote(report, results[1][0])
            place += len(table)
        if options.write_home:
            homes = with_home_file(bench, options.jobs)
            show(report, "One rank: NCCL_MAX_CTAS=4 in ~/.nccl.conf", rows.REAL_HOME, homes)
            results += homes
    said = [line for outcome, _ in results for line in outcome.said]
    report.line("\nWhat eplb-launch said, each line once:\n")
    for line in dict.fromkeys(said):
        report.line("    " + re.sub(re.escape(directory) + r"/\w+", "TMP", line))
    report.line(f"\n{report.rows} rows in {time.monotonic() - begin:.0f} s")
    report.end()


if __name__ == "__main__":
    main()
