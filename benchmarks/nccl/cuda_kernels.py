"""The kernels of kernels.cu, compiled by NVRTC and launched through the driver.

Neither nvcc nor a header is needed: NVRTC comes with PyTorch. PyTorch has no way to launch a
kernel cooperatively or in clusters, the driver has.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
import time
from typing import Any

THREADS = 1024  # of a block, as DeepEP's
# More than half of what an SM has, so that no two blocks share one; no more, so that what keeps
# a block away from an SM with one of NCCL's is what keeps DeepEP's away: the registers.
SHARED_BYTES = 116 * 1024
LIMIT_NS = 60 * 10**9  # a dispatch ends by itself after this
PROBE_NS = 2 * 10**6
SLOT = 16  # words of a launch, in the counts and in the flags
SLOTS = 256
STARTED, ENDED, PEER, GIVE_UP = range(4)

_SMS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
_MAX_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_COOPERATIVE, _CLUSTER = 2, 4  # CU_LAUNCH_ATTRIBUTE_…


class _Attribute(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_int),
        ("pad", ctypes.c_char * 4),
        ("value", ctypes.c_uint * 16),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


class Flags:
    """What a launch of `dispatch` and the host tell each other."""

    def __init__(self, address: int) -> None:
        """Look at the words at `address`, which the GPU writes."""
        self.address = address
        self._words = (ctypes.c_uint32 * SLOT).from_address(address)

    def __getitem__(self, index: int) -> bool:
        """Return whether the flag is up."""
        return bool(self._words[index])

    def set(self, index: int) -> None:
        """Put the flag up."""
        self._words[index] = 1


class Kernels:
    """`dispatch` and `probe`, in PyTorch's own context, with a stream of their own."""

    def __init__(self, torch: Any, device: int) -> None:
        """Compile, load, and run each once: nothing may be loaded later, while a kernel waits."""
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.torch = torch
        self.stream = torch.cuda.Stream()
        # Pinned memory has the same address on the GPU.
        self.flags_memory = torch.zeros(SLOTS * SLOT, dtype=torch.int32).pin_memory()
        self.seen = torch.zeros(1024, dtype=torch.int32).pin_memory()
        self.counts = torch.zeros(SLOTS * SLOT, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()
        self.used = 0
        self.sms = self._attribute(_SMS, device)
        target = f"sm_{self._attribute(_MAJOR, device)}{self._attribute(_MINOR, device)}"
        self.module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(self.module), compiled(target))
        self.functions = {name: self._function(name) for name in (b"dispatch", b"probe")}
        for pairs in (False, True):
            flags = self.dispatch(2, pairs=pairs, alone=True)
            torch.cuda.synchronize()
            if not flags[ENDED]:
                raise RuntimeError("the stand-in kernel does not run")
        self.free_sms()

    def dispatch(self, blocks: int, *, pairs: bool, alone: bool) -> Flags:
        """Launch the stand-in for DeepEP's dispatch; with `alone` it waits for no peer."""
        if self.used == SLOTS:
            raise RuntimeError("too many launches")
        offset = 4 * SLOT * self.used
        self.used += 1
        flags = Flags(self.flags_memory.data_ptr() + offset)
        if alone:
            flags.set(PEER)
        arguments = (
            ctypes.c_void_p(self.counts.data_ptr() + offset),
            ctypes.c_void_p(flags.address),
            ctypes.c_ulonglong(LIMIT_NS),
        )
        self._launch(b"dispatch", blocks, arguments, cooperative=True, pairs=pairs)
        return flags

    def free_sms(self) -> int:
        """Return how many SMs have room for a block such as dispatch's right now."""
        address = self.seen.data_ptr()
        ctypes.memset(address, 0, 4 * 1024)
        arguments = (ctypes.c_void_p(address), ctypes.c_ulonglong(PROBE_NS))
        self._launch(b"probe", self.sms, arguments)
        done = self.torch.cuda.Event()
        done.record(self.stream)
        # The blocks that find no room run after the others.
        end = time.monotonic() + 20
        while not done.query():
            if time.monotonic() > end:
                raise TimeoutError("the probe finds no SM free")
            time.sleep(0.001)
        return sum((ctypes.c_uint32 * 1024).from_address(address))

    def _launch(
        self,
        name: bytes,
        blocks: int,
        arguments: tuple[Any, ...],
        *,
        cooperative: bool = False,
        pairs: bool = False,
    ) -> None:
        attributes = (_Attribute * 2)()
        attributes[0].id, attributes[0].value[0] = _COOPERATIVE, int(cooperative)
        attributes[1].id = _CLUSTER
        attributes[1].value[:3] = (2 if pairs else 1, 1, 1)
        config = _Config(
            grid=(blocks, 1, 1),
            block=(THREADS, 1, 1),
            shared=SHARED_BYTES,
            stream=self.stream.cuda_stream,
            attributes=attributes,
            count=2,
        )
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        function = self.functions[name]
        self._call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)

    def _function(self, name: bytes) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), self.module, name)
        self._call("cuFuncSetAttribute", function, _MAX_SHARED, SHARED_BYTES)
        return function

    def _attribute(self, number: int, device: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.cuda.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'').decode()} ({code})")


def compiled(target: str) -> bytes:
    """Return the machine code of kernels.cu for a GPU such as sm_90."""
    nvrtc = _nvrtc()
    with open(os.path.join(os.path.dirname(__file__), "kernels.cu"), "rb") as file:
        source = file.read()
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None):
        raise RuntimeError("NVRTC takes no program")
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={target}".encode())
    if nvrtc.nvrtcCompileProgram(program, 1, options):
        log = _read(nvrtc, program, "ProgramLog")
        raise RuntimeError(f"kernels.cu: {log.decode(errors='replace')}")
    return _read(nvrtc, program, "CUBIN")


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, content)
    return content.raw


def _nvrtc() -> ctypes.CDLL:
    names = [f"libnvrtc.so.{number}" for number in (13, 12)]
    for folder in sys.path:
        names += sorted(glob.glob(os.path.join(folder, "nvidia/*/lib/libnvrtc.so.*")))
    names += sorted(glob.glob("/usr/local/cuda*/lib64/libnvrtc.so.*"))
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError("NVRTC is not found")
