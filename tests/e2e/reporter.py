"""A plugin of vLLM that says what each process sees, and does what a service does for systemd.

It runs inside of the server and its workers: `sitecustomize` calls it when an interpreter starts,
vLLM when a process loads its plugins (`vllm.general_plugins`), with the model still to come.
Each call adds a line to the file that E2E_REPORTS names.
"""

from __future__ import annotations

import json
import os
import socket

NAME = "NCCL_MAX_CTAS"
FIRST_HANDED_ON = 3  # sd_listen_fds(3)


def report(when: str) -> None:
    """Add a line: this process, the moment, and the variable in Python's os.environ."""
    if "E2E_REPORTS" in os.environ:
        seen = {"pid": os.getpid(), "when": when, "value": os.environ.get(NAME)}
        with open(os.environ["E2E_REPORTS"], "a") as file:
            file.write(json.dumps(seen) + "\n")


def loaded() -> None:
    """Run as the plugin. Use the sockets in the process that they are for."""
    report("plugin")
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        answer()
        notify()


def answer() -> None:
    """Tell the first client of the socket that was handed on which process it has reached."""
    with socket.socket(fileno=os.dup(FIRST_HANDED_ON)) as listening:
        listening.settimeout(10)
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"%d" % os.getpid())


def notify() -> None:
    """Tell systemd, or whoever started us, as sd_notify(3) does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
