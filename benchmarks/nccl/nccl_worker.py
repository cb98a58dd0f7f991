"""What the stand-in `vllm` does: NCCL, in the process that eplb-launch has become.

Told what to do by EPLB_BENCH_JOB, a JSON object; answers with a JSON file.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import platform
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from cuda_kernels import ENDED, GIVE_UP, PEER, STARTED, Kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    from cuda_kernels import Flags

MIB = 1 << 20
IN_PLACE_SECONDS = 0.3  # for a kernel to get its SMs

# Words of the board, by which two ranks tell each other how far they are.
AT_START, GO, IN_PLACE, POSTED, BEGUN, LOOKED, DONE = range(0, 14, 2)
LAST = 2**31
BEGIN = time.monotonic()


class Board:
    """Words in a file that all ranks see."""

    def __init__(self, path: str) -> None:
        """Map the file, which has to be there."""
        with open(path, "r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 4096)).cast("I")

    def put(self, word: int, trial: int) -> None:
        """Say that this has happened in a trial."""
        self.words[word] = trial + 1

    def has(self, word: int, trial: int) -> bool:
        """Return whether it has happened."""
        return self.words[word] > trial

    def wait(self, word: int, trial: int) -> None:
        """Wait until it has happened."""
        if not wait_until(lambda: self.has(word, trial), 60):
            raise TimeoutError(f"the other rank does not come to {word} of trial {trial}")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether it becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return condition()
        time.sleep(0.0005)
    return True


def note(text: str) -> None:
    """Say on stderr how far this rank is, for the case that it gets no further."""
    print(f"{time.monotonic() - BEGIN:.1f} s: {text}", file=sys.stderr, flush=True)


class Worker:
    """One rank."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Bring the GPU and NCCL up."""
        import torch  # type: ignore[import-not-found]
        from nccl_library import Communicator

        self.job = job
        self.torch = torch
        self.rank: int = job["rank"]
        self.ranks: int = job["ranks"]
        device = self.rank % job["gpus"]
        torch.cuda.set_device(device)
        self.kernels: Kernels | None = None
        if job["role"] != "count":
            self.kernels = Kernels(torch, device)
        size = job["mib"] * MIB
        self.sent = torch.randint(0, 127, (size,), dtype=torch.int8, device="cuda")
        self.received = torch.zeros(size, dtype=torch.int8, device="cuda")
        self.stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        directory = job["directory"]
        self.comm = Communicator(self.rank, self.ranks, os.path.join(directory, "unique-id"))
        note("NCCL is up")
        self.board = Board(os.path.join(directory, "board"))
        self.answer: dict[str, Any] = {
            "variable": os.environ.get("NCCL_MAX_CTAS"),
            "arguments": sys.argv[1:],
            "pid": os.getpid(),
            "device": torch.cuda.get_device_name(),
            "sms": torch.cuda.get_device_properties(device).multi_processor_count,
            "gpus": torch.cuda.device_count(),
            "nccl": self.comm.version,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
        }

    def run(self) -> None:
        """Do what the job says."""
        role = self.job["role"]
        if role == "count":
            self.count()
        elif role == "hang":
            self.warm_up()
            note("the ranks are connected")
            if self.job["hold"]:
                self.answer["hold"] = self.hold()
            trials = enumerate(self.job["circle"])
            self.answer["circle"] = [self.circle(number, trial) for number, trial in trials]

    def count(self) -> None:
        """Find how many blocks the send/receive kernel has, in a trace of PyTorch's profiler."""
        peer = (self.rank + 1) % self.ranks

        def exchange() -> None:
            self.comm.exchange(self.stream, send=self.sent, receive=self.received, peer=peer)
            self.stream.synchronize()

        exchange()
        if peer == self.rank:
            self.answer["correct"] = bool(self.torch.equal(self.sent, self.received))
        profiler = self.torch.profiler
        with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as profile:
            exchange()
        path = os.path.join(self.job["directory"], f"trace.{self.rank}.json")
        profile.export_chrome_trace(path)
        with open(path) as file:
            events = json.load(file)["traceEvents"]
        found = [e for e in events if e.get("cat") == "kernel" and "SendRecv" in e["name"]]
        if len(found) != 1:
            raise RuntimeError(f"{len(found)} send/receive kernels in the trace")
        arguments = found[0]["args"]
        self.answer["kernel"] = found[0]["name"].partition("(")[0]
        self.answer["grid"] = arguments["grid"][0]
        self.answer["threads"] = arguments["block"][0]
        self.answer["registers"] = arguments.get("registers per thread")

    def hold(self) -> list[dict[str, Any]]:
        """Rank 0 receives what rank 1 does not send yet, and wants dispatch to run meanwhile."""
        wanted = [list(trial) for trial in self.job["hold"]]
        if self.rank == 1:
            for number in itertools.count():
                self.board.wait(GO, number)
                if self.board.words[GO] == LAST:
                    return []
                self.prepare(number)
                self.send().synchronize()
        trials: list[dict[str, Any]] = []
        while wanted:
            blocks, pairs = wanted.pop(0)
            trials.append(self.hold_once(len(trials), blocks, pairs=bool(pairs)))
            if len(trials) == 1:  # now it is known how many SMs are left: just that many, and more
                free = trials[0]["free"]
                edge = [[free, 0], [free + 1, 0], [free, 1], [free + 2, 1]]
                wanted += [e for e in edge if possible(e[0], e[1], self.answer["sms"])]
                wanted = [w for i, w in enumerate(wanted) if w not in wanted[:i]]
        self.board.words[GO] = LAST
        return trials

    def hold_once(self, number: int, blocks: int, *, pairs: bool) -> dict[str, Any]:
        """Try whether dispatch can start while NCCL waits, and once it does not."""
        kernels = self.ready_kernels()
        received = self.receive()
        time.sleep(IN_PLACE_SECONDS)
        free = kernels.free_sms()
        begin = time.monotonic()
        flags = kernels.dispatch(blocks, pairs=pairs, alone=True)
        ran = wait_until(lambda: flags[ENDED], self.job["hold_seconds"])
        seconds = time.monotonic() - begin
        in_place = not received.query()
        note(f"hold {number}: {blocks} blocks, {free} free, ran {ran}")
        self.board.put(GO, number)
        after = wait_until(lambda: received.query() and flags[ENDED], 20)
        return {
            "blocks": blocks,
            "pairs": pairs,
            "free": free,
            "ran": ran,
            "seconds": seconds,
            "in_place": in_place,  # NCCL's kernel, all the time
            "after": after,  # both ended once rank 1 had sent
            "correct": after and self.arrived(number),
        }

    def circle(self, number: int, trial: list[int]) -> dict[str, Any]:
        """Both ranks want both, in the other order: the hang as DeepEP's users have it."""
        blocks, pairs, behind = trial[0], bool(trial[1]), bool(trial[2])
        kernels = self.ready_kernels()
        self.prepare(number)
        self.board.put(AT_START + self.rank, number)
        self.board.wait(AT_START + 1 - self.rank, number)
        free = None
        if self.rank == 0:
            self.board.wait(IN_PLACE, number)
            nccl = self.receive()
            time.sleep(IN_PLACE_SECONDS)
            free = kernels.free_sms()
            self.board.put(POSTED, number)
            flags = kernels.dispatch(blocks, pairs=pairs, alone=False)
        else:
            flags = kernels.dispatch(blocks, pairs=pairs, alone=False)
            if not wait_until(lambda: flags[STARTED], 30):
                raise TimeoutError("dispatch does not start on an idle GPU")
            self.board.put(IN_PLACE, number)
            self.board.wait(POSTED, number)
            nccl = self.send(kernels.stream if behind else self.stream)

        def both() -> bool:
            self.relay(flags, number)
            return bool(nccl.query()) and flags[ENDED]

        begin = time.monotonic()
        ran = wait_until(both, self.job["circle_seconds"])
        seconds = time.monotonic() - begin
        note(f"circle {number}: {blocks} blocks, ran {ran}")
        state = {"dispatch": flags[STARTED], "nccl": bool(nccl.query())}
        self.board.put(LOOKED + self.rank, number)
        while not self.board.has(LOOKED + 1 - self.rank, number):
            self.relay(flags, number)
            time.sleep(0.0005)
        if not ran and self.rank == 1:
            flags.set(GIVE_UP)
        after = wait_until(both, 20)
        self.board.put(DONE + self.rank, number)
        self.board.wait(DONE + 1 - self.rank, number)  # its NCCL may need this process until then
        return {
            "blocks": blocks,
            "pairs": pairs,
            "behind": behind,
            "free": free,
            "ran": ran,
            "seconds": seconds,
            "state": state,
            "after": after,  # all ended once rank 1's dispatch had given up
            "correct": after and (self.rank == 1 or self.arrived(number)),
        }

    def relay(self, flags: Flags, number: int) -> None:
        """Tell the other rank's dispatch that ours runs, as DeepEP's does over NVLink or RDMA."""
        if flags[STARTED]:
            self.board.put(BEGUN + self.rank, number)
        if self.board.has(BEGUN + 1 - self.rank, number):
            flags.set(PEER)

    def ready_kernels(self) -> Kernels:
        """Return the kernels of our own; the role needs them."""
        if self.kernels is None:
            raise RuntimeError("this role has no kernels")
        return self.kernels

    def warm_up(self) -> None:
        """Connect the ranks, in the direction that is used."""
        if self.rank == 0:
            self.receive().synchronize()
        else:
            self.send().synchronize()

    def receive(self) -> Any:
        """Post a receive from rank 1; return the event of its end."""
        self.comm.exchange(self.stream, receive=self.received, peer=1)
        return self.mark()

    def prepare(self, number: int) -> None:
        """Fill what rank 1 sends with the pattern of a trial."""
        self.sent.fill_(pattern(number))
        self.torch.cuda.current_stream().synchronize()

    def send(self, stream: Any = None) -> Any:
        """Send to rank 0; return the event of its end."""
        self.comm.exchange(stream or self.stream, send=self.sent, peer=0)
        return self.mark(stream)

    def mark(self, stream: Any = None) -> Any:
        """Return an event at the end of a stream."""
        event = self.torch.cuda.Event()
        event.record(stream or self.stream)
        return event

    def arrived(self, number: int) -> bool:
        """Return whether rank 0 has the pattern of this trial."""
        return bool((self.received == pattern(number)).all().item())


def pattern(number: int) -> int:
    """Return the byte that is sent in a trial."""
    return number % 100 + 1


def possible(blocks: int, pairs: int, sms: int) -> bool:
    """Return whether a GPU with this number of SMs can run this grid."""
    return 0 < blocks <= sms and not (pairs and blocks % 2)


def main() -> None:
    """Do the job and answer."""
    job = json.loads(os.environ["EPLB_BENCH_JOB"])
    signal.alarm(job["alarm"])  # kills, whatever this process waits for
    worker = Worker(job)
    worker.run()
    path = os.path.join(job["directory"], f"answer.{job['rank']}.json")
    with open(path, "w") as file:
        json.dump(worker.answer, file)
    os._exit(0)  # without taking NCCL down, which may wait for the other rank
