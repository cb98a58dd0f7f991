"""A stand-in for vLLM's own function, for programs that start vLLM from Python."""

from __future__ import annotations

import os

from eplb_launch.launch import say
from eplb_launch.vllm.releases import CAP, VARIABLE, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Protocol

    class EPLBConfig(Protocol):
        """What is read of vLLM's EPLBConfig."""

        @property
        def use_async(self) -> bool: ...

    class ParallelConfig(Protocol):
        """What is read of vLLM's ParallelConfig."""

        @property
        def data_parallel_size(self) -> int: ...
        @property
        def enable_eplb(self) -> bool: ...
        @property
        def eplb_config(self) -> EPLBConfig: ...
        @property
        def all2all_backend(self) -> str | None: ...


_said = False


def override_envs_for_eplb(
    parallel_config: ParallelConfig, environ: MutableMapping[str, str] | None = None
) -> None:
    """Set NCCL_MAX_CTAS in `environ` where async EPLB could hang with DeepEP low-latency kernels.

    `environ` is `os.environ` where none is given. As vLLM 0.17 to 0.19 do it
    (`vllm/distributed/eplb/eplb_utils.py`, PR 32860): where `data_parallel_size > 1`,
    `enable_eplb`, `eplb_config.use_async` and `all2all_backend == "deepep_low_latency"` all hold,
    a value that is not empty and `str.isdigit()` stays, and anything else becomes "8", with one
    line on stderr, once per process. Call it before NCCL initialises.
    """
    global _said  # noqa: PLW0603 - once per process
    if not (
        parallel_config.data_parallel_size > 1
        and parallel_config.enable_eplb
        and parallel_config.eplb_config.use_async
        and parallel_config.all2all_backend == "deepep_low_latency"
    ):
        return
    if environ is None:  # not the default itself, which help() would print
        environ = os.environ
    if stays(environ.get(VARIABLE)):
        return
    environ[VARIABLE] = str(CAP)
    if not _said:
        _said = True
        say(
            f"set {VARIABLE}={CAP}: async EPLB with DeepEP low-latency "
            f"(data_parallel_size={parallel_config.data_parallel_size})"
        )
