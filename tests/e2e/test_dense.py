"""A dense model, under a parent that does what systemd does: sockets, pid, signals, status.

There is nothing to set here, so nothing at all may differ from the direct start. vLLM itself
neither notifies nor takes a socket (0.32.0 has no such option): a plugin does both from within the
server, and so shows that they arrive there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.conftest import House, Server

pytestmark = pytest.mark.timeout(1800)

QUESTION = {"model": "dense", "prompt": "Hello", "max_tokens": 8, "temperature": 0}


@dataclasses.dataclass
class Service:
    """A server, and the ends of its sockets that its parent has kept."""

    server: Server
    notified: socket.socket
    client: socket.socket


@contextlib.contextmanager
def service(server: Server, argv: list[str]) -> Iterator[Service]:
    """Start a server as systemd does: with NOTIFY_SOCKET, LISTEN_FDS and SIGPIPE ignored."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        address = f"{server.folder}/notify"
        notified.bind(address)
        notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        handed_on = listening.fileno()
        server.environ |= {"NOTIFY_SOCKET": address, "LISTEN_FDS": "1", "LISTEN_PID": "@PID@"}
        conditions = f"signal.signal(signal.SIGPIPE, signal.SIG_IGN); os.dup2({handed_on}, 3)"
        if handed_on != 3:
            conditions += f"; os.close({handed_on})"
        server.start(argv, conditions, pass_fds=[handed_on])
        yield Service(server, notified, client)


@pytest.fixture(scope="module")
def services(house: House) -> Iterator[dict[str, Service]]:
    """Return the server as it is started directly, and through the launcher."""
    with house.servers("dense", "direct", "launched") as made, contextlib.ExitStack() as stack:
        found = {}
        for kind, server in made.items():
            front = house.launcher if kind == "launched" else []
            argv = [*front, *house.serve("dense", server)]
            found[kind] = stack.enter_context(service(server, argv))
        for server in made.values():
            server.wait()
        yield found


def test_it_answers_as_without_the_launcher(services: dict[str, Service]) -> None:
    replies = {
        kind: found.server.get("/v1/completions", QUESTION) for kind, found in services.items()
    }
    assert replies["launched"]["usage"]["completion_tokens"] == 8
    texts = {kind: reply["choices"][0]["text"] for kind, reply in replies.items()}
    assert texts["launched"] == texts["direct"] != ""


def test_nothing_is_set_and_nothing_said(services: dict[str, Service]) -> None:
    states = {kind: found.server.state() for kind, found in services.items()}
    assert states["launched"] == states["direct"]
    for found in services.values():
        assert not found.server.said()
        reports = found.server.reports()
        assert {value for _, _, value in reports} == {None}
        cores = [p["pid"] for p in found.server.ps()["processes"]]
        assert cores
        assert {(pid, "plugin") for pid in [found.server.pid, *cores]} <= {r[:2] for r in reports}


@pytest.mark.parametrize("kind", ["direct", "launched"])
def test_its_parent_is_notified_by_the_process_that_it_started(
    services: dict[str, Service], kind: str
) -> None:
    found = services[kind]
    found.notified.settimeout(10)
    text, (ancillary,), _, _ = found.notified.recvmsg(64, socket.CMSG_SPACE(12))
    pid, _, _ = struct.unpack("3i", ancillary[2])
    assert (text, pid) == (b"READY=1", found.server.process.pid)


@pytest.mark.parametrize("kind", ["direct", "launched"])
def test_the_listening_socket_is_its(services: dict[str, Service], kind: str) -> None:
    found = services[kind]
    found.client.settimeout(10)
    assert found.client.recv(64) == b"%d" % found.server.process.pid


def test_ps_sees_it_as_without_the_launcher(services: dict[str, Service]) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for kind, found in services.items():
        row = found.server.ps()
        assert row["pid"] == found.server.process.pid
        assert [process["title"] for process in row["processes"]] == [
            "VLLM::EngineCore",
            "VLLM::Worker",
        ]
        same = ("kind", "entry", "release", "workers", "verdict", "cause", "cap", "environment")
        rows[kind] = {key: row[key] for key in same}
    assert rows["launched"] == rows["direct"]
    assert rows["launched"]["verdict"] == "not needed"
    assert rows["launched"]["release"]["version"].startswith("0.32.0")


def test_sigterm_ends_it_as_without_the_launcher(services: dict[str, Service]) -> None:
    ended = {kind: found.server.end(signal.SIGTERM) for kind, found in services.items()}
    assert ended["launched"] == ended["direct"]
    assert ended["launched"][1] == []
