"""vLLM's own exchange of a layer's experts, from its sources, without the rest of vLLM.

Only the modules that move the weights are loaded from the folder that is named, an installation or
a source tree; every other module of vLLM is an empty one that has whatever is asked of it.
"""

from __future__ import annotations

import asyncio
import ctypes.util
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REAL = {
    "vllm.distributed.eplb.rebalance_execute",
    "vllm.distributed.eplb.eplb_communicator",
    "vllm.distributed.device_communicators.pynccl",
    "vllm.distributed.device_communicators.pynccl_wrapper",
}


class _Empty(types.ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # Names of classes stand in annotations, which are evaluated.
        value: Any = type(name, (), {}) if name[:1].isupper() else mock.MagicMock(name=name)
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules in REAL as files, and makes the others up."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: object, target: object = None) -> Any:  # noqa: ARG002
        if name.partition(".")[0] != "vllm":
            return None
        file = os.path.join(self.folder, *name.split(".")) + ".py"
        if name in REAL and os.path.isfile(file):
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        made: Any = module
        made.__path__ = []


class Exchange:
    """Moves experts of one layer between ranks as vLLM's async worker does."""

    def __init__(self, folder: str, communicator: str, device: Any, groups: Any) -> None:
        """Load vLLM's modules; `groups` are a NCCL and a gloo process group of all ranks."""
        import torch  # type: ignore[import-not-found]

        self.torch = torch
        self.group, gloo = groups
        self.rank = self.group.rank()
        self.stream = torch.cuda.Stream(device)
        sys.meta_path.insert(0, _Finder(folder))
        import vllm.envs  # type: ignore[import-not-found]
        import vllm.logger  # type: ignore[import-not-found]
        import vllm.platforms  # type: ignore[import-not-found]
        import vllm.utils.nccl  # type: ignore[import-not-found]
        import vllm.utils.torch_utils  # type: ignore[import-not-found]

        vllm.envs.VLLM_DISABLE_PYNCCL = False
        vllm.logger.init_logger = lambda name: mock.MagicMock(name=name)
        vllm.platforms.current_platform = types.SimpleNamespace(
            fp8_dtype=lambda: torch.float8_e4m3fn, is_rocm=lambda: False
        )
        vllm.utils.torch_utils.current_stream = torch.cuda.current_stream
        # The one that PyTorch has loaded.
        vllm.utils.nccl.find_nccl_library = lambda: (
            ctypes.util.find_library("nccl") or "libnccl.so.2"
        )
        # Not `from vllm… import`: an empty module has every name.
        self.execute = importlib.import_module("vllm.distributed.eplb.rebalance_execute")
        self.communicator: Any = None
        if hasattr(self.execute, "EplbCommunicator"):
            self.communicator = self._communicator(communicator, gloo, device)
        self.loop = asyncio.new_event_loop()

    def _communicator(self, name: str, gloo: Any, device: Any) -> Any:
        eplb_communicator = importlib.import_module("vllm.distributed.eplb.eplb_communicator")
        if name == "pynccl":
            from vllm.distributed.device_communicators.pynccl import (  # type: ignore[import-not-found]
                PyNcclCommunicator,
            )

            nccl = PyNcclCommunicator(gloo, device)
            if not nccl.available:
                raise RuntimeError("pynccl finds no NCCL")
            return eplb_communicator.PyNcclEplbCommunicator(nccl, self.stream)
        return eplb_communicator.TorchDistNcclEplbCommunicator(self.group, self.stream)

    def move(
        self, old: Any, new: Any, weights: Sequence[Any], buffers: Sequence[Any]
    ) -> tuple[Any, Callable[[], list[int]]]:
        """Start to move; return an event that is there when all has arrived, and the rows."""
        torch = self.torch
        old, new = torch.from_numpy(old), torch.from_numpy(new)
        if self.communicator is not None:
            found = self.execute.transfer_layer(
                old,
                new,
                weights,
                buffers,
                self.group,
                self.communicator,
                cuda_stream=self.stream,
            )
            rows = lambda: [int(row) for row in found.recv_primary_mask.nonzero()[0]]  # noqa: E731
        else:
            result = self.loop.run_until_complete(
                self.execute.transfer_layer(
                    old[None],
                    new[None],
                    [weights],
                    buffers,
                    self.group,
                    layer=0,
                    cuda_stream=self.stream,
                )
            )
            received = result[2]
            if isinstance(received, dict):  # up to 0.13
                rows = lambda: sorted(received.values())  # noqa: E731
            else:
                rows = lambda: [int(row) for row in received.recv_primary_mask.nonzero()[0]]  # noqa: E731
        event = torch.cuda.Event()
        self.stream.record_event(event)
        return event, rows
