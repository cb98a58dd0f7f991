"""Which processes are servers, and which belong to them: trees that are hard to produce."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from conftest import counted

from eplb_launch.ps.processes import Process
from eplb_launch.ps.servers import GONE, PROGRAM, SERVER, affordable, belongs_to, group

SERVE = "/v/bin/python3 /v/bin/vllm serve m"
SPAWN = "/v/bin/python3 -c 'from multiprocessing.spawn import spawn_main; spawn_main()'"
FORKSERVER = "/v/bin/python3 -c 'from multiprocessing.forkserver import main; main(3)'"


def process(pid: int, parent: int, command: str, **more: Any) -> Process:
    """Return a process; a title is padded as setproctitle does."""
    words = [command] if "::" in command else shlex.split(command)
    cmdline = "\0".join(words).encode() + b"\0"
    cmdline += b"\0" * 20 if "::" in command else b""
    name = (command if "::" in command else words[0].rpartition("/")[2] if words else "")[:15]
    hinted = "vllm" in command or "huggingfaceserver" in command
    facts = {"group": 5, "session": 5, "state": "S", "ticks": pid, "hinted": hinted, **more}
    return Process(pid=pid, parent=parent, name=name, cmdline=cmdline, **facts)


def tree(*rows: tuple[Any, ...]) -> dict[int, Process]:
    return {row[0]: process(*row[:3], **(row[3] if len(row) > 3 else {})) for row in rows}


INIT = (1, 0, "/sbin/init", {"group": 1, "session": 1})
# The processes, and their groups: pid, kind, entry, pids of the members and of the starters.
TREES: dict[str, tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]] = {
    "nothing": ([INIT, (7, 1, "bash")], []),
    "all in a container": (
        [(1, 0, SERVE), (8, 1, "VLLM::EngineCore"), (9, 8, "VLLM::Worker_TP0")],
        [(1, SERVER, "vllm serve", [8, 9], [])],
    ),
    "two servers": (
        [INIT, (7, 1, SERVE), (8, 1, SERVE), (9, 7, "VLLM::EngineCore"), (10, 8, "A::EngineCore")],
        [(7, SERVER, "vllm serve", [9], []), (8, SERVER, "vllm serve", [10], [])],
    ),
    "a DP supervisor": (
        [
            INIT,
            (7, 1, SERVE),
            (8, 7, "VLLM::APIServer_DP0", {"group": 8}),
            (9, 8, "VLLM::EngineCore_DP0", {"group": 8}),
        ],
        [(7, SERVER, "vllm serve", [8, 9], [])],
    ),
    "by a fork server": (
        [INIT, (7, 1, SERVE), (8, 7, FORKSERVER), (9, 8, "VLLM::EngineCore")],
        [(7, SERVER, "vllm serve", [9], [])],
    ),
    "module": (
        [INIT, (7, 1, "python3 -m vllm.entrypoints.openai.api_server --model m")],
        [(7, SERVER, "vllm.entrypoints.openai.api_server", [], [])],
    ),
    "outside of vLLM": (
        [INIT, (7, 1, "python3 -m dynamo.vllm --model m"), (8, 1, "python -m huggingfaceserver")],
        [(7, SERVER, "dynamo.vllm", [], []), (8, SERVER, "huggingfaceserver", [], [])],
    ),
    "a client and other commands of vLLM": (
        [INIT, (7, 1, "/v/bin/python3 /v/bin/vllm bench serve"), (8, 1, "python vllm chat")],
        [],
    ),
    "commands about vLLM": (
        [INIT, (7, 1, "grep -r vllm serve"), (8, 1, "vim vllm"), (9, 1, "tail -f vllm.log")],
        [],
    ),
    "a sweep starts servers": (
        [
            INIT,
            (7, 1, "/v/bin/python3 /v/bin/vllm bench sweep serve --serve-cmd 'vllm serve m'"),
            (8, 7, SERVE),
        ],
        [(8, SERVER, "vllm serve", [], [])],
    ),
    "tini and uv above": (
        [
            (1, 0, "tini -- uv run vllm serve m"),
            (7, 1, "uv run vllm serve m"),
            (8, 7, SERVE),
            (9, 8, "VLLM::EngineCore"),
        ],
        [(8, SERVER, "vllm serve", [9], [7, 1])],
    ),
    "containers, seen from the host": (
        [
            INIT,
            (7, 1, "docker run vllm/vllm-openai --model m --enable-eplb"),
            (8, 1, "docker exec c vllm serve m"),
            (9, 1, "kubectl exec pod -- vllm serve m"),
            (10, 1, "containerd-shim -id vllm"),
            (11, 10, SERVE, {"group": 11, "session": 11}),
        ],
        [(11, SERVER, "vllm serve", [], [])],
    ),
    "the server is gone, init has the rest": (
        [INIT, (8, 1, "VLLM::EngineCore"), (9, 8, "VLLM::Worker_TP0"), (10, 8, "VLLM::Worker_TP1")],
        [(8, GONE, "", [8, 9, 10], [])],
    ),
    "the servers are gone, two of them": (
        [
            INIT,
            (8, 1, "VLLM::EngineCore_DP0"),
            (9, 1, "VLLM::EngineCore_DP1"),
            (10, 1, "VLLM::EngineCore", {"group": 6}),
            (11, 1, "B::EngineCore"),
        ],
        [(8, GONE, "", [8, 9], []), (10, GONE, "", [10], []), (11, GONE, "", [11], [])],
    ),
    "gone in a container, a shell is init": (
        [
            (1, 0, "sh -c 'vllm serve m; sleep 9'"),
            (8, 1, "VLLM::EngineCore"),
        ],
        [(8, GONE, "", [8], [])],
    ),
    "gone, and the parent is outside of the container": (
        [(8, 0, "VLLM::EngineCore")],
        [(8, GONE, "", [8], [])],
    ),
    "gone, and a session manager has them": (
        [INIT, (7, 1, "systemd --user", {"session": 7, "group": 7}), (8, 7, "VLLM::EngineCore")],
        [(8, GONE, "", [8], [])],
    ),
    "gone, and a later process cannot be the parent": (
        [INIT, (7, 1, "python3 reaper.py", {"ticks": 100}), (8, 7, "VLLM::EngineCore")],
        [(8, GONE, "", [8], [])],
    ),
    "gone, and a helper of Python's is left": (
        [INIT, (8, 1, SPAWN), (9, 8, "VLLM::EngineCore")],
        [(8, GONE, "", [9], [])],
    ),
    "a script": (
        [INIT, (7, 1, "python3 offline.py"), (8, 7, "VLLM::EngineCore")],
        [(7, PROGRAM, "", [8], [])],
    ),
    "a script, spawned": (
        [INIT, (7, 1, "python3 offline.py"), (8, 7, SPAWN), (9, 8, "VLLM::EngineCore")],
        [(7, PROGRAM, "", [9], [])],
    ),
    "an application of another kind": (
        [INIT, (7, 1, "/opt/app/serve-llm --port 1"), (8, 7, "VLLM::EngineCore")],
        [(7, PROGRAM, "", [8], [])],
    ),
    "a Ray actor": (
        [INIT, (7, 1, "ray::ServeReplica:m"), (8, 7, "VLLM::EngineCore")],
        [(7, PROGRAM, "", [8], [])],
    ),
    "workers in Ray actors of a server": (
        [
            INIT,
            (7, 1, SERVE),
            (8, 7, "raylet"),
            (9, 8, "ray::DPEngineCoreActor"),
            (10, 9, "VLLM::Worker"),
        ],
        [(7, SERVER, "vllm serve", [10], [])],
    ),
    "Ray's own names are no titles of vLLM": (
        [INIT, (7, 1, "ray::Worker"), (8, 1, "ray::EngineCore"), (9, 1, "sglang::scheduler")],
        [],
    ),
    "titles of others": (
        [
            INIT,
            (7, 1, "x::Workers"),
            (8, 1, "x::WorkerPool_1"),
            (9, 1, "a::Engine"),
            (10, 1, "a::DPCoordinator_"),
        ],
        [],
    ),
    "zombies": (
        [
            INIT,
            (7, 1, SERVE),
            (8, 7, "VLLM::EngineCore_DP0", {"state": "Z"}),
            (9, 7, "VLLM::EngineCore_DP1"),
        ],
        [(7, SERVER, "vllm serve", [9], [])],
    ),
    "pids that came round again": (
        [(7, 8, "VLLM::EngineCore"), (8, 7, "VLLM::Worker")],
        [(8, GONE, "", [7, 8], [])],
    ),
}


@pytest.mark.parametrize("case", TREES.values(), ids=TREES)
def test_processes_are_grouped_to_their_server(
    case: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]],
) -> None:
    rows, expected = case
    processes = tree(*rows)
    found = group(processes)
    assert [
        (
            one.head.pid,
            one.kind,
            one.entry,
            [member.pid for member in one.members],
            [starter.pid for starter in one.starters],
        )
        for one in found
    ] == expected


def test_a_process_belongs_to_the_server_above_it() -> None:
    processes = tree(
        INIT,
        (5, 1, "bash"),
        (6, 5, "sh -c 'vllm serve m; true'"),
        (7, 6, SERVE),
        (8, 7, "VLLM::EngineCore"),
        (9, 8, SPAWN),
        (10, 6, "sleep 1"),
    )
    groups = group(processes)
    found = {pid: belongs_to(pid, groups, processes) for pid in (*processes, 99)}
    assert {pid: one.head.pid if one else None for pid, one in found.items()} == {
        **dict.fromkeys((1, 5, 10, 99)),  # a shell has other children too
        **dict.fromkeys((6, 7, 8, 9), 7),
    }


DOUBLES = "set -- a b c d; " + 'set -- "$@" "$@"; ' * 40 + 'vllm serve m "$@"'


@pytest.mark.parametrize(
    "above",
    [
        pytest.param(["sh", "-c", DOUBLES], id="a shell"),
        pytest.param(["env", "bash", "-c", DOUBLES], id="behind env"),
        pytest.param(["timeout", "9", "nice", "bash", "-ec", DOUBLES], id="behind more"),
    ],
)
def test_a_shell_string_above_a_server_is_not_read(above: list[str]) -> None:
    """This runs outside of the child process, and its author decides how long reading takes."""
    processes = tree(INIT, (7, 1, shlex.join(above)), (8, 7, SERVE))
    [found], work = counted(group, processes)
    assert (found.head.pid, [process.pid for process in found.starters]) == (8, [7])
    assert work < 20_000


@pytest.mark.parametrize("word", ["env", "sudo", "xargs", "uv run", "python", "time", "x", "sh -c"])
def test_a_command_of_many_words_takes_no_longer_than_its_words(word: str) -> None:
    works = []
    for count in (1_000, 4_000):
        command = " ".join([word] * count) + " vllm serve m"
        works.append(counted(group, tree(INIT, (7, 1, command)))[1])
    assert works[1] < 6 * works[0] + 2_000


def test_among_thousands_of_long_commands_the_short_ones_are_read() -> None:
    long = "env " * 900 + "vllm serve m"
    rows = [(pid, 1, long) for pid in range(100, 600)]
    processes = affordable(tree(INIT, *rows, (700, 1, SERVE), (701, 1, "bash " * 9_000)))
    cut = [pid for pid, process in processes.items() if process.cut]
    assert len(cut) > 300
    assert not {1, 700, 701} & {*cut}  # what names no vLLM is not read at all
    found, work = counted(group, processes)
    # A command that was not read may be that of a server, which is shown as unknown.
    assert [one.head.pid for one in found] == [*cut, 700]
    assert work < 2_500_000
