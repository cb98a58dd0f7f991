"""Show the hang and the cap with DeepEP's own kernels: expected beside seen.

Needs two NVIDIA GPUs with NVLink, PyTorch and `deep_ep`. Both ranks are started through
eplb-launch or without it. NCCL and DeepEP are the real ones, and with --vllm so is the exchange of
the experts. A hang is looked at for some seconds, then the processes are ended; nothing is left
behind. Exit status 1 where anything is not as expected.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deepep_launch import ROOT, VLLM, Bench, Launch, Trial
from deepep_rows import (
    HANGS,
    MAY_RUN,
    busy,
    combine,
    cost,
    exchange,
    expected,
    fixed,
    grids,
    large,
    largest,
    nccl_expected,
    orders,
)

sys.path.insert(0, ROOT)
sys.path.append(os.path.join(ROOT, "benchmarks", "nccl"))
from nccl_report import Report, driver

from eplb_launch import __version__
from eplb_launch.deepep.grids import grid

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLES = ("grids", "cost", "exchange", "large", "fixed", "orders", "busy")
# What makes two trials of a start the same one.
TRIAL = ("experts", "tokens", "batches", "move", "mib", "model", "swaps", "order", "seed")
MISSING = """{name} is not installed. PyTorch: https://pytorch.org. DeepEP: how to build it and what
it needs is said in README.md of https://github.com/deepseek-ai/DeepEP."""


class Tables:
    """Runs launches and prints their rows; keeps all answers."""

    def __init__(self, bench: Bench, report: Report, limit: float, note: str, kept: str) -> None:
        """Begin; after `limit` seconds nothing is started. `kept` is a file for all answers."""
        self.bench = bench
        self.report = report
        self.end = time.monotonic() + limit
        self.note = note
        self.facts: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []
        self.left_out = 0
        self.kept = kept
        self.known: set[tuple[Any, ...]] = set()

    def skip(self, path: str) -> None:
        """Leave out what another run has answered."""
        with open(path) as file:
            answers = json.load(file)["answers"]
        self.known.update(_key(answer["launch"], answer) for answer in answers)

    def run(self, title: str, launches: Iterable[Launch]) -> None:
        """Run some launches and print a table."""
        line = self.report.line
        line(f"\n{title}")
        for whole in launches:
            trials = tuple(
                trial
                for trial in whole.trials
                if _key(whole.name, trial.as_dict()) not in self.known
            )
            if not trials:
                continue
            launch = replace(whole, trials=trials)
            if time.monotonic() > self.end:
                self.left_out += 1
                line(f"\n{launch.name}: left out, no time")
                continue
            outcome = self.bench.run(launch)
            if not self.facts and outcome.facts:
                self.facts = outcome.facts
                self.head()
            variable = outcome.rows[0][1]["variable"] if outcome.rows else None
            if launch.name != "grids":
                line(f"\n{launch.name}: NCCL_MAX_CTAS {'unset' if variable is None else variable}")
            for said in outcome.said:
                line(f"  {said}")
            if outcome.rows:
                self.columns(launch)
            for trial, answer in outcome.rows:
                self.answers.append({"launch": launch.name, **trial.as_dict(), **answer})
                self.row(launch, trial, answer)
            if outcome.trouble:
                self.wrong(f"FAILED: {outcome.trouble}")
            self.keep()

    def keep(self) -> None:
        """Write all answers so far."""
        if self.kept:
            with open(self.kept, "w") as file:
                json.dump({"facts": self.facts, "answers": self.answers}, file, indent=1)
                file.write("\n")

    def wrong(self, text: str) -> None:
        """Print what is not as expected."""
        self.report.line(f"        {text}")
        self.report.differences += 1

    def columns(self, launch: Launch) -> None:
        """Print the names of the columns."""
        if launch.name == "grids":
            self.report.line("    experts  tokens  dispatch  seen  combine  seen")
        elif not launch.trials[0].moves:
            self.report.line(f"    {'moved':36}{'blocks':>6}{'time':>10}")
        else:
            self.report.line(
                f"    {'experts':8}{'tokens':16}{'moved':>6}{'DeepEP':>8}{'NCCL':>6}  "
                f"{'expected':10}seen"
            )

    def row(self, launch: Launch, trial: Trial, answer: dict[str, Any]) -> None:
        """Print a row, and whether it is as expected."""
        sms = self.facts["sms"]
        self.report.rows += 1
        blocks = grid(trial.experts, sms), combine(trial.experts, trial.tokens, sms)
        seen = answer["dispatch"], answer["combine"]
        if launch.name == "grids":
            ok = seen == ([blocks[0]], [blocks[1]])
            shown = [", ".join(map(str, numbers)) for numbers in seen]
            self.report.line(
                f"    {trial.experts:<9}{trial.tokens:<8}{blocks[0]:<10}{shown[0]:<6}"
                f"{blocks[1]:<9}{shown[1]:<6}{'ok' if ok else 'DIFFERS'}"
            )
            self.report.differences += not ok
            return
        cap = answer["variable"] and int(answer["variable"])
        nccl = nccl_expected(trial, cap)
        if answer["nccl"] != [nccl]:
            self.wrong(f"blocks of NCCL's kernel in the next row: {answer['nccl']}, not {nccl}")
        if "hangs" not in answer:
            what = f"{trial.mib} MiB" + (", and to itself" if trial.move == "both" else "")
            if trial.move == "vllm":
                what = f"{answer['experts_moved']} of {trial.experts} experts, {trial.model}"
            self.report.line(f"    {what:36}{nccl:>6}{answer['move_ms']:>10.2f} ms")
            return
        expects = expected(trial, nccl, sms, launch.environ)
        ok = expects == MAY_RUN or (expects == HANGS) == answer["hangs"]
        tokens = {"fixed": f"{trial.tokens}"}.get(
            trial.batches, f"8..{trial.tokens} {trial.batches}"
        )
        model = f", {trial.model}" if trial.move == "vllm" else ""
        order = f", {trial.order}" if trial.order else ""
        deepep = largest(trial, sms)
        self.report.line(
            f"    {trial.experts:<8}{tokens:16}{answer['experts_moved'] or '-':>6}{deepep:>8}"
            f"{nccl:>6}  {expects:10}{_seen(answer)}{model}{order}  {'ok' if ok else 'DIFFERS'}"
        )
        self.report.differences += not ok
        if seen != ([blocks[0]], [blocks[1]]):
            self.wrong(f"blocks of dispatch and combine: {seen}, not {blocks}")

    def head(self) -> None:
        """Print what the rows depend on."""
        facts, line = self.facts, self.report.line
        line(f"\ndevice       two of {facts['device']}, {facts['sms']} SMs")
        line(f"driver       {driver()}")
        line(f"DeepEP       {_deepep()}{self.note}")
        line(f"NCCL         {facts['nccl']}")
        line(f"PyTorch      {facts['torch']}, CUDA {facts['cuda']}, Python {facts['python']}")
        line(f"eplb-launch  {__version__}")
        kept = {n: v for n, v in os.environ.items() if n.startswith(("NCCL_", "NVSHMEM_"))}
        line(f"everywhere   {' '.join(f'{n}={v}' for n, v in sorted(kept.items())) or '-'}")


def _key(launch: str, trial: dict[str, Any]) -> tuple[Any, ...]:
    return (launch, *(trial[name] for name in TRIAL))


def _seen(answer: dict[str, Any]) -> str:
    if "steps" not in answer:
        return "hangs" if answer["hangs"] else "runs"
    if answer["hangs"]:
        return f"hangs (step {answer['steps']}, move {answer['moves']})"
    return f"runs ({answer['steps']} steps, {answer['moves']} moves)"


def _deepep() -> str:
    try:
        return importlib.metadata.version("deep_ep")
    except importlib.metadata.PackageNotFoundError:
        return "release not known"


def _times(report: Report, answers: list[dict[str, Any]]) -> None:
    """Print how long it took to hang."""
    hung = [answer for answer in answers if answer["hangs"]]
    report.line(f"    {len(hung)} of {len(answers)} runs hang")
    for name in ("steps", "moves", "seconds"):
        values = sorted(answer[name] for answer in hung)
        if values:
            middle = statistics.median(values)
            report.line(f"    {name:8} median {middle:g}, from {values[0]:g} to {values[-1]:g}")


def main() -> None:
    """Run the tables and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", help="write what is printed to this file, too")
    parser.add_argument("--json", default="", help="write all answers to this file")
    parser.add_argument(
        "--vllm",
        action="append",
        default=[],
        metavar="X.Y.Z=FOLDER",
        help="a vLLM whose exchange is used: the folder that holds the package vllm",
    )
    parser.add_argument("--tables", default=",".join(TABLES), help="of " + ",".join(TABLES))
    parser.add_argument("--runs", type=int, default=10, help="of the table of times")
    parser.add_argument(
        "--limit", type=float, default=3600, help="seconds; then nothing is started"
    )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="JSON",
        help="leave out what an earlier run has written to this file with --json",
    )
    parser.add_argument("--note", default="", help="about DeepEP as it is installed")
    options = parser.parse_args()
    for name in ("torch", "deep_ep"):
        if importlib.util.find_spec(name) is None:
            sys.exit(MISSING.format(name=name))
    sources = [text.partition("=")[::2] for text in options.vllm]
    wanted = options.tables.split(",")
    begin = time.monotonic()
    report = Report(options.output)
    report.line("DeepEP's low-latency kernels beside NCCL: two ranks, a GPU each")
    note = f" ({options.note})" if options.note else ""
    with tempfile.TemporaryDirectory(prefix="eplb-deepep-") as directory:
        tables = Tables(Bench(directory), report, options.limit, note, options.json)
        for path in options.skip:
            tables.skip(path)
        if "grids" in wanted:
            tables.run("Blocks of DeepEP's kernels, by the formula and by the profiler", grids())
        if "cost" in wanted:
            version, folder = sources[0] if sources else (VLLM, "")
            title = "NCCL's blocks and what a move takes, with nothing beside it"
            tables.run(title, cost(os.path.abspath(folder) if folder else "", version))
        if "exchange" in wanted:
            for version, folder in sources:
                title = f"The experts of a layer, moved by vLLM {version} itself, data checked"
                tables.run(title, exchange(os.path.abspath(folder), version))
        if "large" in wanted:
            sms = tables.facts.get("sms", 132)
            tables.run("One transfer of 512 MiB each way, for which NCCL fills the cap", large(sms))
        if "fixed" in wanted:
            sms = tables.facts.get("sms", 132)
            tables.run("The same transfer, the same number of tokens in every call", fixed(sms))
        if "orders" in wanted:
            title = "Both orders, once: rank 0 NCCL, then dispatch; rank 1 dispatch, then NCCL"
            tables.run(title, orders())
        if "busy" in wanted and sources:
            version, folder = sources[0]
            before = len(tables.answers)
            title = "How long it takes to hang, with batches as a busy server has them"
            tables.run(title, busy(os.path.abspath(folder), version, options.runs))
            _times(report, tables.answers[before:])
    if tables.left_out:
        report.line(f"\n{tables.left_out} starts left out")
    report.line(f"\n{report.rows} rows in {time.monotonic() - begin:.0f} s")
    report.end()


if __name__ == "__main__":
    main()
