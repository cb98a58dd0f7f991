"""Start real processes, directly and through the launcher, and read what they saw of themselves."""

from __future__ import annotations

import cProfile
import dataclasses
import marshal
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Result = TypeVar("Result")

HERE = os.path.dirname(__file__)
# The command as it was installed, with the two ways to start it.
SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
FORMS = {"script": [SCRIPT], "module": [sys.executable, "-m", "eplb_launch"]}
# The whole environment of a process, unless a test says otherwise.
PLAIN = (b"PATH=/usr/local/bin:/usr/bin:/bin", b"LANG=C.UTF-8", b"HOME=/nonexistent")
# Of /proc/PID/status: what a process is, not what it did so far.
STATUS = re.compile(
    r"^(Name|Umask|Uid|Gid|Groups|Threads|ShdPnd|Sig(?:Pnd|Blk|Ign|Cgt)|Cap\w+|NoNewPrivs|Seccomp"
    r"|(?:Cpus|Mems)_allowed):[ \t]*(.*)$",
    re.MULTILINE,
)
COMPILER = shutil.which("cc")

# How long an example takes, and how many come in a second, is the machine's.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# In the background of a script, or under nohup, these are ignored, and our processes would be born
# with that.
for _signal in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.SIG_DFL)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a row by its words: pytest numbers lists and long strings."""
    if isinstance(val, (list, tuple)) and all(isinstance(word, str) for word in val):
        val = " ".join(val) if val else "none"
    if not isinstance(val, str):
        return None
    text = val.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make dist-test` name the files of a release; it takes minutes and a package index."""
    parser.addoption("--release", metavar="FOLDER", help="see tests/test_dist.py")


def pytest_report_header() -> str:
    """Say which probe looks at the processes."""
    if COMPILER:
        return f"probe: C, by {COMPILER}"
    return "probe: Python, for want of cc: blind to how SIGINT, SIGPIPE and SIGXFSZ are handed on"


def counted(function: Callable[..., Result], *arguments: object) -> tuple[Result, int]:
    """Return what a call returns, and how many functions it calls, which is the same anywhere.

    What a C function does counts as one; for that there is the time-out of pytest.
    """
    profile = cProfile.Profile()
    result = profile.runcall(function, *arguments)
    return result, sum(entry.callcount for entry in profile.getstats())


def calls(function: Callable[..., object], *arguments: object) -> int:
    """Return how many functions a call calls."""
    return counted(function, *arguments)[1]


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that ended."""

    status: int  # as of subprocess: below 0, the signal that killed it
    out: bytes
    err: bytes
    seen: dict[str, str]  # by the probe; empty if it did not run. Its own pid is "@PID@".

    def argv(self) -> list[bytes]:
        """Return the arguments that the probe got."""
        return [bytes.fromhex(word) for word in self.seen["argv"].split(",")[:-1]]

    def environ(self) -> list[bytes]:
        """Return the entries of the environment that the probe got."""
        return [bytes.fromhex(word) for word in self.seen["environ"].split(",")[:-1]]


class Starter:
    """Starts processes in a directory of their own, with nothing of the tests' environment."""

    forms = FORMS

    def __init__(self, probe: Path, directory: Path) -> None:
        self.probe = os.fsencode(probe)
        self._reports = probe.parent / "reports"
        self._directory = directory

    def launched(self, command: Sequence[bytes | str], **options: Any) -> Ended:
        """Run `command` through the installed script."""
        # Else it says on stderr that the probe is no server.
        return self([SCRIPT, "--quiet", "--", *command], **options)

    def __call__(
        self,
        argv: Sequence[bytes | str],
        *,
        environ: Sequence[bytes] | None = None,
        conditions: str = "",
        path: bytes | None = None,
        cwd: Path | None = None,
    ) -> Ended:
        """Run `argv` to its end; `path` is what is executed, if not argv[0].

        `conditions` are statements that set the scene: see start.py. They see the directory of
        the test as `directory`.
        """
        words = [os.fsencode(word) for word in argv]
        spec, out, err = (self._directory / name for name in ("spec", "stdout", "stderr"))
        entries = list(PLAIN if environ is None else environ)
        spec.write_bytes(marshal.dumps((path or words[0], words, entries, conditions)))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", os.path.join(HERE, "start.py"), str(spec)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={},
                cwd=cwd or self._directory,
            )
        try:
            status = process.wait()  # without a limit, which would poll: pytest has one
        finally:
            process.kill()
            process.wait()
        report = self._reports / str(process.pid)
        seen = _parse(report.read_text(), process.pid) if report.exists() else {}
        report.unlink(missing_ok=True)
        return Ended(status, out.read_bytes(), err.read_bytes(), seen)


def _parse(text: str, pid: int) -> dict[str, str]:
    """Read a report, with what differs between any two processes taken out of it."""
    seen = dict(line.partition(" ")[::2] for line in text.splitlines())
    for name in ("pid", "pgid", "sid"):
        if seen[name] == str(pid):
            seen[name] = "@PID@"
    listening = b"LISTEN_PID=%d" % pid
    seen["environ"] = seen["environ"].replace(listening.hex(), b"LISTEN_PID=@PID@".hex())
    status = bytes.fromhex(seen.pop("status")).decode()
    seen |= {f"status.{name}": value for name, value in STATUS.findall(status)}
    for name, value in seen.items():
        if name.startswith("fd."):
            seen[name] = re.sub(r"inode=\d+ (\w+:\[)\d+", r"\1", value)  # a pipe or a socket
    return seen


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program that reports what it sees of itself."""
    directory = tmp_path_factory.mktemp("probe")
    reports, program = directory / "reports", directory / "probe"
    reports.mkdir()
    if COMPILER:
        source = os.path.join(HERE, "probe.c")
        command = [COMPILER, "-O1", f'-DREPORTS="{reports}"', "-o", str(program), source]
        subprocess.run(command, check=True)
    else:
        with open(os.path.join(HERE, "probe.py")) as file:
            program.write_text(f"#!{sys.executable} -IS\n{file.read()}")
        program.chmod(0o755)
    return program


@pytest.fixture
def start(probe: Path, tmp_path: Path) -> Starter:
    """Return a function that runs a process to its end."""
    return Starter(probe, tmp_path)


@pytest.fixture(params=list(FORMS))
def launcher(request: pytest.FixtureRequest) -> list[str]:
    """Return each way to start the launcher in turn."""
    return FORMS[request.param]
