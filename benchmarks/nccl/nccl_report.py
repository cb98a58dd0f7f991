"""What a script prints: on the screen, and into a file with the versions on top."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from nccl_launch import ROOT

if TYPE_CHECKING:
    from nccl_launch import Outcome


class Report:
    """Lines, and how many rows were not as expected."""

    def __init__(self, path: str | None) -> None:
        """Begin; `path` is a file that gets the lines, too."""
        self.file = open(path, "w") if path else None  # noqa: SIM115
        self.rows = 0
        self.differences = 0

    def line(self, text: str = "") -> None:
        """Print a line."""
        print(text, flush=True)
        if self.file:
            print(text, file=self.file, flush=True)

    def end(self) -> None:
        """Print the verdict and exit."""
        number = self.differences
        self.line("all as expected" if not number else f"{number} DIFFER from what is expected")
        if self.file:
            self.file.close()
        sys.exit(number > 0)


def machine(report: Report, title: str, outcome: Outcome) -> None:
    """Print what the rows depend on; exit where NCCL does not even start."""
    report.line(title)
    if outcome.trouble:
        report.line(f"NCCL does not start here: {outcome.trouble}")
        report.differences += 1
        report.end()
    answer = outcome.answers[0]
    sys.path.insert(0, ROOT)
    from eplb_launch import __version__

    report.line(f"\ndevice       {answer['device']}, {answer['sms']} SMs, one of {answer['gpus']}")
    report.line(
        f"driver       {driver()}, {platform.system()} {platform.release().partition('-')[0]}"
    )
    report.line(f"NCCL         {answer['nccl']}, as it says itself")
    report.line(f"PyTorch      {answer['torch']}, CUDA {answer['cuda']}")
    report.line(f"Python       {answer['python']}")
    report.line(f"eplb-launch  {__version__}")
    kept = {
        n: v for n, v in outcome.environ.items() if n.startswith("NCCL_") and n != "NCCL_VERSION"
    }
    shown = " ".join(f"{name}={value}" for name, value in sorted(kept.items()))
    report.line(f"everywhere   {shown or 'no NCCL variables'}")


def shorten(line: str) -> str:
    """Return a line of NCCL's log without the host, the process and the thread."""
    return re.sub(r"^\S+:\d+:\d+ ", "", line)


def driver() -> str:
    """Return the driver, as nvidia-smi says it, and the CPUs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "driver not known"
    query = ["--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(
        [program, *query], capture_output=True, text=True, timeout=60, check=False
    )
    return (done.stdout.strip().splitlines() or ["driver not known"])[0] + _count()


def _count() -> str:
    return f", {os.cpu_count()} CPUs"
