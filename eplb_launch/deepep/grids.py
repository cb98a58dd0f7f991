"""How many SMs DeepEP's low-latency kernels take, and how many CTAs of NCCL fit beside them.

Dispatch and combine are launched cooperatively, one block on each SM, so a launch starts only when
its whole grid finds room; a block of NCCL takes the whole SM (benchmarks/deepep, benchmarks/nccl).
Both grids are DeepEP's own arithmetic: csrc/kernels/internode_ll.cu, `dispatch` and `combine`, the
same from c5facf5 (2025-08-07) on, and in 73b6ea4, which vLLM 0.12 to 0.23 pin.

Dispatch grows with the physical experts, combine also with the tokens of a call. Which numbers of
tokens there can be is vLLM's business: CHANGES.

Pure: nothing is read, and nothing of the machine is looked at. `cap` asks, with what it knows of a
command and of a machine.
"""

from __future__ import annotations

from eplb_launch.model import Record
from eplb_launch.vllm.releases import CAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SOURCE = "DeepEP csrc/kernels/internode_ll.cu; measured on H100s: benchmarks/deepep"


def grid(items: int, sms: int) -> int:
    """Return how many blocks take so many experts or tokens, each block equally many of them."""
    return -(-items // max(1, -(-items // sms)))


# The releases 0.N that change how many tokens a call has. From 0.13 pieces can be turned off, and
# speculative tokens count in the largest graph (config/vllm.py). From 0.17 --performance-mode
# throughput doubles the tokens of a step (arg_utils.py). From 0.20 a call has all tokens of a step.
CHANGES = (12, 13, 17, 20)
# Pieces of a step: fused_moe/layer.py, from 0.17 runner/default_moe_runner.py; envs.py.
_PIECES = "VLLM_ENABLE_MOE_DP_CHUNK"
_PIECE = "VLLM_MOE_DP_CHUNK_SIZE"
_TOKENS = 256  # of a piece, and of a step from 0.20 (DEFAULT_MAX_NUM_BATCHED_TOKENS_FOR_BATCHED_DP)
_STEP_IN_PIECES = 8192  # tokens, on a GPU of 70 GiB and more (get_batch_defaults); else less
_MAX_GRAPH = 512  # vllm/config/vllm.py, _set_cudagraph_sizes
_MAX_SEQS = 1024  # get_batch_defaults; twice that, and half of it, is over _MAX_GRAPH anyway
_MOST = 1 << 20  # tokens; more is no number that is meant


class Tokens(Record):
    """How many tokens one rank may have in one call of DeepEP."""

    most: int  # an eager or a mixed step may have any number up to it
    padded: tuple[int, ...]  # those that come again and again: CUDA graph sizes, a full piece
    bounds: tuple[str, ...]  # what `most` is set with: VLLM_MOE_DP_CHUNK_SIZE
    share: int  # the ranks that one bound's tokens are divided by (sequence-parallel MoE)
    assumed: tuple[str, ...] = ()  # what is not known, and taken as vLLM's default


class Fit(Record):
    """How a GPU is shared between DeepEP and NCCL."""

    sms: int
    experts: int | None  # None: not known, so dispatch is left out
    dispatch: int  # SMs that it takes; 0 where it is not known
    combine: int  # the same of combine at most, with a padded call beside which anything fits
    cap: int | None  # the one that is looked at; None: nothing fits beside dispatch
    padded: tuple[int, ...]  # calls beside which the cap does not fit, of those in Tokens.padded
    eager: tuple[tuple[int, int], ...]  # the same of all others: from and to

    @property
    def left(self) -> int:
        """The SMs that the larger of both leaves."""
        return self.sms - max(self.dispatch, self.combine)

    @property
    def safe(self) -> bool:
        """Whether the cap fits beside every call that there can be, with experts that are known."""
        return not (self.cap is None or self.experts is None or self.padded or self.eager)


def fit(sms: int, experts: int | None, tokens: Tokens) -> Fit:
    """Return the largest power of two up to 8 that fits.

    It fits beside dispatch and beside every padded call that anything fits beside.
    """
    dispatch = grid(experts, sms) if experts else 0
    taken = {number: max(dispatch, grid(number, sms)) for number in tokens.padded}
    most = max((blocks for blocks in taken.values() if blocks < sms), default=dispatch)
    if most == sms:
        return Fit(sms, experts, dispatch, most, None, (), ())
    cap = min(1 << ((sms - most).bit_length() - 1), CAP)
    padded = tuple(number for number, blocks in taken.items() if blocks + cap > sms)
    return Fit(sms, experts, dispatch, most, cap, padded, _unfit(sms, cap, tokens.most))


def _unfit(sms: int, cap: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return the numbers of tokens whose combine leaves fewer SMs than `cap`, as ranges."""
    found: list[tuple[int, int]] = []
    depth = 1  # tokens of a block: from (depth - 1) * sms + 1 up to depth * sms of them
    while (depth - 1) * sms < most:
        # A block of every `depth` tokens: more than (sms - cap) * depth tokens leave too little.
        first = max((sms - cap) * depth, (depth - 1) * sms) + 1
        last = min(depth * sms, most)
        if first <= last:
            if found and found[-1][1] + 1 == first:
                first = found.pop()[0]
            found.append((first, last))
        depth += 1
    return tuple(found)


def remedies(fit: Fit, tokens: Tokens) -> tuple[str, ...]:
    """Return what makes room beside the calls that the cap does not fit beside."""
    left = fit.sms - (fit.cap or 0)
    number = left // 8 * 8 or left  # the tokens of a call that the cap fits beside
    if fit.cap is None or not 0 < number < tokens.most:
        return ("another --eplb-config.num_redundant_experts",)
    option = {"--max-num-batched-tokens": f" {number * tokens.share}"}
    return tuple(name + option.get(name, f"={number}") for name in tokens.bounds)


def tokens(given: Mapping[str, Any], environ: Mapping[str, str], minor: int | None) -> Tokens:
    """Return which tokens one rank may have, by the settings of vLLM 0.`minor`.

    `given` holds the settings by name, as the command gives them. A release that is not known may
    be any, so it is the calls of all.
    """
    if minor is not None:
        return _Reading(given, environ, minor).tokens()
    found = [tokens(given, environ, minor) for minor in CHANGES]
    return Tokens(
        max(one.most for one in found),
        tuple(sorted({number for one in found for number in one.padded})),
        tuple(dict.fromkeys(name for one in found for name in one.bounds)),
        found[0].share,
        ("the release", *dict.fromkeys(text for one in found for text in one.assumed)),
    )


# The keys of JSON options that count.
_KEYS = {
    "compilation_config": (
        *("cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size"),
    ),
    "speculative_config": ("num_speculative_tokens",),
}


class _Reading:
    """The settings that count, of one command."""

    def __init__(self, given: Mapping[str, Any], environ: Mapping[str, str], minor: int) -> None:
        self.minor = minor
        self.assumed: list[str] = []
        self.given: dict[str, Any] = {
            name: environ[name] for name in (_PIECES, _PIECE) if name in environ
        }
        for option, keys in _KEYS.items():
            value = self._json(option, given)
            self.given.update((key, value[key]) for key in keys if value.get(key) is not None)
        self.given.update(given)

    def tokens(self) -> Tokens:
        ranks = self._number("tensor_parallel_size", 1)
        batched = self._batched()
        bound = "--max-num-batched-tokens" if self.minor >= 20 else _PIECE
        piece = batched if self.minor >= 20 else self._number(_PIECE, _TOKENS)
        # vLLM's use_sequence_parallel_moe (config/parallel.py): with TP each rank has its share.
        most = min(piece, -(-batched // ranks))
        # Into how many parts a batch is cut (config/parallel.py, num_ubatches).
        parts = 2 if self.given.get("enable_dbo") else self._number("ubatch_size", 1, least=0) or 1
        # DeepEP refuses more than the pieces are (csrc/deep_ep.cpp), also where they are off.
        whole = 13 <= self.minor < 20 and self._number(_PIECES, 1, least=0) == 0
        padded = {most}
        for size in self._graphs(batched):
            for number in {size, size // parts, size - size // parts * (parts - 1)}:
                share = -(-number // ranks)
                if share <= piece:
                    padded.add(share)
                elif not whole:
                    padded.update((piece, share % piece))
        padded.discard(0)
        return Tokens(most, tuple(sorted(padded)), (bound,), ranks, tuple(self.assumed))

    def _batched(self) -> int:
        """Return max_num_batched_tokens."""
        number = self._number("max_num_batched_tokens", 0)
        if number:
            return number
        if self.given.get("enable_chunked_prefill") is False:
            self.assumed.append("max_num_batched_tokens, which follows max_model_len")
        doubled = self.minor >= 17 and self.given.get("performance_mode") == "throughput"
        return (_TOKENS if self.minor >= 20 else _STEP_IN_PIECES) * (2 if doubled else 1)

    def _graphs(self, batched: int) -> Iterable[int]:
        """Return the CUDA graph sizes (config/vllm.py, _set_cudagraph_sizes)."""
        mode = str(self.given.get("cudagraph_mode", "")).upper()
        level = str(self.given.get("optimization_level"))
        if self.given.get("enforce_eager") or mode == "NONE" or level == "0":
            return ()
        query = 1 + self._speculative()
        most = self._number("max_cudagraph_capture_size", 0)
        if not most:
            seqs = self._number("max_num_seqs", _MAX_SEQS)
            most = min(seqs * 2 * (query if self.minor >= 13 else 1), _MAX_GRAPH)
        most = min(most, batched)
        sizes = self._sizes()
        if sizes:
            sizes = [size for size in sizes if size <= batched]
            most = max(sizes, default=0)
        else:
            sizes = [1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)]
            sizes = [size for size in sizes if size <= most]
            if self.minor >= 20 and batched <= most:
                sizes.append(batched)  # config/vllm.py
        separate = mode in ("", "FULL_AND_PIECEWISE", "FULL_DECODE_ONLY") and level != "1"
        if query == 1 or not separate:
            return sizes
        # See adjust_cudagraph_sizes_for_spec_decode in config/compilation.py.
        rounded = {-(-size // query) * query for size in sizes}
        return [size for size in rounded if size <= most] or [query]

    def _sizes(self) -> list[int]:
        """Return the CUDA graph sizes that are given."""
        value = self.given.get("cudagraph_capture_sizes")
        if value is None:
            return []
        words = value if isinstance(value, list) else str(value).split()
        numbers = {_integer(word) for word in words}
        if None in numbers or not numbers:
            self.assumed.append("cudagraph_capture_sizes")
            return []
        return sorted(number for number in numbers if number is not None)

    def _speculative(self) -> int:
        """Return the draft tokens of a step; the default of a draft model is not known here."""
        if "speculative_config" in self.given and not self.given.get("num_speculative_tokens"):
            self.assumed.append("num_speculative_tokens")
        return self._number("num_speculative_tokens", 0, least=0)

    def _json(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        value = given.get(name, {})
        if isinstance(value, str):
            from eplb_launch.vllm.values import json_object

            value = json_object(value, human_readable=True)
        if isinstance(value, dict):
            return value
        self.assumed.append(name)
        return {}

    def _number(self, name: str, default: int, *, least: int = 1) -> int:
        """Return the number that is given by a name; the default where none is, or none known."""
        if name not in self.given:
            return default
        number = _integer(self.given[name])
        if number is None or not least <= number <= _MOST:
            self.assumed.append(name)
            return default
        return number


def _integer(value: object) -> int | None:
    """Return the integer of a value as vLLM reads it: 256, "256", "1k"."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    text = str(value)
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    from eplb_launch.vllm.values import human_readable_int

    try:
        return human_readable_int(text)
    except (ValueError, OverflowError):
        return None
