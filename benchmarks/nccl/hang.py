"""Show the hang, and that the cap prevents it: NCCL beside a stand-in for DeepEP's dispatch.

Two ranks, each started through eplb-launch or without it. NCCL and its send/receive kernel are
the real ones. DeepEP's dispatch is a kernel that stands in for it: the same grid, 1024 threads a
block, one block on an SM, launched cooperatively. Needs one NVIDIA GPU and PyTorch. Nothing is
left behind: what blocks is released again, and what does not end is killed. Exit status 1 where
anything is not as expected.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nccl_launch import ROOT, TWO_ON_ONE, Bench, Launch, Outcome
from nccl_report import Report, machine

sys.path.insert(0, ROOT)
from eplb_launch.deepep.grids import fit, grid, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

HOLD_SECONDS = 2.0  # that dispatch is given to start, where it needs less than a millisecond
CIRCLE_SECONDS = 2.5  # that both ranks are given to end, where they need some 20 milliseconds
EXPERTS = (144, 288, 256)  # physical ones
SPREAD = 25  # SMs, of which at least 4 are in one of the 8 groups (GPCs) that a GPU has at most
CLUSTER = 4  # blocks of NCCL's kernel that start together, in one GPC (NCCL_CGA_CLUSTER_SIZE)
ALONE = {"NCCL_CGA_CLUSTER_SIZE": "0"}

HEAD = """
NCCL's kernel is the real one; dispatch is a stand-in for DeepEP's, with the grid that DeepEP's
source gives for so many physical experts, each block alone or in pairs (clusters, as DeepEP has
them). What blocks is looked at for some seconds and then released, to show that it only waited."""
HOLD = """
  One rank: its NCCL receives, dispatch is to start beside it, and the peer sends only later"""
BEHIND = """
  Both ranks: rank 0 starts NCCL, then dispatch; rank 1 dispatch, then NCCL in the same stream.
  Each dispatch waits for the other, as each NCCL does"""
BESIDE = """
  The same, but rank 1 starts NCCL in another stream, on the SMs that its dispatch leaves"""


@dataclass(frozen=True)
class Case:
    """A way to start the server."""

    name: str
    launcher: tuple[str, ...] | None
    ctas: int | None  # that NCCL has to have then; None: more than 8
    experts: int = 256
    tables: tuple[str, ...] = (HOLD, BEHIND, BESIDE)
    cluster: int = CLUSTER


def cases(sms: int, gpus: int) -> list[Case]:
    """Return the cases for GPUs with this number of SMs."""
    options = ("--max-ctas", "fit", "--sms", str(sms))
    words = " ".join(("eplb-launch", *options))
    calls = tokens({}, {}, 20)
    few = (BEHIND, BESIDE)
    return [
        Case("without eplb-launch", None, 64 if gpus == 1 else None),
        Case("eplb-launch", (), 8),
        Case(f"{words}, a model of 256 experts", options, fit(sms, 256, calls).cap),
        Case(f"{words}, a model of 144 experts", options, fit(sms, 144, calls).cap, 144, few),
        Case("NCCL_CGA_CLUSTER_SIZE=0 eplb-launch", (), 8, tables=(BESIDE,), cluster=1),
    ]


def launch_of(case: Case, sms: int, gpus: int) -> Launch:
    """Return how a case is started, with its trials."""
    counts = EXPERTS if case.experts == 256 else (case.experts,)
    grids = [grid(count, sms) for count in counts]
    left = (24, 12, 8, 6, 2, 0) if len(case.tables) != 2 else ()
    more = dict.fromkeys((*grids, *(sms - number for number in left)))
    hold = [(blocks, pairs) for pairs in (0, 1) for blocks in grids]
    behind = [(blocks, pairs, 1) for pairs in (0, 1) for blocks in grids]
    beside = [(blocks, pairs, 0) for pairs in (0, 1) for blocks in more]
    job = {
        "hold": hold if HOLD in case.tables else [],
        "circle": (behind if BEHIND in case.tables else []) + beside,
        "hold_seconds": HOLD_SECONDS,
        "circle_seconds": CIRCLE_SECONDS,
    }
    environ = {**(TWO_ON_ONE if gpus == 1 else {}), **(ALONE if case.cluster == 1 else {})}
    return Launch(
        "hang",
        case.launcher,
        environ,
        experts=case.experts,
        ranks=2,
        gpus=gpus,
        # Enough for NCCL to take all its channels: over NVLink it was seen to take half of them
        # for 64 MiB.
        mib=64 if gpus == 1 else 512,
        seconds=180,
        job=job,
    )


def expected_of(trial: dict[str, Any], ctas: int, sms: int, cluster: int) -> bool | None:
    """Return whether all gets through; None where it depends on which SMs are left."""
    blocks = trial["blocks"]
    if blocks + ctas <= sms:
        return True
    if "behind" not in trial or trial["behind"]:
        return False
    # Rank 1's NCCL gets through beside dispatch if its blocks can take turns, a cluster at a time.
    left = sms - blocks
    if left < cluster or (cluster > 1 and blocks == grid(256, sms)):
        return False  # the latter as seen: the four SMs that are left are not in one GPC
    return True if cluster == 1 or left >= SPREAD else None


def judge_hold(trial: dict[str, Any], free: int, *, expected: bool | None) -> list[str]:
    """Return what is not as expected of a trial with one rank's kernels."""
    wrong = []
    if trial["free"] != free:
        wrong.append(f"{trial['free']} SMs are free, not {free}")
    if trial["ran"] != expected:
        wrong.append("not what the numbers say")
    if not trial["in_place"]:
        wrong.append("NCCL's kernel ended before its peer had sent: the trial shows nothing")
    if not trial["after"]:
        wrong.append("did not end after NCCL's kernel had")
    elif not trial["correct"]:
        wrong.append("NCCL received something else than was sent")
    return wrong


def judge_circle(pair: Sequence[dict[str, Any]], *, expected: bool | None) -> list[str]:
    """Return what is not as expected of a trial with both ranks."""
    wrong = []
    for rank, trial in enumerate(pair):
        if expected is not None and trial["ran"] != expected:
            wrong.append(f"rank {rank}: not as expected")
        # Rank 0's dispatch cannot start, rank 1's waits for it, and both NCCLs wait.
        if not trial["ran"] and trial["state"] != {"dispatch": rank == 1, "nccl": False}:
            wrong.append(f"rank {rank}: not the hang that is meant: {trial['state']}")
        if not trial["after"]:
            wrong.append(f"rank {rank}: did not end after rank 1's dispatch had given up")
        elif not trial["correct"]:
            wrong.append(f"rank {rank}: NCCL received something else than was sent")
    return wrong


def result(
    report: Report,
    trials: Sequence[dict[str, Any]],
    sms: int,
    wrong: list[str],
    *,
    expected: bool | None,
) -> None:
    """Print a row."""
    trial = trials[0]
    experts = [str(count) for count in EXPERTS if grid(count, sms) == trial["blocks"]]
    label = f"{trial['blocks']} blocks" + (" in pairs" if trial["pairs"] else "")
    label += f", {' '.join(experts)} experts" if experts else ""
    seconds = max(one["seconds"] for one in trials)
    if all(one["ran"] for one in trials):
        seen = f"ran in {seconds * 1000:.1f} ms"
    else:
        released = all(one["after"] for one in trials)
        seen = f"blocked {seconds:.1f} s, {'then ran' if released else 'STUCK'}"
    text = {True: "runs", False: "blocks", None: "either"}[expected]
    report.line(f"    {label:36}{text:10}{seen:26}{'DIFFERS' if wrong else 'ok'}")
    for line in wrong:
        report.line(f"        {line}")
    report.rows += 1
    report.differences += bool(wrong)


def show(report: Report, case: Case, outcome: Outcome, sms: int) -> None:
    """Print all trials of a case."""
    variable = outcome.answers[0]["variable"] if outcome.answers else None
    report.line(f"\n{case.name}: NCCL_MAX_CTAS {'unset' if variable is None else variable}")
    for line in outcome.said:
        report.line(f"  {line}")
    if outcome.trouble or outcome.channels is None:
        report.line(f"  FAILED: {outcome.trouble or 'NCCL says nothing'}")
        report.rows += 1
        report.differences += 1
        return
    ctas = outcome.channels[2]
    wrong = ctas <= 8 if case.ctas is None else ctas != case.ctas
    report.differences += wrong
    report.line(f"  NCCL takes {ctas} CTAs{': NOT EXPECTED' if wrong else ''}")
    first, second = outcome.answers
    if HOLD in case.tables:
        free = sorted({trial["free"] for trial in first["hold"]})
        report.line(f"  SMs that its kernel leaves, by a probe: {free} of {sms}")
        report.line(HOLD)
        for trial in first["hold"]:
            expected = expected_of(trial, ctas, sms, case.cluster)
            wrongs = judge_hold(trial, sms - ctas, expected=expected)
            result(report, [trial], sms, wrongs, expected=expected)
    for title, behind in ((BEHIND, True), (BESIDE, False)):
        if title in case.tables:
            report.line(title)
        for pair in zip(first["circle"], second["circle"], strict=True):
            if pair[0]["behind"] is behind:
                expected = expected_of(pair[0], ctas, sms, case.cluster)
                wrongs = judge_circle(pair, expected=expected)
                result(report, pair, sms, wrongs, expected=expected)


def main() -> None:
    """Run all cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", help="write what is printed to this file, too")
    parser.add_argument(
        "--gpus",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: a rank on each, as NCCL connects them, with none of its variables set",
    )
    options = parser.parse_args()
    begin = time.monotonic()
    report = Report(options.output)
    with tempfile.TemporaryDirectory(prefix="eplb-nccl-") as directory:
        bench = Bench(directory)
        first = bench.run(Launch("count", None))
        machine(report, "The hang: NCCL's send/receive kernel beside DeepEP's dispatch", first)
        sms = first.answers[0]["sms"]
        if options.gpus == 1:
            report.line("ranks        two on one GPU, which NCCL takes for two hosts")
            report.line(f"their NCCL   {' '.join(f'{n}={v}' for n, v in TWO_ON_ONE.items())}")
        else:
            report.line("ranks        two, a GPU each")
        report.line(HEAD)
        for case in cases(sms, options.gpus):
            show(report, case, bench.run(launch_of(case, sms, options.gpus)), sms)
    report.line(f"\n{report.rows} rows in {time.monotonic() - begin:.0f} s")
    report.end()


if __name__ == "__main__":
    main()
