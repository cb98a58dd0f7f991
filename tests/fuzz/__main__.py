"""Feed each reader of foreign bytes with mutations of its seeds, and report what failed.

    python -m fuzz [--seconds 60] [--seed 0] [--keep .fuzz] [TARGET...]

An input that calls what none before it called, or takes longer for its size, is a seed too. A
finding is an exception, an answer that cannot be shown, or more than LIMIT seconds; its input is
kept as a file, the same fault once. Status 1 where there is any.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from eplb_launch.launch import place
from fuzz.targets import TARGETS, WORDS, Broken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuzz.targets import Target

LIMIT = 20.0  # seconds of the processor for one input
MOST = 64 * 1024  # bytes of an input
_POOL = 400  # seeds that are kept of a target
_SMALL = 1024  # bytes: what is smaller counts as this in "for its size", for it is all overhead


class TooSlowError(Exception):
    """An input took longer than LIMIT."""


def mutated(seed: bytes, others: list[bytes], choose: random.Random) -> bytes:
    """Return a seed with one to some mutations."""
    content = bytearray(seed)
    for _ in range(choose.choice((1, 1, 2, 4, 8))):
        start = choose.randrange(len(content) + 1)
        end = min(len(content), start + choose.choice((1, 2, 8, 64, 1024)))
        kind = choose.randrange(7)
        if kind == 0:
            content[start:end] = bytes(choose.randrange(256) for _ in range(min(4, end - start)))
        elif kind == 1:
            del content[start:end]
        elif kind == 2:
            content[start:start] = choose.choice(WORDS).encode("utf-8", "surrogateescape")
        elif kind == 3:  # what doubles is found by that
            content[start:end] = content[start:end] * choose.choice((2, 3, 50, 1000))
        elif kind == 4:
            other = choose.choice(others)
            at = choose.randrange(len(other) + 1)
            content[start:end] = other[at : at + choose.choice((4, 64, 1024))]
        elif kind == 5:
            content[start:start] = content[end : end + 200]
        elif start < len(content):
            content[start] ^= 1 << choose.randrange(8)
        del content[MOST:]
    # Small ones are fed faster, large ones show what is not linear.
    return bytes(content[: choose.choice((1024, 4096, 4096, MOST))])


class Run:
    """A target that is being fed."""

    def __init__(self, target: Target, keep: str, choose: random.Random) -> None:
        """Start with its seeds."""
        self.target = target
        self.keep = keep
        self.choose = choose
        self.pool = list(target.seeds)
        self.seen: set[Any] = set()
        self.inputs = 0
        self.findings: dict[str, str] = {}  # by the fault: the file
        self.worst = 0.0  # seconds per KB
        self.worst_input = b""

    def inputs_for(self, seconds: float) -> Iterator[bytes]:
        """Yield the seeds, and then mutations for so long."""
        yield from self.target.seeds
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield mutated(self.choose.choice(self.pool), self.pool, self.choose)

    def run(self, seconds: float) -> None:
        """Feed it."""
        for content in self.inputs_for(seconds):
            self.feed(content)

    def feed(self, content: bytes) -> None:
        """Feed one input, and learn from it."""
        self.inputs += 1
        found = 0

        def called(frame: Any, event: str, _argument: object) -> None:
            nonlocal found
            if event == "call" and frame.f_back is not None:
                edge = frame.f_code, frame.f_back.f_lineno
                if edge not in self.seen:
                    self.seen.add(edge)
                    found += 1

        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        begun = time.process_time()
        sys.setprofile(called)
        try:
            self.target.feed(content)
        except BaseException as error:
            sys.setprofile(None)
            if isinstance(error, KeyboardInterrupt):
                raise
            self.note(f"{place(error)} {error if isinstance(error, Broken) else ''}", content)
        finally:
            sys.setprofile(None)
            signal.setitimer(signal.ITIMER_PROF, 0)
        taken = (time.process_time() - begun) / max(len(content), _SMALL) * 1024
        if taken > self.worst:
            # Once more without the profile, which makes it slower.
            taken = min(taken, self.again(content) / max(len(content), _SMALL) * 1024)
        if taken > self.worst:
            self.worst, self.worst_input = taken, content
        elif not found:
            return
        if len(self.pool) >= _POOL:
            self.pool[self.choose.randrange(len(self.target.seeds), _POOL)] = content
        else:
            self.pool.append(content)

    def again(self, content: bytes) -> float:
        """Return the seconds that an input takes."""
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        begun = time.process_time()
        try:
            self.target.feed(content)
        except Exception:  # noqa: BLE001 - noted already
            pass
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return time.process_time() - begun

    def note(self, fault: str, content: bytes) -> None:
        """Keep the input of a fault, the smallest."""
        known = self.findings.get(fault)
        if known is None or os.path.getsize(known) > len(content):
            name = hashlib.sha256(fault.encode()).hexdigest()[:8]
            self.findings[fault] = self.save(f"{self.target.name}-{name}", content)
        if known is None:
            print(f"{self.target.name}: {fault}: {self.findings[fault]}", flush=True)

    def save(self, name: str, content: bytes) -> str:
        """Write a file into the folder that is kept."""
        os.makedirs(self.keep, exist_ok=True)
        path = os.path.join(self.keep, name.replace(" ", "-"))
        with open(path, "wb") as file:
            file.write(content)
        return path

    def line(self) -> str:
        """Return the outcome."""
        size = len(self.worst_input) / 1024
        return (
            f"{self.target.name:14} {self.inputs:9,} inputs {len(self.findings):3} findings"
            f"   worst {self.worst * 1000:7.1f} ms/KB (of {size:.1f} KB), {len(self.seen):6,} calls"
        )


def _too_slow(_number: int, _frame: object) -> None:
    raise TooSlowError


def main(words: list[str]) -> int:
    """Feed the targets in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="those whose name begins so; else all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", default=".fuzz", help="where the inputs of findings go")
    given = parser.parse_args(words)
    signal.signal(signal.SIGPROF, _too_slow)
    runs = []
    for target in TARGETS:
        if not given.targets or target.name.startswith(tuple(given.targets)):
            run = Run(target, given.keep, random.Random(given.seed))
            run.run(given.seconds)
            print(run.line(), flush=True)
            run.save(f"worst-{target.name}", run.worst_input)
            runs.append(run)
    inputs, findings = sum(run.inputs for run in runs), sum(len(run.findings) for run in runs)
    print(f"{inputs:,} inputs, {findings} findings, seed {given.seed}")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
