"""`eplb-launch ps` on real process trees: stand-ins with vLLM's titles.

Other tests and other people run servers on the same machine: each test asks for its own pids.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import SCRIPT
from house import HAZARD, SOURCE, House, seen

from eplb_launch.ps import processes
from eplb_launch.ps.children import results
from eplb_launch.ps.command import look, run
from eplb_launch.ps.processes import command_of, facts_of, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eplb_launch.ps.processes import Process

NOBODY = 65534

TREE: dict[str, Any] = {
    "VLLM::DPCoordinator": {},
    "VLLM::APIServer_0": {},
    "VLLM::APIServer_1": {},
    "VLLM::EngineCore_DP0": {"VLLM::Worker_DP0_TP0_EP0": {}, "VLLM::Worker_DP0_TP1_EP1": {}},
    "VLLM::EngineCore_DP1": {"VLLM::Worker_DP1_TP0_EP2": {}, "VLLM::Worker_DP1_TP1_EP3": {}},
}
COUNTS = {"EngineCore": 2, "Worker": 4, "APIServer": 2, "DPCoordinator": 1}

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become another user")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Return one environment for all tests of a worker."""
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(built: House) -> Iterator[House]:
    """Return the environment with vLLM 0.16.0 in it, and end what a test starts."""
    built.install("0.16.0")
    yield built
    built.end()


def verdict(pid: int) -> tuple[str, str, str | None, str | None]:
    row = seen(pid)
    found = row.assessment
    return row.verdict, found.cause, found.value, found.by


def ps(*options: str | int, status: int = 0, **run: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    ended = subprocess.run(
        [SCRIPT, "ps", *map(str, options)], capture_output=True, text=True, check=False, **run
    )
    assert ended.returncode == status, ended
    return ended


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def wait_until(condition: Any) -> None:
    while not condition():  # the time-out of pytest ends it
        time.sleep(0.01)


EXPOSED = ("EXPOSED", "no-limit", None, None)
BY_VLLM = ("capped", "vllm", "8", "vLLM")
NO_RULE = ("not needed", "not-needed", None, None)
VERDICTS: dict[
    str, tuple[str | None, str, dict[str, str], tuple[str, str, str | None, str | None]]
] = {
    "the rule holds, and the release does nothing": ("0.16.0", HAZARD, {}, EXPOSED),
    "the release has the rule": ("0.17.1+cu129", HAZARD, {}, BY_VLLM),
    "the release has no async EPLB": ("0.11.2", HAZARD, {}, NO_RULE),
    "the release is not known": (None, HAZARD, {}, ("unknown", "release-not-known", None, None)),
    "one condition is missing": ("0.16.0", HAZARD.replace("-size 8", "-size 1"), {}, NO_RULE),
    "nothing of it": ("0.16.0", "serve m", {}, NO_RULE),
    "nothing of it, release not known": (None, "serve m", {}, NO_RULE),
    "async over NCCL is refused by the release": ("0.24.0", HAZARD, {}, NO_RULE),
    "the variable is set": (
        "0.16.0",
        HAZARD,
        {"NCCL_MAX_CTAS": "4"},
        ("capped", "environment", "4", "environment"),
    ),
    "the variable is set, release not known": (
        None,
        HAZARD,
        {"NCCL_MAX_CTAS": "8"},
        ("capped", "environment", "8", "environment"),
    ),
    "the variable is set, and not needed": ("0.16.0", "serve m", {"NCCL_MAX_CTAS": "8"}, NO_RULE),
    "the variable is empty": ("0.16.0", HAZARD, {"NCCL_MAX_CTAS": ""}, EXPOSED),
    "the variable is no number": ("0.16.0", HAZARD, {"NCCL_MAX_CTAS": "abc"}, EXPOSED),
    "the release replaces what is no number": ("0.17.0", HAZARD, {"NCCL_MAX_CTAS": "x"}, BY_VLLM),
    "a variable of vLLM decides": (
        "0.13.0",
        HAZARD.rpartition(" --")[0],
        {"VLLM_ALL2ALL_BACKEND": "deepep_low_latency"},
        EXPOSED,
    ),
    "a variable of vLLM that the release does not read": (
        "0.16.0",
        HAZARD.rpartition(" --")[0],
        {"VLLM_ALL2ALL_BACKEND": "deepep_low_latency"},
        NO_RULE,
    ),
    "the value is no limit for NCCL": (
        "0.16.0",
        HAZARD,
        {"NCCL_MAX_CTAS": "0"},
        ("EXPOSED", "value-not-a-limit", None, None),
    ),
    "the value is one for NCCL, though not for vLLM": (
        "0.16.0",
        HAZARD,
        {"NCCL_MAX_CTAS": "0x8"},
        ("capped", "environment", "0x8", "environment"),
    ),
    "another variable defeats the limit": (
        "0.16.0",
        HAZARD,
        {"NCCL_MAX_CTAS": "8", "NCCL_MIN_P2P_NCHANNELS": "32"},
        ("EXPOSED", "min-p2p-nchannels", None, None),
    ),
    "another variable defeats the limit of vLLM itself": (
        "0.17.0",
        HAZARD,
        {"NCCL_MIN_NCHANNELS": "16"},
        ("EXPOSED", "min-nchannels", None, None),
    ),
    "it does not matter where it is not needed": (
        "0.16.0",
        "serve m",
        {"NCCL_MIN_NCHANNELS": "16"},
        NO_RULE,
    ),
    "a conf file limits it": (
        "0.16.0",
        HAZARD,
        {"NCCL_CONF_FILE": "nccl.conf"},
        ("capped", "conf-file", "4", "conf file"),
    ),
    "Ray workers do not get it": (
        "0.16.0",
        f"{HAZARD} --data-parallel-backend ray",
        {"NCCL_MAX_CTAS": "8"},
        ("unknown", "ray-workers", None, None),
    ),
    "arguments that vLLM would refuse": (
        "0.16.0",
        "serve m --eplb-config {",
        {},
        ("unknown", "command-not-understood", None, None),
    ),
    "no such --config file": (
        "0.16.0",
        "serve m --config gone.yaml",
        {},
        ("unknown", "config-not-read", None, None),
    ),
}


@pytest.mark.parametrize("case", VERDICTS.values(), ids=VERDICTS)
def test_each_running_server_has_its_verdict(house: House, case: Any) -> None:
    version, arguments, environ, expected = case
    house.install(version)
    (house.root / "nccl.conf").write_text("NCCL_MAX_CTAS=4\n")
    assert verdict(house.start(arguments, environ=environ)) == expected


def test_a_relative_config_file_is_read_from_the_directory_of_the_server(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "serve.yaml").write_text(
        "data-parallel-size: 8\nenable-eplb: true\neplb-config: {use_async: true}\n"
        "all2all-backend: deepep_low_latency\n"
    )
    pid = house.start("serve m --config serve.yaml", cwd=tmp_path)
    assert verdict(pid) == EXPOSED
    later = time.time() + 60
    os.utime(tmp_path / "serve.yaml", (later, later))
    assert verdict(pid) == ("unknown", "changed-since-start", None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(HAZARD, ("unknown", "changed-since-start", None, None)), ("serve m", NO_RULE)],
    ids=["it matters", "it does not"],
)
def test_a_release_that_was_installed_after_the_start_is_unknown(
    house: House, arguments: str, expected: Any
) -> None:
    pid = house.start(arguments)
    assert house.release is not None
    later = time.time() + 60
    os.utime(house.release, (later, later))
    assert verdict(pid) == expected


def test_the_release_is_that_of_the_interpreter_that_runs(house: House, tmp_path: Path) -> None:
    """Even if neither its name nor PATH gives the interpreter."""
    python = next(iter((house.root / "bin").glob("python3.*")))
    for program in (
        [f"{house.root}/bin/python", str(house.vllm)],
        ["python", str(house.vllm)],
        ["python3", "bin/vllm"],
        ["/usr/bin/env", "-", "STAND_IN={}", str(python), "-s", str(house.vllm)],
    ):
        row = seen(house.start(program=program))
        assert (row.version, row.verdict) == ("0.16.0", "EXPOSED")
    copy = tmp_path / "python3"
    copy.symlink_to("/bin/sleep")
    process = subprocess.Popen(
        ["python3", "60"], executable="/bin/sleep", env={"PATH": str(tmp_path)}
    )
    try:
        wait_until(lambda: (now := read(process.pid)) is not None and now.cmdline)
        found = read(process.pid)
        assert found is not None
        assert inside(found) == ("python3", "60")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("fork", [False, True], ids=["spawn", "fork"])
def test_workers_belong_to_their_server(house: House, fork: bool) -> None:
    """Their titles have overwritten their arguments: only the server shows its own."""
    pid = house.start(tree=TREE, fork=fork)
    row = seen(pid)
    assert (row.pid, row.verdict, row.current) == (pid, "EXPOSED", None)
    assert row.group is not None
    assert row.group.counts == COUNTS
    assert row.group.entry == "vllm serve"
    worker = next(p for p in row.group.members if p.title and p.title.role == "Worker")
    environ = Path(f"/proc/{worker.pid}/environ").read_bytes()
    assert b"PATH=" not in environ
    # Each of these processes gives the row of its server, once.
    pids = [process.pid for process in row.group.members]
    assert [found.pid for found in look([*pids, pid])] == [pid]


def test_copies_of_a_worker_are_not_counted(house: House) -> None:
    """After fork, a process shows the title of its parent until it sets its own."""
    tree: dict[str, Any] = {"VLLM::EngineCore": {"": {}, "VLLM::Worker_TP0": {"": {"": {}}}}}
    row = seen(house.start(tree=tree, fork=True))
    assert row.group is not None
    assert row.group.counts == {"EngineCore": 1, "Worker": 1, "APIServer": 0, "DPCoordinator": 0}


@pytest.mark.parametrize("fork", [False, True], ids=["spawn", "fork"])
def test_processes_without_titles_are_no_servers(house: House, fork: bool) -> None:
    """Without setproctitle, or before it, a fork looks like the server."""
    pid = house.start(tree={"": {"": {}}}, fork=fork)
    below = children(pid)
    assert below
    assert [row.pid for row in look([pid, *below])] == [pid]


@pytest.mark.parametrize(
    ("prefix", "environ"),
    [
        ("my-llm", {}),
        ("a b::c", {}),
        ("x" * 3000, {}),
        ("A=B", {}),
        ("VLLM", {"SPT_NOENV": "1"}),
        ("a-prefix-longer-than-the-arguments-" + "x" * 300, {"SPT_NOENV": "1"}),
    ],
    ids=["another", "blanks", "longer than the room", "like a variable", "cut", "cut before it"],
)
def test_titles_in_all_forms_are_recognised(
    house: House, prefix: str, environ: dict[str, str]
) -> None:
    """A cut title (SPT_NOENV) is recognised if its role is visible."""
    tree: dict[str, Any] = {f"{prefix}::EngineCore_DP0": {f"{prefix}::Worker_DP0_TP0": {}}}
    row = seen(house.start(tree=tree, environ=environ, fork=True))
    assert (row.verdict, row.readable) == ("EXPOSED", True)
    assert row.group is not None
    expected = 0 if prefix.startswith("a-prefix") else 1
    assert row.group.counts["EngineCore"] == row.group.counts["Worker"] == expected


def test_workers_whose_server_is_gone_are_a_row_of_their_own(house: House) -> None:
    pid = house.start(tree=TREE, fork=True)
    row = seen(pid)
    assert row.group is not None
    pids = [process.pid for process in row.group.members]
    os.kill(pid, signal.SIGKILL)
    # Nothing has waited for the server: it is a zombie, and its processes have another parent.
    wait_until(lambda: (found := read(pid)) is None or found.zombie)
    assert verdict(pid)[:2] == ("unknown", "zombie")
    wait_until(lambda: all((found := read(p)) is None or found.parent != pid for p in pids))
    (left,) = look(pids)
    assert left.verdict == "unknown"
    assert left.assessment.cause == "server-gone"
    assert not left.readable
    assert left.group is not None
    assert left.group.counts == COUNTS
    assert left.pid in pids


def test_an_engine_of_another_program_is_unknown(house: House, tmp_path: Path) -> None:
    """A script that starts an engine does not show its settings."""
    script = tmp_path / "app.py"
    script.write_text(SOURCE)
    program = [f"{house.root}/bin/python", str(script)]
    tree: dict[str, Any] = {"VLLM::EngineCore": {}}
    pid = house.start("--port 80", program=program, tree=tree)
    row = seen(pid)
    assert (row.pid, row.assessment.cause) == (pid, "command-not-known")
    assert row.group is not None
    assert (row.group.kind, row.group.entry) == ("program", "")
    capped = house.start("", program=program, tree=tree, environ={"NCCL_MAX_CTAS": "8"})
    assert verdict(capped) == ("capped", "environment", "8", "environment")
    assert verdict(house.start(HAZARD[8:], program=program, tree=tree)) == EXPOSED


@pytest.mark.parametrize("title", ["ray::Replica", "app " + "x" * 200])
def test_an_engine_below_a_program_with_a_title_is_unknown(house: House, title: str) -> None:
    """Ray sets titles too, and what is left of the environment proves nothing."""
    pid = house.start(
        title=title,
        tree={"VLLM::EngineCore": {}},
        environ={"HALF": "", "NCCL_MAX_CTAS": "8", "LAST": "1"},
    )
    left = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" not in left
    row = seen(pid)
    assert row.assessment.cause == "environment-overwritten"
    assert (row.verdict, row.readable, row.current) == ("unknown", False, None)


WRAPPED = {
    "a shell": ["sh", "-c", '{vllm} "$@"; true', "sh"],
    "a shell, the whole command in it": ["sh", "-c", f"{{vllm}} {HAZARD}; true"],
    "two of them": ["sh", "-c", f'sh -c "{{vllm}} {HAZARD}; true"; true'],
    "a program": [sys.executable, "{root}/call.py", "{vllm}"],
    "a script of the same name": ["{root}/shim/vllm"],
    "exec": ["sh", "-c", 'exec {vllm} "$@"', "sh"],
    "the launcher": [SCRIPT, "--quiet", "--vllm-version", "0.11.0", "--", "{vllm}"],
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapper_that_waits_for_a_server_is_no_server(house: House, wrapped: list[str]) -> None:
    shim = house.root / "shim" / "vllm"
    shim.parent.mkdir(exist_ok=True)
    (house.root / "call.py").write_text("import subprocess, sys\nsubprocess.call(sys.argv[1:])\n")
    shim.write_text(
        f"#!{house.root}/bin/python\nimport subprocess, sys\n"
        f"subprocess.call(['{house.vllm}', *sys.argv[1:]])\n"
    )
    shim.chmod(0o755)
    program = [word.format(vllm=house.vllm, root=house.root) for word in wrapped]
    arguments = "" if "serve" in " ".join(program) else HAZARD
    outer = house.start(arguments, program=program, fork=True)
    row = seen(outer)
    assert row.verdict == "EXPOSED"
    below = [pid for child in children(outer) for pid in (child, *children(child))]
    assert row.pid == (below[-1] if below else outer)
    assert [found.pid for found in look([outer, *below])] == [row.pid]
    assert row.group is not None
    assert [p.pid for p in row.group.starters] == ([*below[-2::-1], outer] if below else [])


@pytest.mark.parametrize("client", ["docker exec -it c", "ssh host", "kubectl exec pod --"])
def test_a_client_of_a_remote_server_is_no_server(
    house: House, tmp_path: Path, client: str
) -> None:
    """The client of a container engine and the like: the server is another process."""
    words = client.split()
    # Python runs this under any name.
    (tmp_path / words[1]).write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    pid = house.start(
        [*words[1:], "vllm", *shlex.split(HAZARD)],
        program=[words[0]],
        executable=sys.executable,
        cwd=tmp_path,
    )
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(words[0].encode() + b"\0")
    assert verdict(pid)[:2] == ("unknown", "no-server")


def test_a_server_that_ends_while_ps_reads_it_has_vanished(house: House) -> None:
    pid = house.start()
    found = read(pid)
    assert found is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (now := read(pid)) is None or now.zombie)
    assert facts_of(found).trouble == processes.VANISHED
    house.started[-1].wait()
    facts = facts_of(found)
    assert (facts.trouble, facts.environ) == (processes.VANISHED, None)
    assert verdict(pid)[:2] == ("unknown", "no-process")


def test_a_server_that_becomes_another_program_has_changed(house: House) -> None:
    pid = house.start(then=["sleep", "60"])
    found = read(pid)
    assert found is not None
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: (now := read(pid)) is not None and now.cmdline.startswith(b"sleep"))
    facts = facts_of(found)
    assert (facts.trouble, facts.environ) == (processes.CHANGED, None)


def test_another_process_with_the_same_pid_is_told_by_its_start(house: House) -> None:
    found = read(house.start())
    assert found is not None
    assert facts_of(found).trouble is None
    assert facts_of(found.replace(ticks=found.ticks - 1)).trouble == processes.VANISHED


def test_an_empty_environment_is_readable(house: House) -> None:
    pid = house.start(program=["/usr/bin/env", "-i", str(house.vllm)])
    row = seen(pid)
    assert (row.readable, row.verdict) == (True, "EXPOSED")


def can_enlarge() -> bool:
    """Whether this kernel lets a process move its command line (CONFIG_CHECKPOINT_RESTORE)."""
    size = ctypes.c_uint()
    pr_set_mm, pr_set_mm_map_size = 35, 15
    none = ctypes.c_ulong(0)
    return not ctypes.CDLL(None).prctl(
        pr_set_mm, pr_set_mm_map_size, ctypes.byref(size), none, none
    )


takes_prctl = pytest.mark.skipif(not can_enlarge(), reason="takes PR_SET_MM_MAP")
LARGE = {
    "a command that is just read": ("cmdline", 256 * 1024, "EXPOSED", "no-limit"),
    "a byte more": ("cmdline", 256 * 1024 + 1, "unknown", "command-too-large"),
    "a command of 16 MB": ("cmdline", 16 << 20, "unknown", "command-too-large"),
    "a command of 1 GB": ("cmdline", 1 << 30, "unknown", "command-too-large"),
    "an environment that is just read": ("environ", 2 << 20, "EXPOSED", "no-limit"),
    "another byte more": ("environ", (2 << 20) + 1, "unknown", "environment-too-large"),
    "an environment of 16 MB": ("environ", 16 << 20, "unknown", "environment-overwritten"),
}


@takes_prctl
@pytest.mark.parametrize(("what", "size", "verdict", "cause"), LARGE.values(), ids=LARGE)
def test_a_process_that_is_too_large_is_unknown(
    house: House, what: str, size: int, verdict: str, cause: str
) -> None:
    pid = house.start(area=[what, size])
    with open(f"/proc/{pid}/{what}", "rb") as file:
        assert len(file.read((1 << 24) + 1)) >= min(size, 1 << 24)
    row = seen(pid)
    assert (row.verdict, row.assessment.cause) == (verdict, cause)
    assert row.group is not None
    assert row.group.entry == "vllm serve"
    if cause.endswith("too-large"):
        assert "ps did not read its whole" in row.assessment.reason


@takes_prctl
@pytest.mark.parametrize("what", ["cmdline", "environ"])
def test_no_more_than_the_limit_is_read(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The test counts the bytes that are asked of the kernel."""
    pid = house.start(area=[what, 1 << 28])
    counts = []
    read_some = os.read

    def counting(descriptor: int, length: int) -> bytes:
        piece = read_some(descriptor, length)
        counts.append(len(piece))
        return piece

    monkeypatch.setattr(os, "read", counting)
    found = read(pid)
    assert found is not None
    assert sum(counts) <= 256 * 1024 + 4096
    assert len(found.cmdline) <= 4096
    counts.clear()
    assert facts_of(found).environ is None
    assert sum(counts) <= (2 << 20) + 256 * 1024 + 8192


@takes_prctl
def test_a_large_process_that_names_no_vllm_is_no_server(house: House) -> None:
    program = house.root / "bin" / "other"
    program.write_text(house.vllm.read_text())
    program.chmod(0o755)
    pid = house.start(program=[str(program)], area=["cmdline", 1 << 24])
    assert verdict(pid)[:2] == ("unknown", "command-too-large")


def test_the_first_of_two_equal_variables_counts() -> None:
    """getenv(3) reads an environment like that."""
    environ = processes._environ(b"NCCL_MAX_CTAS=4\0NCCL_MAX_CTAS=8\0NO\0A=B=C\0\0")  # noqa: SLF001
    assert environ == {"NCCL_MAX_CTAS": "4", "A": "B=C"}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"", False, id="empty"),
        pytest.param(b"A=1\0B=\0", False, id="as it was"),
        pytest.param(b"A=1\0no\0B=2\0", False, id="an entry without ="),
        pytest.param(b"\0\0\0", True, id="padding"),
        pytest.param(b"\0\0\0B=2\0", True, id="padding and a variable"),
        pytest.param(b"A=1\0\0\0B=2\0", True, id="padding between variables"),
        pytest.param(b"the end of a title\0B=2\0", True, id="a title and a variable"),
    ],
)
def test_an_environment_below_a_title_is_overwritten(raw: bytes, expected: bool) -> None:
    assert processes._overwritten(raw) == expected  # noqa: SLF001


def test_kernel_threads_are_left_out() -> None:
    if Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("the kernel's are not to be seen here")
    assert read(2) is None


def inside(process: Process) -> tuple[str, ...]:
    """Return the command of a process as `ps` finds it, in a child process."""

    def look() -> tuple[str, ...]:
        facts = facts_of(process)
        assert facts.view is not None
        facts.view.take_rights()
        return command_of(process, facts)

    return results({0: look})[0]  # type: ignore[no-any-return]


def as_nobody(function: Callable[[], int]) -> tuple[int, str, str]:
    """Call a function as another user; return its status, and what it wrote.

    In a fork of this process: that user may not be able to read the interpreter of these tests.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                status = function()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
                os._exit(99)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()


@root_only
def test_another_user_is_denied_and_told_so(house: House) -> None:
    pid = house.start(tree=TREE, fork=True, environ={"NCCL_MAX_CTAS": "8"})
    status, out, err = as_nobody(lambda: run([pid], as_json=True))
    (server,) = json.loads(out)["servers"]
    assert (server["verdict"], server["cause"]) == ("unknown", "permission-denied")
    assert server["environment"] == {"readable": False, "NCCL_MAX_CTAS": None}
    assert (server["user"], server["workers"]) == ("root", COUNTS)
    assert (status, err) == (0, f"eplb-launch: 1 of 1 unknown: {pid}\n")
    assert as_nobody(lambda: run([pid], strict=True))[0] == 1


@root_only
def test_root_reads_a_server_that_gave_up_its_privileges(house: House) -> None:
    """Only root may read a process that root has started, even if it is nobody's now."""
    pid = house.start(user=NOBODY)
    # The server read it as root, and may not read it as nobody: ps does not read it either.
    expected = ("unknown", "release-not-known", None, None)
    assert (seen(pid).user, verdict(pid)) == ("nobody", expected)
    _, out, _ = as_nobody(lambda: run([pid], as_json=True))
    assert json.loads(out)["servers"][0]["cause"] == "permission-denied"


def _can(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_namespaces = pytest.mark.skipif(
    not _can("unshare", "-mpf", "--mount-proc", "true"), reason="may not make namespaces"
)


@needs_namespaces
def test_ps_works_in_a_container_with_its_own_pids(house: House) -> None:
    """ps runs inside the container, and sees no other processes."""
    runner = house.root / "bin" / "run"
    runner.write_text(
        f"#!/bin/sh\n{house.vllm} {HAZARD} > ready &\n"
        "until [ -s ready ]; do sleep 0.05; done\n"
        f"{SCRIPT} ps --json; echo status $?; kill $!\n"
    )
    runner.chmod(0o755)
    ended = subprocess.run(
        ["unshare", "-mpf", "--mount-proc", str(runner)],
        env={"PATH": os.environ["PATH"], "STAND_IN": json.dumps({"tree": TREE, "fork": True})},
        cwd=house.root,
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, status = ended.stdout.partition("status ")
    (server,) = json.loads(text)["servers"]
    assert status == "1\n"
    assert (server["verdict"], server["workers"]) == ("EXPOSED", COUNTS)
    assert server["pid"] < 10


@needs_namespaces
def test_the_release_is_read_below_the_root_of_the_server(house: House, tmp_path: Path) -> None:
    """ps runs outside of the container, where its vLLM and its --config file are not visible."""
    inside = tmp_path / "inside"
    (tmp_path / "empty").mkdir()
    shutil.copytree(house.root, inside, symlinks=True)
    # A link with another target outside, and a link that leads out of the tree.
    (tmp_path / "link").symlink_to("/opt/venv-of-the-container")
    (inside / "serve.yaml").write_text(
        "data-parallel-size: 8\nenable-eplb: true\neplb-config: {use_async: true}\n"
        "all2all-backend: deepep_low_latency\n"
    )
    vllm = inside / "bin" / "vllm"
    vllm.write_text(f"#!/opt/venv-of-the-container/bin/python\n{SOURCE}")
    script = (
        "mount -t tmpfs none /opt && mkdir /opt/venv-of-the-container && "
        f"mount --bind {inside} /opt/venv-of-the-container && cd /opt/venv-of-the-container && "
        'exec ./bin/vllm "$@"'
    )
    pid = house.start(
        f"serve m --config {tmp_path}/link/serve.yaml",
        program=["unshare", "-m", "sh", "-c", script, "sh"],
    )
    assert not os.path.exists("/opt/venv-of-the-container")
    row = seen(pid)
    assert row.version == "0.16.0"
    assert row.version_source.startswith("/opt/venv-of-the-container/lib/python3.")
    assert row.verdict == "EXPOSED"
    assert row.settings["data_parallel_size"].value == 8


# The driver's files have no size, as all files of /proc: /proc/PID/cmdline stands in for each.
_GPUS = """
mount -t tmpfs none /proc/driver
for model; do
  [ "$model" != -- ] || break
  (exec -a "Model: $model
GPU Excluded: No
" sleep 1000) &
  until grep -q Model: /proc/$!/cmdline; do sleep 0.01; done
  mkdir -p /proc/driver/nvidia/gpus/$!
  touch /proc/driver/nvidia/gpus/$!/information
  mount --bind /proc/$!/cmdline /proc/driver/nvidia/gpus/$!/information
  shift
done
shift
exec "$@"
"""
H100, H20, MIG = "NVIDIA H100 80GB HBM3", "NVIDIA H20", "MIG-41222c1b"
NOTES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "one": ([H100], {}, "8 fits beside DeepEP on H100 only while NCCL uses half of it"),
    "two kinds": (
        [H100, H20],
        {},
        (
            "8 fits beside DeepEP on H100 only while NCCL uses half of it, "
            "on H20 only while NCCL uses a quarter of it"
        ),
    ),
    "one that is not known": (["NVIDIA H99"], {}, ""),
    "a part of one": ([H100], {"CUDA_VISIBLE_DEVICES": MIG}, ""),
    "a lower cap": ([H100], {"NCCL_MAX_CTAS": "4"}, ""),
}


@needs_namespaces
@pytest.mark.parametrize(("models", "environ", "note"), NOTES.values(), ids=NOTES)
def test_the_note_follows_the_gpus_that_the_server_sees(
    house: House, models: list[str], environ: dict[str, str], note: str
) -> None:
    program = ["unshare", "-m", "bash", "-c", _GPUS, "bash", *models, "--", str(house.vllm)]
    row = seen(house.start(environ={"NCCL_MAX_CTAS": "8", **environ}, program=program))
    assert row.verdict == "capped"
    assert [found.message for found in row.notes] == ([note] if note else [])
