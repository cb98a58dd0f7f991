"""How many SMs DeepEP's low-latency kernels take, and how many CTAs of NCCL fit beside them.

Dispatch and combine are cooperative launches with one block on each SM: a kernel starts only when
its whole grid has room. A block of NCCL takes a whole SM (benchmarks/deepep, benchmarks/nccl). The
arithmetic of both grids is DeepEP's: csrc/kernels/internode_ll.cu, `dispatch` and `combine`, the
same since c5facf5 (2025-08-07), and in 73b6ea4, which vLLM 0.12 to 0.23 pin.

The grid of dispatch depends on the physical experts, that of combine also on the tokens of a call.
vLLM decides how many tokens a call can have: CHANGES.

Pure: nothing is read. `cap` passes in what it knows about a command and a machine.
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
    """Return the number of blocks for so many experts or tokens, divided evenly among them."""
    return -(-items // max(1, -(-items // sms)))


# The releases 0.N that change how many tokens a call has. From 0.13 chunks can be turned off, and
# speculative tokens count in the largest graph (config/vllm.py). From 0.17 --performance-mode
# throughput doubles the tokens of a step (arg_utils.py). From 0.20 a call has all tokens of a step.
CHANGES = (12, 13, 17, 20)
# The chunks of a step: fused_moe/layer.py, from 0.17 runner/default_moe_runner.py; envs.py.
_CHUNKS = "VLLM_ENABLE_MOE_DP_CHUNK"
_CHUNK_SIZE = "VLLM_MOE_DP_CHUNK_SIZE"
# The tokens of a chunk; from 0.20 those of a step (DEFAULT_MAX_NUM_BATCHED_TOKENS_FOR_BATCHED_DP).
_TOKENS = 256
_CHUNKED_STEP = 8192  # tokens on a GPU of 70 GiB or more (get_batch_defaults), fewer on others
_MAX_GRAPH = 512  # vllm/config/vllm.py, _set_cudagraph_sizes
_MAX_SEQS = 1024  # get_batch_defaults; other defaults are above _MAX_GRAPH too
_MAX_NUMBER = 1 << 20  # a larger number is taken as not known


class Tokens(Record):
    """How many tokens a rank can have in a call of DeepEP."""

    most: int  # an eager or a mixed step can have any number up to this
    padded: tuple[int, ...]  # the numbers of padded calls: CUDA graph sizes, a full chunk
    bounds: tuple[str, ...]  # the variable or option that sets `most`: VLLM_MOE_DP_CHUNK_SIZE
    share: int  # the number of ranks that share the tokens of a bound (sequence-parallel MoE)
    assumed: tuple[str, ...] = ()  # the settings that are not known, and taken as vLLM's default


class Fit(Record):
    """How DeepEP and NCCL share the SMs of a GPU."""

    sms: int
    experts: int | None  # None: not known, and dispatch is not counted
    dispatch: int  # the SMs that dispatch takes; 0 if not known
    combine: int  # the most SMs of a padded call that leaves room for any cap
    cap: int | None  # None: no cap fits beside dispatch
    padded: tuple[int, ...]  # the calls of Tokens.padded that leave no room for the cap
    eager: tuple[tuple[int, int], ...]  # all other calls that leave none, as ranges of tokens

    @property
    def left(self) -> int:
        """The SMs that the larger kernel leaves to NCCL."""
        return self.sms - max(self.dispatch, self.combine)

    @property
    def safe(self) -> bool:
        """Whether the experts are known, and the cap fits beside every possible call."""
        return not (self.cap is None or self.experts is None or self.padded or self.eager)


def fit(sms: int, experts: int | None, tokens: Tokens) -> Fit:
    """Return the largest power of two up to 8 that fits as a cap.

    It fits beside dispatch, and beside every padded call that leaves an SM.
    """
    dispatch = grid(experts, sms) if experts else 0
    taken = {number: max(dispatch, grid(number, sms)) for number in tokens.padded}
    most = max((blocks for blocks in taken.values() if blocks < sms), default=dispatch)
    if most == sms:
        return Fit(sms, experts, dispatch, most, None, (), ())
    cap = min(1 << ((sms - most).bit_length() - 1), CAP)
    padded = tuple(number for number, blocks in taken.items() if blocks + cap > sms)
    return Fit(sms, experts, dispatch, most, cap, padded, _ranges(sms, cap, tokens.most))


def _ranges(sms: int, cap: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return the numbers of tokens, as ranges, with which combine leaves fewer SMs than `cap`."""
    found: list[tuple[int, int]] = []
    depth = 1  # the tokens of a block, for (depth - 1) * sms + 1 to depth * sms tokens
    while (depth - 1) * sms < most:
        # More than (sms - cap) * depth tokens take more than sms - cap blocks.
        first = max((sms - cap) * depth, (depth - 1) * sms) + 1
        last = min(depth * sms, most)
        if first <= last:
            if found and found[-1][1] + 1 == first:
                first = found.pop()[0]
            found.append((first, last))
        depth += 1
    return tuple(found)


def remedies(fit: Fit, tokens: Tokens) -> tuple[str, ...]:
    """Return the options that keep calls small enough for the cap to fit beside all of them."""
    left = fit.sms - (fit.cap or 0)
    number = left // 8 * 8 or left  # calls of so many tokens leave room for the cap
    if fit.cap is None or not 0 < number < tokens.most:
        return ("another --eplb-config.num_redundant_experts",)
    option = {"--max-num-batched-tokens": f" {number * tokens.share}"}
    return tuple(name + option.get(name, f"={number}") for name in tokens.bounds)


def tokens(given: Mapping[str, Any], environ: Mapping[str, str], minor: int | None) -> Tokens:
    """Return the tokens that a rank of vLLM 0.`minor` can have in a call.

    `given` are the settings of the command by name. If the release is not known, the calls of all
    releases count.
    """
    if minor is not None:
        return _Settings(given, environ, minor).tokens()
    found = [tokens(given, environ, minor) for minor in CHANGES]
    return Tokens(
        max(one.most for one in found),
        tuple(sorted({number for one in found for number in one.padded})),
        tuple(dict.fromkeys(name for one in found for name in one.bounds)),
        found[0].share,
        ("the release", *dict.fromkeys(text for one in found for text in one.assumed)),
    )


# The keys of JSON options that matter.
_KEYS = {
    "compilation_config": (
        *("cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size"),
    ),
    "speculative_config": ("num_speculative_tokens",),
}


class _Settings:
    """The settings of a command that matter."""

    def __init__(self, given: Mapping[str, Any], environ: Mapping[str, str], minor: int) -> None:
        self.minor = minor
        self.assumed: list[str] = []
        self.given: dict[str, Any] = {
            name: environ[name] for name in (_CHUNKS, _CHUNK_SIZE) if name in environ
        }
        for option, keys in _KEYS.items():
            value = json_keys(given.get(option, {}))
            if value is None:
                self.assumed.append(option)
            else:
                self.given.update((key, value[key]) for key in keys if value.get(key) is not None)
        self.given.update(given)

    def tokens(self) -> Tokens:
        ranks = self._number("tensor_parallel_size", 1)
        batched = self._batched()
        bound = "--max-num-batched-tokens" if self.minor >= 20 else _CHUNK_SIZE
        chunk = batched if self.minor >= 20 else self._number(_CHUNK_SIZE, _TOKENS)
        # vLLM's use_sequence_parallel_moe (config/parallel.py): TP ranks share the tokens.
        most = min(chunk, -(-batched // ranks))
        # The number of parts of a batch (config/parallel.py, num_ubatches).
        parts = 2 if self.given.get("enable_dbo") else self._number("ubatch_size", 1, least=0) or 1
        # DeepEP refuses calls larger than a chunk (csrc/deep_ep.cpp), even with chunks turned off.
        whole = 13 <= self.minor < 20 and self._number(_CHUNKS, 1, least=0) == 0
        padded = {most}
        for size in self._graphs(batched):
            for number in {size, size // parts, size - size // parts * (parts - 1)}:
                share = -(-number // ranks)
                if share <= chunk:
                    padded.add(share)
                elif not whole:
                    padded.update((chunk, share % chunk))
        padded.discard(0)
        return Tokens(most, tuple(sorted(padded)), (bound,), ranks, tuple(self.assumed))

    def _batched(self) -> int:
        number = self._number("max_num_batched_tokens", 0)
        if number:
            return number
        if self.given.get("enable_chunked_prefill") is False:
            self.assumed.append("max_num_batched_tokens, which follows max_model_len")
        doubled = self.minor >= 17 and self.given.get("performance_mode") == "throughput"
        return (_TOKENS if self.minor >= 20 else _CHUNKED_STEP) * (2 if doubled else 1)

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
        """Return the CUDA graph sizes that the command gives."""
        value = self.given.get("cudagraph_capture_sizes")
        if value is None:
            return []
        words = value if isinstance(value, list) else str(value).split()
        numbers = {integer(word) for word in words}
        if None in numbers or not numbers:
            self.assumed.append("cudagraph_capture_sizes")
            return []
        return sorted(number for number in numbers if number is not None)

    def _speculative(self) -> int:
        """Return the draft tokens of a step. The default of a draft model is not known."""
        if "speculative_config" in self.given and not self.given.get("num_speculative_tokens"):
            self.assumed.append("num_speculative_tokens")
        return self._number("num_speculative_tokens", 0, least=0)

    def _number(self, name: str, default: int, *, least: int = 1) -> int:
        """Return a setting; the default if it is not given, or not known."""
        if name not in self.given:
            return default
        number = integer(self.given[name])
        if number is None or not least <= number <= _MAX_NUMBER:
            self.assumed.append(name)
            return default
        return number


def json_keys(value: object) -> dict[str, Any] | None:
    """Return the keys of a JSON option of vLLM; None if they are not known."""
    if isinstance(value, str):
        from eplb_launch.vllm.values import json_object

        value = json_object(value, human_readable=True)
    return value if isinstance(value, dict) else None


def integer(value: object) -> int | None:
    """Return an integer as vLLM reads it from 256, "256" or "1k"; None if it is none."""
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
