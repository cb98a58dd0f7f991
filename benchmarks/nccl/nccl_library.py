"""NCCL called directly, as vLLM's `pynccl` calls it: without torch.distributed and its threads."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
import time
from typing import Any

_BYTE = 0  # ncclInt8


class _UniqueId(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_byte * 128),)


class Communicator:
    """A communicator of one or two ranks on the current device. Import torch before."""

    def __init__(self, rank: int, ranks: int, id_file: str) -> None:
        """Initialise NCCL; rank 0 tells the other through `id_file`."""
        self.library = _library()
        self.rank = rank
        unique = _UniqueId()
        if rank == 0:
            self._call("ncclGetUniqueId", ctypes.byref(unique))
            with open(id_file + ".new", "wb") as file:
                file.write(bytes(unique))
            os.rename(id_file + ".new", id_file)
        while not os.path.exists(id_file):  # the alarm ends this if nothing else does
            time.sleep(0.01)
        with open(id_file, "rb") as file:
            unique = _UniqueId.from_buffer_copy(file.read())
        self.handle = ctypes.c_void_p()
        self._call("ncclCommInitRank", ctypes.byref(self.handle), ranks, unique, rank)

    @property
    def version(self) -> str:
        """The release of the library that is loaded, such as 2.28.9."""
        number = ctypes.c_int()
        self._call("ncclGetVersion", ctypes.byref(number))
        major, rest = divmod(number.value, 10000)
        return f"{major}.{rest // 100}.{rest % 100}"

    def exchange(self, stream: Any, *, send: Any = None, receive: Any = None, peer: int) -> None:
        """Send a tensor, receive one, or both at once."""
        raw = ctypes.c_void_p(stream.cuda_stream)
        self.start()
        for name, tensor in (("ncclSend", send), ("ncclRecv", receive)):
            if tensor is not None:
                place, size = ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(tensor.nbytes)
                self._call(name, place, size, _BYTE, peer, self.handle, raw)
        self.end()

    def start(self) -> None:
        """Begin a group: what follows is one launch of NCCL's kernel. Groups may be nested."""
        self._call("ncclGroupStart")

    def end(self) -> None:
        """End a group."""
        self._call("ncclGroupEnd")

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            describe = self.library.ncclGetErrorString
            describe.restype = ctypes.c_char_p
            raise RuntimeError(f"{name}: {(describe(code) or b'').decode()}")


def _library() -> ctypes.CDLL:
    """Return the NCCL that PyTorch has loaded, or would load."""
    names = ["libnccl.so.2"]
    for folder in sys.path:
        names += glob.glob(os.path.join(folder, "nvidia/nccl/lib/libnccl.so.2"))
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError("NCCL is not found")
