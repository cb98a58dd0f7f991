"""A replacement of vLLM's own function, for programs that start vLLM from Python."""

from __future__ import annotations

import os

from eplb_launch.launch import say
from eplb_launch.vllm.releases import CAP, VARIABLE, stays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Protocol

    class EPLBConfig(Protocol):
        """The part of vLLM's EPLBConfig that is read."""

        @property
        def use_async(self) -> bool: ...

    class ParallelConfig(Protocol):
        """The part of vLLM's ParallelConfig that is read."""

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
    """Set NCCL_MAX_CTAS in `environ` if async EPLB could hang with DeepEP low-latency kernels.

    It does what vLLM 0.17 to 0.19 do (`vllm/distributed/eplb/eplb_utils.py`, PR 32860), if
    `data_parallel_size > 1`, `enable_eplb`, `eplb_config.use_async` and
    `all2all_backend == "deepep_low_latency"` all hold: a value of digits stays, and any other
    becomes "8". One line on stderr says so, once per process. `environ` is `os.environ` by default.
    Call it before NCCL initialises.
    """
    global _said  # noqa: PLW0603 - once per process
    if not (
        parallel_config.data_parallel_size > 1
        and parallel_config.enable_eplb
        and parallel_config.eplb_config.use_async
        and parallel_config.all2all_backend == "deepep_low_latency"
    ):
        return
    if environ is None:  # as a default value, help() would print all of it
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
