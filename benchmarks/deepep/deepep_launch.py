"""Start both ranks as vLLM would be started, behind eplb-launch, and end them in time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
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
VLLM = "0.16.0"  # where nothing of vLLM is called: the last release without a rule of its own
ARGUMENTS = (
    *("--data-parallel-size", "2", "--enable-expert-parallel", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
)
START_SECONDS = 60  # for PyTorch, NCCL and NVSHMEM to come up
CLEARED = re.compile(r"(NCCL_(MAX|MIN)_.*|NCCL_.*NCHANNELS.*|NCCL_CONF_FILE|NCCL_CGA_.*|VLLM_.*)")
# Both ranks are here: no other network is needed. A kernel that is loaded at its first launch may
# wait for the very kernels that it is to run beside.
HOST = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "lo",
    "NVSHMEM_REMOTE_TRANSPORT": "none",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "CUDA_MODULE_LOADING": "EAGER",
}


@dataclass(frozen=True)
class Trial:
    """What is done with one number of experts, and tokens of a rank."""

    experts: int
    tokens: int
    batches: str = "fixed"  # "varied": multiples of 8 up to `tokens`; "busy": as a server has them
    # "large": one transfer; "both": the same, to itself as well; "vllm": vLLM's exchange; "none"
    move: str = "large"
    mib: int = 512  # of the transfer
    model: str = "Qwen3-30B"
    swaps: int | None = None  # experts that change places; None: all are dealt anew
    steps: int = 8000
    moves: int = 300
    order: str = ""  # "same stream", "two streams": both orders, once
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it for a job."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Launch:
    """A way to start the server, and what is tried in it, in this order."""

    name: str
    launcher: tuple[str, ...] | None  # options of eplb-launch; None: start without it
    trials: tuple[Trial, ...]
    vllm: str = ""  # a folder with vLLM's sources
    version: str = VLLM
    communicator: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    experts: int = 256  # of the model, as far as eplb-launch sees it


@dataclass(frozen=True)
class Outcome:
    """The outcomes of the trials."""

    facts: dict[str, Any]  # of rank 0; empty where it did not come up
    rows: tuple[tuple[Trial, dict[str, Any]], ...]  # a trial, and both ranks' answers as one
    said: tuple[str, ...]  # by the launcher
    trouble: str = ""


class Bench:
    """A directory with a `vllm` in it, for PATH, and all that a run writes."""

    def __init__(self, directory: str) -> None:
        """Write its files into an empty directory."""
        self.directory = directory
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and end the ranks
        os.mkdir(os.path.join(directory, "bin"))
        path = os.path.join(directory, "bin", "vllm")
        with open(path, "w") as file:
            file.write(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {HERE!r})\n")
            file.write("import deepep_worker\ndeepep_worker.main()\n")
        os.chmod(path, 0o700)

    def run(self, launch: Launch) -> Outcome:
        """Do all trials of a launch; after a hang the rest in new processes."""
        left = list(launch.trials)
        rows: list[tuple[Trial, dict[str, Any]]] = []
        facts: dict[str, Any] = {}
        said: tuple[str, ...] = ()
        while left:
            found, answers, said, trouble = self._start(launch, left)
            facts = facts or found
            rows += zip(left, answers, strict=False)
            if trouble:
                return Outcome(facts, tuple(rows), said, trouble)
            left = left[len(answers) :]
        return Outcome(facts, tuple(rows), said)

    def _start(
        self, launch: Launch, trials: Sequence[Trial]
    ) -> tuple[dict[str, Any], list[dict[str, Any]], tuple[str, ...], str]:
        directory = tempfile.mkdtemp(dir=self.directory)
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump({"model_type": "deepseek_v3", "n_routed_experts": launch.experts}, file)
        command = ["vllm", "serve", directory, *ARGUMENTS]
        if launch.communicator:
            command += ["--eplb-config.communicator", launch.communicator]
        if launch.launcher is not None:
            options = ["--vllm-version", launch.version, *launch.launcher]
            command = [sys.executable, "-m", "eplb_launch", *options, "--", *command]
        seconds = START_SECONDS + 30 * len(trials)
        meeting = f"tcp://127.0.0.1:{_free_port()}"
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in (0, 1):
                job = {
                    "rank": rank,
                    "meeting": meeting,
                    "directory": directory,
                    "alarm": seconds,
                    "vllm": launch.vllm,
                    "communicator": launch.communicator,
                    "trials": [trial.as_dict() for trial in trials],
                }
                with open(os.path.join(directory, f"log.{rank}"), "wb") as log:
                    processes.append(
                        subprocess.Popen(
                            command,
                            env=self._environ(launch, job),
                            cwd=directory,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
            trouble = _wait(processes, seconds)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        logs = [_text(directory, f"log.{rank}") for rank in (0, 1)]
        said = tuple(line for line in logs[0].splitlines() if line.startswith("eplb-launch: "))
        first, second = (_answers(directory, rank) for rank in (0, 1))
        if first and second and [first[0]["pid"], second[0]["pid"]] != [p.pid for p in processes]:
            trouble = "the worker is not the process that was started"
        answers = [_both(*pair) for pair in zip(first[1:], second[1:], strict=False)]
        if answers and answers[-1].get("hangs"):
            trouble = ""  # the ranks ended themselves
        elif trouble or len(answers) < len(trials):
            ends = [line for text in logs for line in text.strip().splitlines()[-8:]]
            trouble = "\n        ".join((trouble or "ended too early", *ends))
        return (first[0] if first else {}), answers, said, trouble

    def _environ(self, launch: Launch, job: Mapping[str, Any]) -> dict[str, str]:
        environ = {n: v for n, v in os.environ.items() if not CLEARED.fullmatch(n)}
        environ["PATH"] = self.directory + "/bin:" + environ.get("PATH", "/usr/bin:/bin")
        environ["PYTHONPATH"] = ROOT + ":" + environ.get("PYTHONPATH", "")
        for name, value in HOST.items():
            environ.setdefault(name, value)
        return {**environ, **launch.environ, "EPLB_BENCH_JOB": json.dumps(job)}


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return rank 0's answer, with rank 1's where they may differ."""
    answer = dict(first)
    if "hangs" in first:
        answer["hangs"] = first["hangs"] or second["hangs"]
    for name in ("nccl", "dispatch", "combine"):
        if name in first:
            answer[name] = sorted({*first[name], *second[name]})
    return answer


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> str:
    """Wait until both have ended; a rank without the other has a few seconds more."""
    end = time.monotonic() + seconds
    alone: float | None = None
    while time.monotonic() < end:
        statuses = [process.poll() for process in processes]
        if None not in statuses:
            return f"exit statuses {statuses}" if any(statuses) else ""
        if statuses != [None, None]:
            alone = alone or time.monotonic()
            if time.monotonic() - alone > 15:
                return f"one rank ended, the other did not: {statuses}"
        time.sleep(0.05)
    return f"killed after {seconds} s"


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _text(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _answers(directory: str, rank: int) -> list[dict[str, Any]]:
    lines = _text(directory, f"answers.{rank}").splitlines()
    return [json.loads(line) for line in lines]
