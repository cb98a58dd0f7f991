"""What is started and tried, and what is expected of it.

DeepEP's blocks are what `eplb_launch` computes. NCCL's are read in its sources, 2.27 to 2.29 alike:
src/enqueue.cc, scheduleP2pTasksToPlan and addP2pToPlan; src/include/channel.h.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from deepep_launch import ROOT, Launch, Trial
from deepep_worker import MODELS

sys.path.insert(0, ROOT)
from eplb_launch.deepep.grids import grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RUNS, HANGS, MAY_RUN = "runs", "hangs", "may run"
# SMs that are left, with which NCCL's blocks were seen to take turns where they do not all fit.
TURNS = 6
TURNS_ALONE = 2  # the same without clusters of four blocks: NCCL_CGA_CLUSTER_SIZE=0
NO_CLUSTERS = {"NCCL_CGA_CLUSTER_SIZE": "0"}
MOST_CTAS = 32  # for send and receive between two GPUs with NVLink, where nothing limits it
PART = 16 << 20  # what a block moves at most while there are more: 32 chunks of 512 KiB
MIB = 1 << 20
# For the table of grids.
GRID_EXPERTS = (64, 128, 144, 256, 264, 288)
GRID_TOKENS = (8, 64, 72, 120, 128, 130, 132, 136, 200, 256)


def combine(experts: int, tokens: int, sms: int) -> int:
    """Return the blocks of combine."""
    return max(grid(experts, sms), grid(tokens, sms))


def nccl_blocks(ctas: int, size: int, rounds: Iterable[int], ranks: int) -> int:
    """Return the blocks of NCCL's send/receive kernel for a number of ranks on one node.

    `rounds` are the peers that there is something for: 0 is the rank itself. Each has a share of
    the CTAs, more if it is a large transfer, and each begins elsewhere: so more peers take more.
    """
    parts = ctas
    while parts * ranks > ctas and parts > 1:
        parts //= 2
    while -(-size // parts) > PART and parts <= ctas // 2:
        parts *= 2
    bits = (ctas - 1).bit_length()
    used: set[int] = set()
    for number in rounds:
        base = int(f"{number % ctas:0{bits}b}"[::-1], 2) if bits else 0
        used.update((base + part) % ctas for part in range(parts))
    return len(used)


def nccl_expected(trial: Trial, cap: int | None) -> int:
    """Return the blocks that NCCL takes in a trial."""
    size = trial.mib * MIB
    if trial.move == "vllm":
        name, _, kind = trial.model.partition(" ")
        size = max(rows * columns for rows, columns in MODELS[name]) * (2 if kind else 1)
    rounds = (0, 1) if trial.move == "both" else (1,)
    return nccl_blocks(cap or MOST_CTAS, size, rounds, 2)


def largest(trial: Trial, sms: int) -> int:
    """Return the most SMs that DeepEP takes in a trial."""
    if trial.order:
        return grid(trial.experts, sms)
    sizes = (trial.tokens,) if trial.batches == "fixed" else range(8, trial.tokens + 1, 8)
    return max(combine(trial.experts, number, sms) for number in sizes)


def expected(trial: Trial, blocks: int, sms: int, environ: Mapping[str, str]) -> str:
    """Return the expected outcome for this number of blocks of NCCL's kernel."""
    left = sms - largest(trial, sms)
    if blocks <= left:
        return RUNS
    if trial.order == "same stream":
        return HANGS  # nobody's turn ever ends: rank 1's NCCL is behind its dispatch
    if trial.order or left >= (TURNS_ALONE if environ == NO_CLUSTERS else TURNS):
        return MAY_RUN
    return HANGS


def grids() -> Iterator[Launch]:
    """Yield the start in which each kernel is looked at alone."""
    trials = [Trial(e, t, move="none", moves=0) for e in GRID_EXPERTS for t in GRID_TOKENS]
    yield Launch("grids", None, tuple(trials))


def _cap(number: int) -> tuple[str, tuple[str, ...]]:
    return f"eplb-launch --max-ctas {number}", ("--max-ctas", str(number))


def large(sms: int) -> Iterator[Launch]:
    """Yield the starts with one large transfer, which fills the cap."""
    fit = ("--max-ctas", "fit", "--sms", str(sms))
    yield Launch(
        "without eplb-launch",
        None,
        (
            *(Trial(64, tokens) for tokens in (64, 120)),
            Trial(144, 64),
            Trial(288, 64),
            Trial(256, 64),
            Trial(288, 256, "varied"),
        ),
    )
    yield Launch(
        "eplb-launch",
        (),
        (
            Trial(144, 64),
            Trial(288, 120),
            *(Trial(64, tokens) for tokens in (124, 126)),
            Trial(64, 128),
            Trial(256, 64),
            Trial(288, 256, "varied"),
        ),
    )
    name, words = _cap(4)
    yield Launch(
        name,
        words,
        (
            Trial(64, 128),
            Trial(256, 64),
            Trial(288, 256, "varied"),
            Trial(64, 130),
        ),
    )
    name, words = _cap(2)
    yield Launch(name, words, (Trial(256, 128), Trial(288, 130, moves=200), Trial(288, 132)))
    name, words = _cap(1)
    yield Launch(name, words, (Trial(64, 130, moves=100), Trial(264, 64)))
    yield Launch(
        f"eplb-launch {' '.join(fit)}, a model of 256 experts",
        fit,
        (Trial(256, 256, "varied", steps=12000, moves=400),),
    )
    yield Launch("NCCL_CGA_CLUSTER_SIZE=0 eplb-launch", (), (Trial(256, 64),), environ=NO_CLUSTERS)


def fixed(sms: int) -> Iterator[Launch]:
    """Yield the starts with one large transfer beside the same number of tokens in every call."""
    rows = {
        None: ((288, 128), (144, 128), (64, 128), (64, 112), (64, 116), (64, 124), (64, 126)),
        8: ((288, 200), (64, 120), (128, 64), (144, 128), (288, 128), (288, 132), (288, 256)),
        4: ((128, 64), (144, 128), (288, 128), (288, 256), (288, 132)),
        2: ((128, 64), (288, 256), (264, 64)),
        1: ((64, 130), (256, 256), (288, 132)),
    }
    for cap, pairs in rows.items():
        name, words = ("without eplb-launch", None) if cap is None else _cap(cap)
        yield Launch(name, words, tuple(Trial(*pair, moves=150) for pair in pairs))
    words = ("--max-ctas", "fit", "--sms", str(sms))
    for experts in (64, 144, 288):
        name = f"eplb-launch {' '.join(words)}, a model of {experts} experts"
        trials = tuple(Trial(experts, tokens, moves=150) for tokens in (64, 128, 256))
        yield Launch(name, words, trials, experts=experts)


def orders() -> Iterator[Launch]:
    """Yield the starts with both orders: rank 0 NCCL then dispatch, rank 1 the other way."""
    for name, words in (("without eplb-launch", None), ("eplb-launch", ()), _cap(4)):
        yield Launch(
            name,
            words,
            (
                Trial(144, 64, order="same stream"),
                Trial(256, 64, order="two streams"),
                Trial(256, 64, order="same stream"),
            ),
        )


def exchange(folder: str, version: str) -> Iterator[Launch]:
    """Yield the starts with vLLM's own exchange."""

    def trial(experts: int, tokens: int, batches: str = "fixed", **more: object) -> Trial:
        fields = {"steps": 12000, "moves": 60, **more}
        return Trial(experts, tokens, batches, "vllm", **fields)  # type: ignore[arg-type]

    main = (
        trial(144, 256, "varied"),
        trial(256, 64),
        trial(256, 64, model="DeepSeek-V3", moves=40),
        trial(256, 256, "varied", model="DeepSeek-V3", moves=40),
        trial(256, 64, model="DeepSeek-V3", swaps=4),
    )
    heavy = trial(256, 64, model="DeepSeek-V3 BF16", moves=25)
    minor = int(version.split(".")[1])
    communicators = ("torch_nccl", "pynccl") if minor >= 20 else ("",)
    for communicator in communicators:
        full = minor == 16
        shown = f"vLLM {version}" + (f", {communicator}" if communicator else "")
        starts: list[tuple[str, tuple[str, ...] | None, tuple[Trial, ...]]]
        few = (trial(256, 64), trial(144, 256, "varied"))
        bare = (*main, heavy) if full else few[:1]
        starts = [
            ("without eplb-launch", None, bare),
            ("eplb-launch", (), (*main, heavy) if full else few),
        ]
        if full:
            starts.append((*_cap(4), (main[0], main[1], main[2], heavy)))
        for name, words, trials in starts:
            yield Launch(f"{shown}: {name}", words, trials, folder, version, communicator)


def busy(folder: str, version: str, runs: int) -> Iterator[Launch]:
    """Yield the starts without a cap whose hangs are timed, with batches as a server has them."""
    for seed in range(runs):
        trial = Trial(144, 256, "busy", "vllm", swaps=8, steps=60000, moves=100000, seed=seed)
        yield Launch(f"vLLM {version}: run {seed + 1}", None, (trial,), folder, version)


def cost(folder: str, version: str) -> Iterator[Launch]:
    """Yield the starts in which moves are timed and NCCL's blocks are counted, nothing beside."""
    alone = {"steps": 0, "moves": 0}
    moves = [
        Trial(64, 64, mib=16, **alone),  # type: ignore[arg-type]
        Trial(64, 64, mib=16, move="both", **alone),  # type: ignore[arg-type]
        Trial(64, 64, **alone),  # type: ignore[arg-type]
    ]
    if folder:
        moves += [
            Trial(256, 64, move="vllm", model=model, **alone)  # type: ignore[arg-type]
            for model in ("Qwen3-30B", "DeepSeek-V3", "DeepSeek-V3 BF16")
        ]
    starts = [("without eplb-launch", None), *(_cap(number) for number in (8, 4, 2, 1))]
    for name, words in starts:
        yield Launch(name, words, tuple(moves), folder, version)
