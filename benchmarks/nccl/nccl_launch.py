"""Start workers as vLLM would be started, `eplb-launch -- vllm serve …`, and end them in time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VLLM = (
    "0.20.2"  # the release with the PyTorch and the NCCL that the tables were first measured with
)
# The hang, in that release: all four conditions, and weights that move over NCCL.
ARGUMENTS = (
    *("--data-parallel-size", "2", "--enable-expert-parallel", "--enable-eplb"),
    *("--eplb-config.use_async", "true", "--eplb-config.communicator", "pynccl"),
    *("--all2all-backend", "deepep_low_latency"),
)
# What a row may set, and what would change the rows. All else, such as NCCL_NVLS_ENABLE, stays.
CLEARED = re.compile(
    r"(NCCL_(MAX|MIN)_.*|NCCL_NCHANNELS_.*|NCCL_.*_NCHANNELS|NCCL_CONF_FILE|NCCL_ENV_PLUGIN"
    r"|NCCL_HOSTID|NCCL_CGA_.*|NCCL_DEBUG.*|VLLM_.*)"
)
# Two ranks on one GPU take each other for a mistake unless they seem to be on two hosts. They talk
# over sockets then, for which NCCL takes two channels; with these it takes as many as over NVLink
# on a large node, up to the limit. NCCL_MIN_CTAS does not raise the limit.
TWO_ON_ONE = {"NCCL_MIN_CTAS": "64", "NCCL_NCHANNELS_PER_NET_PEER": "64"}

_CHANNELS = re.compile(r"(\d+) coll channels, .*?(\d+) p2p channels, (\d+) p2p channels per peer")


@dataclass(frozen=True)
class Launch:
    """What is started, on every rank alike."""

    role: str
    launcher: tuple[str, ...] | None = ()  # options of eplb-launch; None: start without it
    environ: Mapping[str, str] = field(default_factory=dict)
    conf: str | None = None  # the content of the file that NCCL_CONF_FILE names
    home: str | None = None  # the content of .nccl.conf in a $HOME of its own
    experts: int = 256  # of the model
    ranks: int = 1
    gpus: int = 1
    mib: int = 128  # that are sent
    seconds: float = 120  # after which all is killed
    job: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a launch."""

    said: tuple[str, ...]  # by the launcher
    log: str  # NCCL's, of rank 0
    answers: tuple[dict[str, Any], ...]  # by rank; empty if it failed
    trouble: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)  # as it was before the launcher

    @property
    def channels(self) -> tuple[int, int, int] | None:
        """For collectives, for send and receive, and for those with one peer, by NCCL's log."""
        found = _CHANNELS.findall(self.log)
        return (int(found[-1][0]), int(found[-1][1]), int(found[-1][2])) if found else None


class Bench:
    """A directory with a `vllm` in it, for PATH, and all that a run writes."""

    def __init__(self, directory: str) -> None:
        """Write its files into an empty directory."""
        self.directory = directory
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and end the ranks
        os.mkdir(self._path("bin"))
        with open(self._path("bin", "vllm"), "w") as file:
            file.write(f"#!{sys.executable}\n")
            file.write(f"import sys\nsys.path.insert(0, {HERE!r})\n")
            file.write("import nccl_worker\nnccl_worker.main()\n")
        os.chmod(self._path("bin", "vllm"), 0o700)

    def run(self, launch: Launch) -> Outcome:
        """Start all ranks, wait, kill what is left; never longer than `launch.seconds`."""
        directory = tempfile.mkdtemp(dir=self.directory)
        with open(os.path.join(directory, "board"), "wb") as board:
            board.truncate(4096)
        environ = self._environ(launch, directory)
        # A model with this number of experts: only its config.json.
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump({"model_type": "deepseek_v3", "n_routed_experts": launch.experts}, file)
        command = ["vllm", "serve", directory, *ARGUMENTS]
        if launch.launcher is not None:
            options = ["--vllm-version", VLLM, *launch.launcher]
            command = [sys.executable, "-m", "eplb_launch", *options, "--", *command]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(launch.ranks):
                process = _start(command, environ, launch, directory, rank)
                processes.append(process)  # each at once: all of them are ended below
            trouble = _wait(processes, launch.seconds)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said = [_text(directory, f"stderr.{rank}") for rank in range(launch.ranks)]
        lines = [line for line in said[0].splitlines() if line.startswith("eplb-launch: ")]
        answers = [_answer(directory, rank) for rank in range(launch.ranks)]
        if not trouble and [answer.get("pid") for answer in answers] != [p.pid for p in processes]:
            trouble = "the worker is not the process that was started"
        if trouble:
            ends = [line for text in said for line in text.strip().splitlines()[-6:]]
            trouble = "\n        ".join((trouble, *ends))
            answers = []
        log = _text(directory, "nccl.0")
        return Outcome(tuple(lines), log, tuple(answers), trouble, environ)

    def _environ(self, launch: Launch, directory: str) -> dict[str, str]:
        environ = {n: v for n, v in os.environ.items() if not CLEARED.fullmatch(n)}
        environ["PATH"] = self._path("bin") + ":" + environ.get("PATH", "/usr/bin:/bin")
        environ["PYTHONPATH"] = ROOT + ":" + environ.get("PYTHONPATH", "")
        environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        if launch.conf is not None:
            environ["NCCL_CONF_FILE"] = os.path.join(directory, "nccl.conf")
            with open(environ["NCCL_CONF_FILE"], "w", newline="") as file:
                file.write(launch.conf)
        if launch.home is not None:
            environ["HOME"] = directory
            with open(os.path.join(directory, ".nccl.conf"), "w") as file:
                file.write(launch.home)
        environ.update(launch.environ)
        return environ

    def _path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)


def _start(
    command: Sequence[str],
    environ: Mapping[str, str],
    launch: Launch,
    directory: str,
    rank: int,
) -> subprocess.Popen[bytes]:
    job = {
        "role": launch.role,
        "rank": rank,
        "ranks": launch.ranks,
        "gpus": launch.gpus,
        "mib": launch.mib,
        "alarm": int(launch.seconds),
        "directory": directory,
        **launch.job,
    }
    extra = {
        "EPLB_BENCH_JOB": json.dumps(job),
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,ENV",
        "NCCL_DEBUG_FILE": os.path.join(directory, f"nccl.{rank}"),
    }
    if launch.ranks > launch.gpus:
        extra["NCCL_HOSTID"] = f"host-{rank}"
    with (
        open(os.path.join(directory, f"stderr.{rank}"), "wb") as errors,
        open(os.path.join(directory, f"stdout.{rank}"), "wb") as output,
    ):
        return subprocess.Popen(
            command,
            env={**environ, **extra},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> str:
    """Wait until all have ended well, or until one has not; return what went wrong."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        statuses = [process.poll() for process in processes]
        if any(statuses):
            return f"exit statuses {statuses}"
        if None not in statuses:
            return ""
        time.sleep(0.05)
    return f"killed after {seconds} s"


def _text(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _answer(directory: str, rank: int) -> dict[str, Any]:
    text = _text(directory, f"answer.{rank}.json")
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
