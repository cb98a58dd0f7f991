"""Start a program in conditions that `subprocess` cannot create; run as `python -IS start.py SPEC`.

SPEC is a marshalled (path, argv, environ, conditions): `path` is executed with exactly the bytes
of `argv` and `environ`, after this process has run the Python statements in `conditions`.
`@PID@` in an entry of `environ` stands for the process id.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # conditions use its names
import ctypes
import marshal
import os
import sys

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        path, argv, environ, conditions = marshal.load(file)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    directory = os.path.dirname(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    pid = str(os.getpid()).encode()
    entries = [entry.replace(b"@PID@", pid) for entry in environ]
    c_argv = (ctypes.c_char_p * (len(argv) + 1))(*argv)
    c_environ = (ctypes.c_char_p * (len(entries) + 1))(*entries)
    exec(conditions)
    libc.execve(path, c_argv, c_environ)
    os.write(2, f"start.py: {path!r}: {os.strerror(ctypes.get_errno())}\n".encode())
    os._exit(98)
