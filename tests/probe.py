"""A replacement of probe.c for machines without a C compiler, as far as Python can do it.

It cannot show the dispositions of SIGINT, SIGPIPE and SIGXFSZ: CPython changes them at its start.
conftest.py adds a `#!` line. The report goes to the directory "reports" beside this file.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource

AT_EXECFN = 31
HIDDEN = (2, 13, 25)
MOST_DESCRIPTORS = 1100
FILES = {
    "status": "/proc/self/status",
    "timer-slack": "/proc/self/timerslack_ns",
    "oom": "/proc/self/oom_score_adj",
    "personality": "/proc/self/personality",
}


def raw(path: str) -> bytes:
    """Read a file of /proc."""
    with open(path, "rb") as file:
        return file.read()


def strings(path: str, skipped: int = 0) -> str:
    """Show NUL-terminated strings as the C probe does."""
    return "".join(word.hex() + "," for word in raw(path).split(b"\0")[skipped:-1])


def descriptor(fd: int) -> list[str]:
    """Show a descriptor as the C probe does, if it is open."""
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return []
    try:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        offset = -1
    about = os.fstat(fd)
    mode = fcntl.fcntl(fd, fcntl.F_GETFL)
    target = os.readlink(f"/proc/self/fd/{fd}")
    return [
        f"fd.{fd} close-on-exec={flags} flags={mode:o} offset={offset}"  # noqa: ISC004
        f" device={about.st_dev:x} inode={about.st_ino} {target}",
    ]


def signals() -> list[str]:
    """Show disposition, mask and pending set of each signal."""
    status = raw("/proc/self/status").decode().splitlines()
    sets = {}
    for line in status:
        key, _, value = line.partition(":\t")
        if key in ("SigIgn", "SigBlk", "ShdPnd"):
            sets[key] = int(value, 16)
    return [
        f"signal.{number} {'ignored' if sets['SigIgn'] >> number - 1 & 1 else 'default'}"
        f"{' blocked' if sets['SigBlk'] >> number - 1 & 1 else ''}"
        f"{' pending' if sets['ShdPnd'] >> number - 1 & 1 else ''} flags=0"
        for number in (*range(1, 32), *range(34, 65))
        if number not in HIDDEN
    ]


def report() -> list[str]:
    """Show all of it."""
    mask = os.umask(0)
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_char_p
    libc.getauxval.argtypes = [ctypes.c_ulong]
    lines = [line for fd in range(MOST_DESCRIPTORS) for line in descriptor(fd)]
    lines += signals()
    lines += [
        "argv " + strings("/proc/self/cmdline", skipped=2),
        "environ " + strings("/proc/self/environ"),
        "execfn " + libc.getauxval(AT_EXECFN).hex(),
        "cwd " + os.fsencode(os.readlink("/proc/self/cwd")).hex(),
        f"umask {mask:o}",
        f"nice {os.getpriority(os.PRIO_PROCESS, 0)}",
        f"pid {os.getpid()}",
        f"ppid {os.getppid()}",
        f"pgid {os.getpgrp()}",
        f"sid {os.getsid(0)}",
    ]
    for number in range(16):
        soft, hard = resource.getrlimit(number)
        lines.append(f"rlimit.{number} {soft:x} {hard:x}")
    return lines + [f"{name} {raw(path).hex()}" for name, path in FILES.items()]


if __name__ == "__main__":
    text = "\n".join(report())
    directory = os.path.join(os.path.dirname(os.path.realpath(__file__)), "reports")
    with open(os.path.join(directory, str(os.getpid())), "w") as file:
        file.write(text)
