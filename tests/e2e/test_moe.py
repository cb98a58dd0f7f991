"""Two data-parallel ranks with expert parallelism: the variable arrives in every process.

vLLM refuses EPLB on a CPU (config/parallel.py of 0.32.0: CUDA, ROCm or XPU only), so no command on
a CPU can fulfil the rule. Here a shell adds options from a file. EPLB may be among them, so the
launcher sets the cap. The tests show that the variable arrives in the workers. They do not show
that it prevents a hang.
"""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.conftest import House, Server

pytestmark = pytest.mark.timeout(1800)

TITLES = [
    "VLLM::APIServer_0",
    "VLLM::APIServer_1",
    "VLLM::DPCoordinator",
    "VLLM::EngineCore_DP0",
    "VLLM::EngineCore_DP1",
    "VLLM::Worker_DP0_EP0",
    "VLLM::Worker_DP1_EP1",
]


@pytest.fixture(scope="module")
def servers(house: House) -> Iterator[dict[str, Server]]:
    """Return the server as it is started directly, and through the launcher."""
    with house.servers("moe", "direct", "launched") as made:
        for kind, server in made.items():
            more = server.folder / "more"
            more.write_text("--enable-expert-parallel")
            words = house.serve("moe", server, "-dp", "2")
            shell = ["sh", "-c", f"exec {shlex.join(words)} $(cat {shlex.quote(str(more))})"]
            server.start([*(house.launcher if kind == "launched" else []), *shell])
        for server in made.values():
            server.wait()
        yield made


def test_the_launcher_says_what_it_does_not_know(servers: dict[str, Server]) -> None:
    (line,) = servers["launched"].said()
    assert line.startswith("eplb-launch: set NCCL_MAX_CTAS=8: EPLB over NCCL with DeepGEMM mega")
    assert "data_parallel_size=2, vLLM 0.32.0" in line
    assert "cannot be ruled out: enable_eplb" in line


def test_the_variable_is_the_only_difference(servers: dict[str, Server]) -> None:
    (environ, signals), (direct, of_direct) = (
        servers[kind].state() for kind in ("launched", "direct")
    )
    assert set(environ) - set(direct) == {"NCCL_MAX_CTAS=8"}
    assert set(direct) <= set(environ)
    assert signals == of_direct


@pytest.mark.parametrize(("kind", "value"), [("direct", None), ("launched", "8")])
def test_it_is_in_every_process_when_vllm_loads_its_plugins(
    servers: dict[str, Server], kind: str, value: str | None
) -> None:
    server = servers[kind]
    loaded = {pid: seen for pid, when, seen in server.reports() if when == "plugin"}
    titles = {process["pid"]: process["title"] for process in server.ps()["processes"]}
    titles[server.pid] = "server"
    seen = {titles[pid]: found for pid, found in loaded.items() if pid in titles}
    # The coordinator of the ranks loads no plugins: it runs no model.
    expected = [title for title in TITLES if "Coordinator" not in title]
    assert seen == dict.fromkeys(["server", *expected], value)


def test_the_process_that_sets_it_is_the_one_that_has_it(servers: dict[str, Server]) -> None:
    server = servers["launched"]
    assert server.at_start() == [None, "8"]  # the launcher's interpreter, then vLLM's
    others = {value for pid, _, value in server.reports() if pid != server.pid}
    assert others == {"8"}


@pytest.mark.parametrize(("kind", "value"), [("direct", None), ("launched", "8")])
def test_ps_shows_the_whole_tree(servers: dict[str, Server], kind: str, value: str | None) -> None:
    server = servers[kind]
    row = server.ps()
    assert (row["pid"], row["kind"], row["entry"]) == (server.process.pid, "server", "vllm serve")
    assert sorted(process["title"] for process in row["processes"]) == TITLES
    assert row["workers"] == {"EngineCore": 2, "Worker": 2, "APIServer": 2, "DPCoordinator": 1}
    assert row["environment"] == {"readable": True, "NCCL_MAX_CTAS": value}
    # Without the shell nothing is unknown any more, and there is no EPLB.
    assert (row["verdict"], row["cause"]) == ("not needed", "not-needed")
    assert "enable_eplb does not hold" in row["reason"]
    settings = {setting["name"]: setting["value"] for setting in row["settings"]}
    assert settings["data_parallel_size"] == 2


def test_a_worker_leads_to_its_server(servers: dict[str, Server]) -> None:
    row = servers["launched"].ps()
    for process in row["processes"]:
        assert servers["launched"].ps(process["pid"])["pid"] == row["pid"]


def test_sigterm_ends_it_as_without_the_launcher(servers: dict[str, Server]) -> None:
    ended = {kind: server.end(signal.SIGTERM) for kind, server in servers.items()}
    assert ended["launched"] == ended["direct"]
    assert ended["launched"][1] == []
