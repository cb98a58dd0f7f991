"""How a server ends: Ctrl-C, refused arguments, and as the first process of a container.

Each as without the launcher: the same status, the same last word, no process left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.conftest import House, Server

pytestmark = pytest.mark.timeout(1800)

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]
# All conditions of the rule of vLLM 0.32, and what that says to it on a CPU.
EPLB = [
    *("-dp", "2", "--enable-expert-parallel", "--enable-eplb"),
    *("--moe-backend", "deep_gemm_mega_moe", "--eplb-config.use_async", "false"),
    *("--eplb-config.communicator", "torch_nccl"),
]
REFUSED = {
    "EPLB on a CPU": (EPLB, 1, "only supported on CUDA devices", "8"),
    "no such option": (["--no-such-option"], 2, "unrecognized arguments: --no-such-option", None),
}


def may_make_namespaces() -> bool:
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the launcher as one file, as it is put into a container."""
    folder = tmp_path_factory.mktemp("pyz")
    builder = os.path.join(os.path.dirname(__file__), "..", "..", "tools", "single_file.py")
    subprocess.run([sys.executable, builder, folder], check=True)
    return folder / "eplb-launch.pyz"


@pytest.fixture(scope="module")
def first(house: House, single_file: Path) -> Iterator[dict[str, Server]]:
    """Return a server that is pid 1 of its namespace, directly and through the launcher.

    The launcher is the single file, run by vLLM's own interpreter.
    """
    if not may_make_namespaces():
        pytest.skip("may not make namespaces")
    with house.servers("first", "direct", "launched") as made:
        for kind, server in made.items():
            front = ["python", str(single_file), "--"] if kind == "launched" else []
            server.start([*NAMESPACE, *front, *house.serve("dense", server)])
        for server in made.values():
            server.wait()
            (child,) = psutil.Process(server.process.pid).children()
            server.pid = child.pid
        yield made


def test_pid_one_is_the_server_itself(first: dict[str, Server]) -> None:
    states = {}
    for kind, server in first.items():
        with open(f"/proc/{server.pid}/status") as file:
            (pids,) = (line.split()[1:] for line in file if line.startswith("NSpid:"))
        assert pids == [str(server.pid), "1"]
        states[kind] = server.state()
    assert states["launched"] == states["direct"]


def test_pid_one_answers(first: dict[str, Server]) -> None:
    question = {"model": "dense", "prompt": "Hi", "max_tokens": 4, "temperature": 0}
    replies = {
        kind: server.get("/v1/completions", question)["choices"][0]["text"]
        for kind, server in first.items()
    }
    assert replies["launched"] == replies["direct"] != ""


def test_ps_sees_into_the_namespace(first: dict[str, Server]) -> None:
    rows = {kind: server.ps() for kind, server in first.items()}
    for kind, row in rows.items():
        assert (row["pid"], row["verdict"]) == (first[kind].pid, "not needed")
    assert rows["launched"]["workers"] == rows["direct"]["workers"]
    assert rows["launched"]["release"] == rows["direct"]["release"]


def test_sigterm_ends_pid_one_as_without_the_launcher(first: dict[str, Server]) -> None:
    ended = {kind: server.end(signal.SIGTERM) for kind, server in first.items()}
    assert ended["launched"] == ended["direct"]
    assert ended["launched"][1] == []


def test_ctrl_c_ends_it_as_without_the_launcher(house: House) -> None:
    with house.servers("ctrl-c", "direct", "launched") as made:
        for kind, server in made.items():
            front = house.launcher if kind == "launched" else []
            server.start([*front, *house.serve("dense", server)])
        for server in made.values():
            server.wait()
        # A terminal sends it to the whole group.
        ended = {kind: server.end(signal.SIGINT, group=True) for kind, server in made.items()}
    assert ended["launched"] == ended["direct"]
    assert ended["launched"][1] == []


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_vllm_refuses_ends_as_without_the_launcher(house: House, case: str) -> None:
    arguments, status, words, value = REFUSED[case]
    name = case.replace(" ", "-")
    with house.servers(name, "direct", "launched", "first") as made:
        fronts = {"direct": [], "launched": house.launcher, "first": [*NAMESPACE, *house.launcher]}
        if not may_make_namespaces():
            del fronts["first"]
        for kind, front in fronts.items():
            made[kind].start([*front, *house.serve("moe", made[kind], *arguments)])
        for kind in fronts:
            server = made[kind]
            assert server.process.wait(300) == status, server.tail()
            last = server.log.read_text().splitlines()[-1]
            assert words in server.tail()
            assert last == made["direct"].log.read_text().splitlines()[-1]
            # Python's os.environ when the launcher's interpreter started, and when vLLM's did.
            server.pid = 1 if kind == "first" else server.process.pid
            assert server.at_start() == ([None] if kind == "direct" else [None, value])
            assert bool(server.said()) == (kind != "direct" and value is not None)
