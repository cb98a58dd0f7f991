"""A process that reads shell scripts with the grammar of bash, for as long as it lives.

The grammar is a C library that some texts crash (tree-sitter-bash 0.25.1). A script of somebody
else must not end the review of all the others: a worker that dies, or takes too long, is replaced.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import select
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from eplb_launch.check import grammar
from eplb_launch.check.grammar import Command, Evaluated, Script

if TYPE_CHECKING:
    from typing import BinaryIO

TIMEOUT = 20.0  # seconds for one script
_LENGTH = 8  # bytes that say how long a message is
# Isolated, with the import path of this process: the folder that is reviewed must not be on it.
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from {0} import serve; serve()"


def installed() -> bool:
    """Whether the grammar is there."""
    try:
        return all(find_spec(name) is not None for name in ("tree_sitter", "tree_sitter_bash"))
    except ValueError:  # sys.modules says that it is not
        return False


def read(script: str) -> Script:
    """Return what `grammar.read` does; a broken script if it crashed or took too long."""
    try:
        answer = _Worker.living().ask(script)
    except (EOFError, OSError):
        _Worker.end()
        return Script(broken=True)
    return Script(
        tuple(Command(*row) for row in answer["commands"]),
        tuple(Evaluated(*row) for row in answer["evaluated"]),
        answer["broken"],
    )


class _Worker:
    """The process, from this side."""

    now: _Worker | None = None

    def __init__(self) -> None:
        path = [os.path.abspath(folder) for folder in sys.path if folder]
        command = [sys.executable, "-I", "-c", _CODE.format(__name__), *path]
        self.process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what the loader says of a crash
            bufsize=0,
        )

    @classmethod
    def living(cls) -> _Worker:
        """Return the worker, started if there is none."""
        if cls.now is None:
            cls.now = cls()
            atexit.register(cls.end)
        return cls.now

    @classmethod
    def end(cls) -> None:
        """End the worker."""
        worker, cls.now = cls.now, None
        if worker is not None:
            atexit.unregister(cls.end)
            worker.process.kill()
            with worker.process:
                pass

    def ask(self, script: str) -> Any:
        """Return the answer for a script; EOFError, OSError where there is none."""
        source, sink = self.process.stdout, self.process.stdin
        if source is None or sink is None:
            raise EOFError
        _send(sink, script.encode("utf-8", "surrogatepass"))
        return json.loads(_receive(source, time.monotonic() + TIMEOUT))


def serve() -> None:
    """Answer scripts from standard input until it ends: the worker's side."""
    source, sink = (io.FileIO(number, mode, closefd=False) for number, mode in ((0, "r"), (1, "w")))
    while True:
        try:
            script = _receive(source, None).decode("utf-8", "surrogatepass")
        except EOFError:
            return
        found = grammar.read(script)
        rows = {
            "commands": [(c.start, c.end, c.line, c.text) for c in found.commands],
            "evaluated": [(e.start, e.end, e.launched) for e in found.evaluated],
            "broken": found.broken,
        }
        _send(sink, json.dumps(rows).encode())


def _send(sink: Any, message: bytes) -> None:
    left = memoryview(len(message).to_bytes(_LENGTH, "big") + message)
    while left:
        left = left[sink.write(left) :]


def _receive(source: Any, until: float | None) -> bytes:
    """Return a message; EOFError if there is none to come, TimeoutError at `until`."""
    length = int.from_bytes(_read(source, _LENGTH, until), "big")
    return _read(source, length, until)


def _read(source: BinaryIO, size: int, until: float | None) -> bytes:
    pieces = []
    while size:
        if until is not None:
            left = max(0.0, until - time.monotonic())
            if not select.select([source], [], [], left)[0]:
                raise TimeoutError
        piece = source.read(size)
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
