"""What the stand-in `vllm` does here: DeepEP's own kernels beside NCCL, as async EPLB has them.

The main thread multiplies, dispatches and combines, again and again, as a server does; a second
thread moves weights with NCCL at random moments. Told what to do by EPLB_BENCH_JOB, a JSON object;
each trial is a line of JSON in a file. A hang is seen by a watchdog, and ends the process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "nccl"))

HIDDEN, TOP_K = 2048, 8
HANG_SECONDS = 4.0  # without progress, where a step takes a tenth of a millisecond
MIB = 1 << 20
# One expert: gate and up, and down. In FP8, a byte each; in BF16, two.
MODELS = {
    "Qwen3-30B": ((1536, 2048), (2048, 768)),
    "GLM-4.5": ((3072, 4096), (4096, 1536)),
    "DeepSeek-V3": ((4096, 7168), (7168, 2048)),
}


class Worker:
    """One rank."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Bring up the GPU, NCCL and DeepEP."""
        import torch  # type: ignore[import-not-found]
        import torch.distributed as dist  # type: ignore[import-not-found]

        self.torch, self.dist, self.job = torch, dist, job
        self.rank: int = job["rank"]
        self.device = torch.device(f"cuda:{self.rank}")
        torch.cuda.set_device(self.device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl", init_method=job["meeting"], rank=self.rank, world_size=2
        )
        self.gloo = dist.new_group(backend="gloo")
        self.eplb = dist.new_group(backend="nccl")
        self.side = torch.cuda.Stream()
        self.experts = max(trial["experts"] for trial in job["trials"])
        self.most = max(trial["tokens"] for trial in job["trials"])
        self._deepep()
        self.matrix = torch.randn(2048, 2048, device="cuda", dtype=torch.bfloat16)
        self.product = torch.empty_like(self.matrix)
        self.exchange: Any = None
        self.weights: dict[tuple[str, int], Any] = {}
        if job.get("vllm"):
            from vllm_exchange import Exchange

            groups = (self.eplb, self.gloo)
            self.exchange = Exchange(job["vllm"], job["communicator"], self.device, groups)
        size = max(trial["mib"] for trial in job["trials"]) * MIB
        self.sent = torch.ones(size, dtype=torch.uint8, device="cuda")
        self.received = torch.zeros(size, dtype=torch.uint8, device="cuda")
        self.own: Any = None

    def _deepep(self) -> None:
        import deep_ep  # type: ignore[import-not-found]

        torch = self.torch
        size = deep_ep.Buffer.get_low_latency_rdma_size_hint(self.most, HIDDEN, 2, self.experts)
        self.buffer = deep_ep.Buffer(
            self.gloo,
            0,
            size,
            low_latency_mode=True,
            num_qps_per_rank=self.experts // 2,
            allow_nvlink_for_low_latency_mode=True,
            explicitly_destroy=True,
        )
        self.x = torch.randn(self.most, HIDDEN, dtype=torch.bfloat16, device="cuda")
        self.w = torch.rand(self.most, TOP_K, dtype=torch.float32, device="cuda")

    def prepare(self, trial: dict[str, Any]) -> None:
        """Make DeepEP and the exchange ready for this number of experts and tokens."""
        torch = self.torch
        self.trial = trial
        self.most_now = trial["tokens"]
        scores = torch.randn(self.most_now, trial["experts"], device="cuda")
        self.ids = torch.topk(scores, TOP_K, dim=-1)[1].to(torch.int64)
        torch.cuda.synchronize()
        self.buffer.clean_low_latency_buffer(self.most_now, HIDDEN, trial["experts"])
        torch.cuda.synchronize()
        self.sizes = random.Random(7 + trial["seed"])  # noqa: S311 - the same on both ranks
        self.running = self.sizes.randint(1, self.most_now)
        self.orders = random.Random(11)  # noqa: S311

    def tokens(self) -> int:
        """Return how many tokens the next step has: the same on both ranks, as vLLM pads them."""
        how = self.trial["batches"]
        most = self.most_now
        if how == "fixed":
            return int(most)
        if how == "varied":
            return 8 * self.sizes.randint(1, most // 8)
        # A busy server: requests come and go, a few a step; the batch is padded to a graph size.
        self.running = min(most, max(1, self.running + self.sizes.randint(-4, 4)))
        return int(-(-self.running // 8) * 8)

    def step(self, number: int) -> None:
        """Dispatch and combine as vLLM does: send, then receive in a kernel of its own."""
        experts, buffer = self.trial["experts"], self.buffer
        ids, w = self.ids[:number], self.w[:number]
        received, _, handle, _, hook = buffer.low_latency_dispatch(
            self.x[:number], ids, self.most_now, experts, use_fp8=False, return_recv_hook=True
        )
        hook()
        _, _, hook = buffer.low_latency_combine(received, ids, w, handle, return_recv_hook=True)
        hook()

    def multiply(self) -> None:
        """Do what the rest of a model does in between."""
        for _ in range(4):
            self.torch.matmul(self.matrix, self.matrix, out=self.product)

    def move(self) -> Any:
        """Move weights once, in a stream of its own; return the event at its end."""
        if self.trial["move"] == "vllm":
            return self._move_experts()
        if self.trial["move"] == "both":
            return self._move_both()
        torch, dist = self.torch, self.dist
        size = self.trial["mib"] * MIB
        with torch.cuda.stream(self.side):
            peer = 1 - self.rank
            operations = [
                dist.P2POp(dist.isend, self.sent[:size], peer, self.eplb),
                dist.P2POp(dist.irecv, self.received[:size], peer, self.eplb),
            ]
            for request in dist.batch_isend_irecv(operations):
                request.wait()
            event = torch.cuda.Event()
            event.record(self.side)
        return event

    def _move_both(self) -> Any:
        """Send to the other rank and to itself at once: two peers, as far as NCCL is concerned."""
        from nccl_library import Communicator

        if self.own is None:
            self.own = Communicator(self.rank, 2, os.path.join(self.job["directory"], "id"))
        size = self.trial["mib"] * MIB
        self.own.start()
        for peer in (0, 1):
            place = slice(peer * size, (peer + 1) * size)
            sent, received = self.sent[place], self.received[place]
            self.own.exchange(self.side, send=sent, receive=received, peer=peer)
        self.own.end()
        event = self.torch.cuda.Event()
        event.record(self.side)
        return event

    def _layer(self) -> tuple[list[Any], list[Any]]:
        key = (self.trial["model"], self.trial["experts"])
        if key not in self.weights:
            torch = self.torch
            self.weights.clear()
            torch.cuda.empty_cache()
            name, _, kind = key[0].partition(" ")
            dtype = torch.bfloat16 if kind == "BF16" else torch.uint8
            local = key[1] // 2
            weights = [
                torch.empty((local, *shape), dtype=dtype, device="cuda") for shape in MODELS[name]
            ]
            for tensor in weights:
                for row in range(local):
                    tensor[row].fill_((self.rank * local + row) % 251)
            self.weights[key] = weights, [torch.zeros_like(tensor) for tensor in weights]
            torch.cuda.synchronize()
        found: tuple[list[Any], list[Any]] = self.weights[key]
        return found

    def _move_experts(self) -> Any:
        import numpy as np  # type: ignore[import-not-found]

        weights, buffers = self._layer()
        experts = self.trial["experts"]
        old = np.arange(experts)
        new = old.copy()
        swaps = self.trial.get("swaps")
        if swaps is None:
            order = list(range(experts))
            self.orders.shuffle(order)
            new = np.array(order)
        else:  # few experts change places, as when the load has hardly changed
            local = experts // 2
            ours = self.orders.sample(range(local), swaps)
            theirs = [local + number for number in self.orders.sample(range(local), swaps)]
            new[ours], new[theirs] = old[theirs], old[ours]
        event, self.rows = self.exchange.move(old, new, weights, buffers)
        self.new = new
        return event

    def check(self) -> int:
        """Check what has arrived by the last move; return how many experts that were."""
        if self.trial["move"] != "vllm":
            size = self.trial["mib"] * MIB * (2 if self.trial["move"] == "both" else 1)
            _must(int(self.received[0]) == 1, "not what was sent")
            _must(int(self.received[size - 1]) == 1, "not what was sent")
            self.received.zero_()
            return 0
        _, buffers = self._layer()
        local = self.trial["experts"] // 2
        rows = self.rows()
        _must(bool(rows), "nothing was moved")
        for row in rows:
            want = int(self.new[self.rank * local + row]) % 251
            for buffer in buffers:
                flat = buffer[row].flatten()
                _must(int(flat[0]) == want, "not the expert that was meant")
                _must(int(flat[-1]) == want, "not the expert that was meant")
        return len(rows)

    def profile(self, work: Callable[[], None]) -> list[tuple[str, int]]:
        """Return the kernels of some work and their blocks, from PyTorch's profiler."""
        from torch.profiler import ProfilerActivity, profile  # type: ignore[import-not-found]

        with profile(activities=[ProfilerActivity.CUDA]) as found:
            work()
            self.torch.cuda.synchronize()
        path = os.path.join(self.job["directory"], f"trace.{self.rank}.json")
        found.export_chrome_trace(path)
        with open(path) as file:
            events = json.load(file)["traceEvents"]
        kernels = [event for event in events if event.get("cat") == "kernel"]
        kernels.sort(key=lambda event: event["ts"])
        return [(event["name"], event["args"]["grid"][0]) for event in kernels]

    def alone(self, answer: dict[str, Any]) -> None:
        """Do each thing alone: warm up, check, count blocks, take times."""
        torch, trial = self.torch, self.trial
        most = self.most_now
        for number in range(8, most + 1, 8) if trial["batches"] != "fixed" else (most,):
            for _ in range(2):
                self.multiply()
                self.step(number)
        torch.cuda.synchronize()
        if trial["move"] != "none":
            self.move().synchronize()
            torch.cuda.synchronize()
            answer["experts_moved"] = self.check()
            kernels = self.profile(lambda: self.move().synchronize())
            answer["nccl"] = sorted({blocks for name, blocks in kernels if "nccl" in name})
            torch.cuda.synchronize()
            self.dist.barrier(group=self.gloo)
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                self.move().synchronize()
                times.append(time.perf_counter() - begin)
            answer["move_ms"] = round(statistics.median(times) * 1e3, 2)
        kernels = self.profile(lambda: self.step(most))
        for name in ("dispatch", "combine"):
            answer[name] = sorted({blocks for kernel, blocks in kernels if f"::{name}" in kernel})
        self.dist.barrier(group=self.gloo)
        begin = time.perf_counter()
        for _ in range(50):
            self.step(most)
        torch.cuda.synchronize()
        answer["step_us"] = round((time.perf_counter() - begin) / 50 * 1e6)

    def beside(self, answer: dict[str, Any]) -> None:
        """Serve and move weights at once, until both are done or nothing goes on any more."""
        torch, trial = self.torch, self.trial
        go = threading.Event()
        done = [0, 0]  # steps, moves
        ready = [threading.Event(), threading.Event()]

        def serve() -> None:
            torch.cuda.set_device(self.device)
            ready[0].set()
            go.wait()
            while done[0] < trial["steps"]:
                self.multiply()
                self.step(self.tokens())
                torch.cuda.current_stream().synchronize()
                done[0] += 1

        def move() -> None:
            torch.cuda.set_device(self.device)
            moments = random.Random(self.rank * 1000 + trial.get("seed", 0))  # noqa: S311
            ready[1].set()
            go.wait()
            while done[1] < trial["moves"]:
                time.sleep(moments.random() * 0.004)
                self.move().synchronize()
                done[1] += 1

        threads = [threading.Thread(target=work, daemon=True) for work in (serve, move)]
        for thread in threads:
            thread.start()
        for event in ready:
            event.wait()
        self.dist.barrier(group=self.gloo)
        begin = since = time.monotonic()
        go.set()
        last = list(done)
        hangs = False
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.02)
            if done != last:
                last, since = list(done), time.monotonic()
            elif time.monotonic() - since > HANG_SECONDS:
                hangs = True
                break
        answer["hangs"] = hangs
        answer["steps"], answer["moves"] = done
        answer["seconds"] = round((since if hangs else time.monotonic()) - begin, 2)

    def order(self, answer: dict[str, Any]) -> None:
        """Rank 0 has NCCL before dispatch, rank 1 dispatch before NCCL."""
        torch = self.torch
        main = torch.cuda.current_stream()
        events: dict[str, Any] = {}
        self.dist.barrier(group=self.gloo)

        def dispatch() -> None:
            self.kept = self.buffer.low_latency_dispatch(
                self.x[: self.most_now],
                self.ids,
                self.most_now,
                self.trial["experts"],
                use_fp8=False,
            )
            events["dispatch"] = torch.cuda.Event()
            events["dispatch"].record(main)

        if self.rank == 0:
            events["nccl"] = self.move()
            time.sleep(0.5)
            dispatch()
        else:
            time.sleep(0.2)
            dispatch()
            time.sleep(0.6)
            if self.trial["order"] == "same stream":
                self.side.wait_event(events["dispatch"])
            events["nccl"] = self.move()
        end = time.monotonic() + HANG_SECONDS
        while time.monotonic() < end and not all(event.query() for event in events.values()):
            time.sleep(0.01)
        answer["ended"] = {name: bool(event.query()) for name, event in events.items()}
        answer["hangs"] = not all(answer["ended"].values())

    def run(self, number: int, trial: dict[str, Any]) -> bool:
        """Do a trial and write its outcome; return whether the process can go on."""
        answer: dict[str, Any] = {"trial": number, "variable": os.environ.get("NCCL_MAX_CTAS")}
        self.prepare(trial)
        self.alone(answer)
        if trial.get("order"):
            self.order(answer)
        elif trial["moves"]:
            self.beside(answer)
        self.write(answer)
        if answer.get("hangs"):
            return False
        self.torch.cuda.synchronize()
        self.dist.barrier(group=self.gloo)
        return True

    def facts(self) -> dict[str, Any]:
        """Return what the rows depend on."""
        import platform

        torch = self.torch
        properties = torch.cuda.get_device_properties(self.device)
        return {
            "device": properties.name,
            "sms": properties.multi_processor_count,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
            "python": platform.python_version(),
            "pid": os.getpid(),
        }

    def write(self, answer: dict[str, Any]) -> None:
        """Add a line to this rank's answers."""
        path = os.path.join(self.job["directory"], f"answers.{self.rank}")
        with open(path, "a") as file:
            file.write(json.dumps(answer) + "\n")


def _must(right: bool, otherwise: str) -> None:  # noqa: FBT001
    if not right:
        raise RuntimeError(otherwise)


def main() -> None:
    """Do all trials of a job, until one of them hangs."""
    job = json.loads(os.environ["EPLB_BENCH_JOB"])
    signal.alarm(job["alarm"])
    worker = Worker(job)
    worker.write(worker.facts())
    for number, trial in enumerate(job["trials"]):
        if not worker.run(number, trial):
            break
    sys.stdout.flush()
    os._exit(0)  # whatever still stands in a queue of the GPU
