"""The output and the exit status of the installed `eplb-launch ps`, in terminals and pipes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
from typing import TYPE_CHECKING, Any

import pytest

from eplb_launch import __version__
from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN, Assessment, Seen, assess
from eplb_launch.command import find_server
from eplb_launch.model import PlanWarning
from eplb_launch.plans import Plan
from eplb_launch.ps.processes import CHANGED, TIMED_OUT, UNREADABLE, VANISHED, Facts, Process
from eplb_launch.ps.rows import Row, as_dict, table
from eplb_launch.ps.rows import row as row_of
from eplb_launch.ps.servers import SERVER, Group
from eplb_launch.vllm.settings import Setting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
SECRET = "s3cret"
# A command line makes a server; its release is not known then.
SERVE = ["serve", "m", "--api-key", SECRET, "--data-parallel-size", "8", "--enable-eplb"]
HAZARD = [*SERVE, "--eplb-config.use_async", "true", "--all2all-backend", "deepep_low_latency"]


class Servers:
    """Processes whose command is that of a server; they sleep."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "vllm"
        self.script.write_text("import time\nprint(flush=True)\ntime.sleep(120)\n")
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **environ: str) -> int:
        """Start one, with the interpreter of these tests; return its pid."""
        process = subprocess.Popen(
            [sys.executable, "-S", str(self.script), *arguments],
            env={"TOKEN": SECRET, **environ},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        self.running.append(process)
        return process.pid

    def end(self) -> None:
        """End all of them."""
        for process in self.running:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    started = Servers(tmp_path)
    yield started
    started.end()


def ps(*words: Any, status: int, **options: Any) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [SCRIPT, "ps", *map(str, words)], capture_output=True, text=True, check=False, **options
    )
    assert ended.returncode == status, ended
    assert SECRET not in ended.stdout + ended.stderr
    return ended


def test_ps_exits_with_the_status_of_its_worst_server(servers: Servers) -> None:
    fine = servers.start(*SERVE)
    capped = servers.start(*HAZARD, NCCL_MAX_CTAS="8")
    unknown = servers.start(*HAZARD)
    exposed = servers.start(*HAZARD, NCCL_MAX_CTAS="8", NCCL_MIN_NCHANNELS="16")
    assert ps(fine, capped, status=0).stderr == ""
    assert ps(fine, capped, "--strict", status=0).stderr == ""
    said = f"eplb-launch: 1 of 2 unknown: {unknown}\n"
    assert ps(fine, unknown, status=0).stderr == said
    assert ps(fine, unknown, "--strict", status=1).stderr == said
    assert ps(fine, exposed, status=1).stderr == ""
    assert ps(exposed, unknown, status=1).stderr == said


SECONDS = "--interval must be a number of seconds from 0.1 to 86400, not "
USAGE_ERRORS = {
    "zero": (["0"], "'0' is not a process id"),
    "one below zero": (["--", "-1"], "ps takes no command"),
    "one too many": (["1", "²"], "'²' is not a process id"),
    "a large one": (["1" * 5000], "is not a process id"),
    "watch and json": (["--watch", "--json"], "--watch shows a table"),
    "no time at all": (["--watch", "--interval", "0"], f"{SECONDS}'0'"),
    "no time": (["--watch", "--interval", "x"], f"{SECONDS}'x'"),
    "no number": (["--watch", "--interval", "nan"], f"{SECONDS}'nan'"),
    "no end": (["--watch", "--interval", "inf"], f"{SECONDS}'inf'"),
}


@pytest.mark.parametrize(("words", "said"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_a_usage_error_exits_with_2_and_prints_no_table(words: list[str], said: str) -> None:
    ended = ps(*words, status=2)
    assert said in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("redirection", "status"),
    [("> /dev/full", 125), (">&-", 1), ("2>&-", 1), (">&- 2>&-", 1)],
)
def test_output_that_cannot_be_written_changes_only_the_status(
    servers: Servers, redirection: str, status: int
) -> None:
    exposed = servers.start(*HAZARD, NCCL_MAX_CTAS="0")
    command = f"exec {SCRIPT} ps {exposed} {redirection}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert ended.returncode == status
    assert b"Traceback" not in ended.stderr


def test_a_reader_that_goes_away_ends_ps_quietly(servers: Servers) -> None:
    pids = [servers.start(*HAZARD) for _ in range(3)]
    read, write = os.pipe()
    process = subprocess.Popen(
        [SCRIPT, "ps", *map(str, pids)], stdout=write, stderr=subprocess.PIPE
    )
    os.close(read)
    os.close(write)
    assert process.communicate()[1] == b""
    assert process.returncode == -signal.SIGPIPE


def test_ps_without_proc_exits_with_125() -> None:
    command = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none /proc; exec {SCRIPT} ps"]
    with contextlib.suppress(FileNotFoundError):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if "unshare" not in ended.stderr and "mount" not in ended.stderr:
            assert ended.stderr == "eplb-launch: ps needs /proc, and cannot read it\n"
            assert ended.returncode == 125


# The JSON. If a key is removed or changes its meaning, raise SCHEMA.

KEYS = {
    "": {"schema", "hidden", "launcher", "servers"},
    "servers": {
        *("pid", "user", "started", "kind", "entry", "release", "settings", "environment"),
        *(
            "workers",
            "processes",
            "started_by",
            "verdict",
            "cause",
            "reason",
            "unread",
            "cap",
            "warnings",
            "notes",
        ),
    },
    "release": {"version", "source"},
    "settings": {"name", "value", "known", "source", "given", "decides"},
    "environment": {"readable", "NCCL_MAX_CTAS"},
    "workers": {"EngineCore", "Worker", "APIServer", "DPCoordinator"},
    "processes": {"pid", "title"},
    "cap": {"value", "by"},
    "warnings": {"code", "message", "remedy", "source"},
}


def keys(value: Any, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield the keys of each object, with the key of the object."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict):
            yield name, set(entry)
            for key, below in entry.items():
                yield from keys(below, key)


def test_the_json_keys_are_pinned(servers: Servers, tmp_path: Path) -> None:
    conf = tmp_path / "nccl.conf"
    conf.write_text("NCCL_MAX_CTAS=4\n")
    pid = servers.start(*HAZARD, NCCL_CONF_FILE=str(conf), NCCL_MIN_P2P_NCHANNELS="")
    found = json.loads(ps(pid, 99999999, "--json", status=0).stdout)
    (full,) = (server for server in found["servers"] if server["pid"] == pid)
    (empty,) = (server for server in found["servers"] if server["pid"] != pid)
    assert (found["schema"], found["launcher"]) == (2, __version__)
    full["processes"] = [{"pid": 1, "title": "t"}]
    seen = dict(keys(found))
    assert seen == KEYS
    assert full["warnings"][0]["code"] == "conf-file-limit"
    assert full["cap"] == {"value": "4", "by": "conf file"}
    assert full["environment"] == {"readable": True, "NCCL_MAX_CTAS": None}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", full["started"])
    assert [s["name"] for s in full["settings"] if s["decides"]][:2] == [
        "data_parallel_size",
        "enable_eplb",
    ]
    assert set(dict(keys(empty))[""]) == KEYS["servers"]
    assert (empty["verdict"], empty["cause"], empty["kind"]) == ("unknown", "no-process", None)


# The table.

HEAD = Process(7, 1, 7, 7, "S", 1, "vllm", b"vllm\0serve\0m\0")


def settings(*pairs: tuple[str, Any]) -> dict[str, Setting]:
    return {name: Setting(name, value, "argument 3") for name, value in pairs}


def row(pid: int, state: str, reason: str = "so it is", **more: Any) -> Row:
    group = Group(SERVER, HEAD.replace(pid=pid), "vllm serve")
    deciding = tuple(more.get("settings", ()))
    warnings = more.pop("warnings", ())
    found = Assessment(state, "cause", reason, deciding=deciding, warnings=warnings)
    facts = {"user": "root", "version": "0.16.0", "readable": True, "group": group, **more}
    return Row(pid=pid, assessment=found, **facts)


ALL = settings(
    ("data_parallel_size", 8),
    ("enable_eplb", True),
    ("use_async", True),
    ("all2all_backend", "deepep_low_latency"),
)


def test_rows_that_share_a_cause_share_its_explanation() -> None:
    warning = PlanWarning("w", "something is wrong", "change it")
    rows = [
        row(10, EXPOSED, settings=ALL, warnings=(warning,)),
        row(2000, EXPOSED, settings=ALL),
        row(30, CAPPED, current="8").replace(
            assessment=Assessment(CAPPED, "environment", "it is set", "8", "environment")
        ),
        row(41, NOT_NEEDED, warnings=(warning,)),
    ]
    assert table(rows, width=80).splitlines() == [
        " PID  USER  STARTED  VLLM    NCCL_MAX_CTAS  WORKERS  VERDICT",
        "  10  root  ?        0.16.0  -              0        EXPOSED [1][2]",
        "    data_parallel_size=8 enable_eplb=True use_async=True",
        "    all2all_backend=deepep_low_latency",
        "2000  root  ?        0.16.0  -              0        EXPOSED [1]",
        "    data_parallel_size=8 enable_eplb=True use_async=True",
        "    all2all_backend=deepep_low_latency",
        "  30  root  ?        0.16.0  8              0        capped at 8 [3]",
        "  41  root  ?        0.16.0  -              0        not needed [4][2]",
        "",
        "[1] EXPOSED: so it is.",
        "[2] warning: something is wrong; change it.",
        "[3] capped by environment: it is set.",
        "[4] not needed: so it is.",
    ]


def test_a_note_is_said_once_and_changes_no_verdict() -> None:
    note = PlanWarning("cap-does-not-fit", "8 fits only by half", "`eplb-launch --max-ctas fit`")
    rows = [row(pid, CAPPED, notes=(note,)) for pid in (7, 8)]
    lines = table(rows, width=200).splitlines()
    assert [line for line in lines if line.startswith("[")] == [
        "[1] capped: so it is.",
        "[2] note: 8 fits only by half; `eplb-launch --max-ctas fit`.",
    ]
    assert sum(line.endswith("capped [1][2]") for line in lines) == 2


def test_a_server_is_one_line_in_a_pipe() -> None:
    rows = [row(pid, EXPOSED, "reason " * 40, settings=ALL) for pid in (1, 2)]
    lines = table(rows, width=None).splitlines()
    assert len(lines) == 5
    assert lines[2].endswith("all2all_backend=deepep_low_latency")


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    rows = [
        row(
            4194304,
            EXPOSED,
            "reason --with-a-long-option " * 20,
            settings=ALL,
            user="a-user-with-a-very-long-name",
            version="0.18.0rc1.dev1234+g1234567890.cu129",
            current="8" * 40,
            warnings=(PlanWarning("w", "message " * 30, "remedy"),) * 2,
        )
    ]
    lines = table(rows, width=width).splitlines()
    least = 95 if width < 100 else width  # of the row itself, where all of its cells are full
    assert max(map(len, lines)) <= max(width, least)
    assert all(len(line) <= max(width, 40) for line in lines[2:])


def test_control_characters_are_escaped() -> None:
    """The processes of other users choose these texts."""
    evil = "\x1b]0;x\x07\n\u202e\udcff"
    rows = [
        row(1, EXPOSED, evil, settings=settings(("all2all_backend", evil)), user=evil),
        row(2, UNKNOWN, version=evil, current=evil, warnings=(PlanWarning("w", evil, evil),)),
    ]
    text = table(rows, width=80)
    assert text.replace("\n", "").isprintable()
    text.encode()
    assert json.loads(json.dumps(as_dict(rows)))


def test_no_server_is_one_sentence() -> None:
    assert table([], width=80) == "No vLLM server is running here."
    assert as_dict([])["servers"] == []


def test_an_unknown_server_shows_no_value_as_if_it_were_known() -> None:
    text = table([Row(5, Assessment(UNKNOWN, "denied", "no permission"))], width=80)
    assert text.splitlines()[1] == "  5  ?     ?        ?     ?              0        unknown [1]"


# Rows that no stand-in can produce at will.


def plan_of(version: str | None, **more: Any) -> Plan:
    server = find_server(["vllm", "serve"], {})
    return Plan(("vllm",), server, version, "said", {}, (), None, (), "why", **more)


@pytest.mark.parametrize(
    "trouble", [VANISHED, CHANGED, UNREADABLE, TIMED_OUT], ids=lambda t: t.cause
)
def test_a_server_that_cannot_be_read_is_unknown(trouble: Assessment) -> None:
    group = Group(SERVER, HEAD, "vllm serve")
    plan = plan_of("0.16.0")
    facts = Facts(trouble=trouble, environ={})
    found = row_of(group, facts, plan, assess(plan, Seen(launched=False)))
    assert (found.verdict, found.assessment.cause) == ("unknown", trouble.cause)
    assert row_of(group, Facts()).verdict == "unknown"


# In a terminal.


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str, **environ: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if not self.pid:
            size = struct.pack("HHHH", 40, 80, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            plain = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environ}
            os.execve(SCRIPT, [SCRIPT, *words], plain)
        self.text = ""

    def read(self, until: str | None = None) -> str:
        """Read until a text comes, or to the end; return all that was read."""
        while until is None or until not in self.text:
            try:
                self.text += os.read(self.descriptor, 65536).decode()
            except OSError:  # the other end is closed
                assert until is None
                break
        return self.text

    def end(self) -> int:
        """Return the exit status as subprocess gives it."""
        self.read()
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
    ids=["plainly", "NO_COLOR", "NO_COLOR empty", "dumb"],
)
def test_only_a_terminal_that_wants_colour_gets_it(
    servers: Servers, environ: dict[str, str], colour: bool
) -> None:
    pid = servers.start(*HAZARD, NCCL_MAX_CTAS="0")
    terminal = Terminal("ps", str(pid), **environ)
    assert terminal.end() == 1
    assert ("\x1b[1;31mEXPOSED" in terminal.text) == colour
    assert ("\x1b" in terminal.text) == colour
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text).split("\r\n")
    assert max(map(len, lines)) <= 80


def test_watch_redraws_in_place_in_a_terminal(servers: Servers) -> None:
    pid = servers.start(*HAZARD, NCCL_MAX_CTAS="8")
    terminal = Terminal("ps", "--watch", "--interval", "0.2", str(pid))
    terminal.read("capped at 8")
    servers.running[0].kill()
    servers.running[0].wait()
    shown = terminal.read("there is no such process")
    assert shown.startswith("\x1b[H\x1b[J")  # in place
    os.write(terminal.descriptor, b"\x03")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text


def test_watch_shows_no_more_lines_than_there_are(servers: Servers) -> None:
    for _ in range(45):
        servers.start(*SERVE)
    terminal = Terminal("ps", "--watch")
    shown = terminal.read("Ctrl-C ends it")
    os.write(terminal.descriptor, b"\x03")
    assert terminal.end() == 0
    assert "WORKERS" in shown
    assert shown.partition("\x1b[H")[2].partition("\x1b[H")[0].count("\n") < 40


def test_watch_leaves_the_terminal_as_it_was_when_it_is_terminated() -> None:
    terminal = Terminal("ps", "--watch", "99999999")
    terminal.read("no such process")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == -signal.SIGTERM
    assert "\x1b[?" not in terminal.text  # nothing that would have to be undone


def test_watch_appends_tables_in_a_pipe(servers: Servers) -> None:
    pid = servers.start(*HAZARD, NCCL_MAX_CTAS="8")
    process = subprocess.Popen(
        [SCRIPT, "ps", "--watch", "--interval", "0.1", str(pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    headers = 0
    for line in process.stdout:
        headers += "VERDICT" in line
        assert "\x1b" not in line
        if headers == 3:
            break
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "Traceback" not in rest
