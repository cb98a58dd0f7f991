"""The command gets what it would get without the launcher, byte for byte.

Each test starts the probe in the same conditions directly and through the installed launcher, and
compares all that the probe can see of itself.

What no CPython program can hand on, and is therefore not tested: SIGPIPE and SIGXFSZ where the
parent ignored them or left them pending (the interpreter ignores both before any line of ours
runs); a stdin that is a directory, a wrong PYTHONHOME or PYTHONIOENCODING (it does not start).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from conftest import Ended, Starter

    Alike: TypeAlias = Callable[..., Ended]

ARGUMENTS: dict[str, list[bytes]] = {
    "none": [],
    "empty strings": [b"", b"a", b"", b""],
    "only an empty string": [b""],
    "spaces and newlines": [b" ", b"a b", b"\n", b"a\nb\r\n", b"\t"],
    "not UTF-8": [b"\xff\xfe", b"caf\xe9", b"\x80", b"\xed\xa0\x80", b"\xc0\xaf"],
    "UTF-8": ["é".encode(), "日本".encode(), "\N{PARROT}".encode(), b"\xef\xbb\xbf"],
    "every byte": [bytes(range(1, 256))],
    "a second --": [b"--", b"a", b"--", b"--"],
    "options of the launcher": [b"--help", b"--version", b"--strict", b"--vllm-version", b"-h"],
    "options of Python": [b"-c", b"import sys", b"-m", b"this", b"-I", b"-", b"-X", b"utf8=0"],
    "assignments and files": [b"A=1", b"=", b"=a", b"@file", b"@"],
    "for a shell to expand": [b"$HOME", b"`id`", b"*", b"~", b"\\", b'"', b"'", b"{a,b}", b"!"],
    "100 KB": [b"x" * 100_000, b"\xff" * 10_000],
    "many": [b"%d" % number for number in range(5_000)],
}

ENVIRONMENTS: dict[str, list[bytes]] = {
    "none": [],
    "unsorted": [b"Z=1", b"A=2", b"M=3", b"PATH=/bin", b"B=4"],
    "empty values": [b"A=", b"B=", b"PATH="],
    "duplicates": [b"A=1", b"PATH=/bin", b"A=2", b"PATH=/nonexistent", b"A=1", b"A"],
    "no =": [b"A=1", b"NOTHING", b"B=2", b"PATH", b"NCCL_MAX_CTAS"],
    "an empty entry": [b"A=1", b"", b"B=2", b""],
    "no name": [b"A=1", b"=value", b"=", b"==", b"=C:=C:\\"],
    "names that no shell takes": [b"my.var=1", b"BASH_FUNC_x%%=() { :; }", b"1ST=1", b"a b=1"],
    "not UTF-8": [b"A=\xff\xfe", b"\xff\xfe=1", b"\x80\x80=\x80", b"B=caf\xe9"],
    "newlines": [b"A=1\n2\n", b"B\n=1", b"\n=\n", b"LS_COLORS=\x1b[0m"],
    "100 KB": [b"A=" + b"x" * 100_000, b"B=1"],
    "many": [b"NAME_%d=%d" % (number, number) for number in range(5_000)],
    "of a shell": [b"_=/bin/x", b"SHLVL=1", b"OLDPWD=/", b"PWD=/wrong", b"IFS=x", b"ENV=/x"],
    # CPython sets LC_CTYPE in the C locale (PEP 538).
    "LANG=C": [b"A=1", b"LANG=C", b"B=2"],
    "LANG empty": [b"LANG=", b"B=2"],
    "LANG not installed": [b"A=1", b"LANG=xx_YY.UTF-8"],
    "LANG=C.UTF-8": [b"LANG=C.UTF-8"],
    "LC_CTYPE=C": [b"A=1", b"LC_CTYPE=C", b"B=2"],
    "LC_CTYPE empty": [b"A=1", b"LC_CTYPE=", b"B=2"],
    "LC_CTYPE=POSIX": [b"A=1", b"LC_CTYPE=POSIX", b"B=2"],
    "LC_CTYPE=C.UTF-8": [b"A=1", b"LC_CTYPE=C.UTF-8", b"LANG=C"],
    "LC_CTYPE not installed": [b"LC_CTYPE=xx_YY", b"LANG=C.UTF-8"],
    "LC_CTYPE=UTF-8": [b"A=1", b"LC_CTYPE=UTF-8", b"B=2"],  # as ssh from macOS sends it
    "LC_CTYPE twice": [b"LC_CTYPE=C", b"A=1", b"LC_CTYPE=POSIX", b"LC_CTYPE=C.UTF-8"],
    "LC_CTYPE without =": [b"A=1", b"LC_CTYPE", b"LC_CTYPEX=1", b"B=2"],
    "LC_ALL=C": [b"A=1", b"LC_ALL=C", b"B=2"],
    "LC_ALL empty": [b"LC_ALL=", b"B=2"],
    "LC_ALL=POSIX over LC_CTYPE": [b"LC_CTYPE=C.UTF-8", b"LC_ALL=POSIX"],
    "PYTHONCOERCECLOCALE=0": [b"PYTHONCOERCECLOCALE=0", b"LANG=C"],
    "PYTHONUTF8=0": [b"PYTHONUTF8=0", b"LANG=C"],
    "PYTHONUTF8=1": [b"PYTHONUTF8=1", b"LC_ALL=C"],
    "ASCII": [b"PYTHONUTF8=0", b"PYTHONCOERCECLOCALE=0", b"LC_ALL=C", b"A=\xff"],
    # These also change how an interpreter starts.
    "PYTHONINSPECT": [b"PYTHONINSPECT=1"],
    "PYTHONWARNINGS": [b"PYTHONWARNINGS=error", b"PYTHONDEVMODE=1"],
    "PYTHONOPTIMIZE": [b"PYTHONOPTIMIZE=2", b"PYTHONDONTWRITEBYTECODE=1"],
    "PYTHONSAFEPATH": [b"PYTHONSAFEPATH=1", b"PYTHONNOUSERSITE=1"],
    "PYTHONIOENCODING": [b"PYTHONIOENCODING=latin-1", b"PYTHONUNBUFFERED=1"],
    "PYTHONFAULTHANDLER": [b"PYTHONFAULTHANDLER=1", b"PYTHONMALLOC=debug"],
}

OPEN_FILES = """
for fd in range(3, 10):
    flags = os.O_RDWR | os.O_CREAT | (os.O_APPEND if fd % 2 else 0)
    file = os.open(f"{directory}/file{fd}", flags)
    os.write(file, b"0123456789")
    os.lseek(file, fd, os.SEEK_SET)
    if file != fd:
        os.dup2(file, fd)
        os.close(file)
    os.set_inheritable(fd, True)
"""
# Root can read every directory, unless it loses two capabilities on exec.
UNREADABLE = """
os.makedirs(directory + "/shut", exist_ok=True)
os.chdir(directory + "/shut")
os.chmod(".", 0)
for capability in (1, 2):
    libc.prctl(24, capability, 0, 0, 0)
"""
# Mount an empty folder over /proc, in a mount namespace. Status 77 if that is not allowed.
NO_PROC = """
if libc.unshare(0x20000 if os.getuid() == 0 else 0x10020000) != 0:
    os._exit(77)
libc.mount(None, b"/", None, 0x44000, None)
if libc.mount(b"none", b"/proc", b"tmpfs", 0, None) != 0 or os.listdir("/proc"):
    os._exit(77)
"""
CONDITIONS: dict[str, str] = {
    "nothing special": "",
    "SIGINT ignored": "signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "SIGTERM ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "SIGHUP ignored, as by nohup": "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    "all signals ignored": """
for number in (*range(1, 32), *range(34, 65)):
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
""",
    "SIGTERM blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
    "all signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "blocked signals pending": """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGINT])
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGINT)
""",
    "an alarm to come": "signal.setitimer(signal.ITIMER_REAL, 1000)",
    "umask 027": "os.umask(0o027)",
    "umask 777": "os.umask(0o777)",
    "nice": "os.nice(5)",
    "one CPU": "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])",
    "batch scheduling": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "to be killed first": "open('/proc/self/oom_score_adj', 'w').write('500')",
    "a session of its own": "os.setsid()",
    "a process group of its own": "os.setpgid(0, 0)",
    "dies with its parent": "libc.prctl(1, signal.SIGTERM, 0, 0, 0)",
    "no new privileges": "libc.prctl(38, 1, 0, 0, 0)",
    "timer slack": "libc.prctl(29, 123456, 0, 0, 0)",
    "few descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8, 16))",
    "no core": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    "little memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 29))",
    "little stack": "import resource; resource.setrlimit(resource.RLIMIT_STACK, (1 << 20,) * 2)",
    "little time": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (100, 200))",
    "small files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)",
    "cwd deleted": """
os.makedirs(directory + "/gone", exist_ok=True)
os.chdir(directory + "/gone")
os.rmdir(directory + "/gone")
""",
    "cwd unreadable": UNREADABLE,
    "cwd root": "os.chdir('/')",
    "stdin closed": "os.close(0)",
    "stdout closed": "os.close(1)",
    "stderr closed": "os.close(2)",
    "stdin, stdout and stderr closed": "os.closerange(0, 3)",
    "stdin write-only": "os.dup2(os.open(directory + '/in', os.O_WRONLY | os.O_CREAT), 0)",
    "stdin half read": """
with open(directory + "/in", "wb") as file:
    file.write(b"x" * 100_000)
os.dup2(os.open(directory + "/in", os.O_RDONLY), 0)
os.lseek(0, 50_000, os.SEEK_SET)
""",
    "stdout full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    "stderr full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "stderr a closed pipe": "r, w = os.pipe(); os.dup2(w, 2); os.close(r); os.close(w)",
    "stdout a closed pipe": "r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)",
    "pipes that do not block": """
for fd in (0, 1, 2):
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.set_blocking(w, False)
    os.dup2(w if fd else r, fd)
""",
    "a socket for stdin and stdout": """
import _socket
ours, theirs = _socket.socketpair()
os.dup2(theirs.fileno(), 0)
os.dup2(theirs.fileno(), 1)
""",
    "descriptors 3 to 9": OPEN_FILES,
    "descriptors 3 to 9, 0 to 2 closed": OPEN_FILES + "os.closerange(0, 3)",
    "descriptor 1000": "os.dup2(2, 1000)",
}


@pytest.fixture(scope="session")
def legacy_locale(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return an environment with a locale in which Python's codec loses some bytes."""
    localedef = shutil.which("localedef")
    if not localedef or not os.path.exists("/usr/share/i18n/charmaps/EUC-JP.gz"):
        pytest.skip("no localedef with its character maps, to make a legacy locale with")
    directory = tmp_path_factory.mktemp("locale")
    (directory / "source").write_text('LC_CTYPE\ncopy "POSIX"\nEND LC_CTYPE\n')
    command = [localedef, "-c", "-f", "EUC-JP", "-i", str(directory / "source")]
    subprocess.run([*command, str(directory / "legacy")], capture_output=True, check=False)
    return [b"LOCPATH=" + os.fsencode(directory), b"LC_CTYPE=legacy"]


@pytest.fixture
def alike(start: Starter) -> Alike:
    """Return a function that starts the probe in each way and checks that it sees the same."""

    def each_way(
        command: list[bytes],
        environ: Sequence[bytes] | None = None,
        conditions: str = "",
        path: bytes | None = None,
    ) -> Ended:
        direct = start(command, environ=environ, conditions=conditions, path=path)
        for form, launcher in start.forms.items():
            argv: list[bytes | str] = [*launcher, "--quiet", "--", *command]
            launched = start(argv, environ=environ, conditions=conditions)
            assert launched.seen == direct.seen, form
            assert launched.seen["pid"] == "@PID@", form
            assert (launched.status, launched.out, launched.err) == (0, b"", b""), form
        return launched

    return each_way


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_arrive_as_typed(alike: Alike, start: Starter, arguments: list[bytes]) -> None:
    command = [start.probe, *arguments]
    assert alike(command).argv() == command


@pytest.mark.parametrize("environ", ["ASCII", "PYTHONUTF8=1"])
@pytest.mark.parametrize("name", ["not UTF-8", "UTF-8", "every byte"])
def test_arguments_arrive_as_typed_in_the_c_locale(
    alike: Alike,
    start: Starter,
    name: str,
    environ: str,
) -> None:
    command = [start.probe, *ARGUMENTS[name]]
    assert alike(command, ENVIRONMENTS[environ]).argv() == command


def test_arguments_arrive_as_typed_in_a_legacy_locale(
    alike: Alike,
    start: Starter,
    legacy_locale: list[bytes],
) -> None:
    command = [start.probe, b"\x80", b"\xa4\xa2", b"\xff", b"", b"\x8e\xb1", b"\x8f\xff", b""]
    assert alike(command, legacy_locale).argv() == command


@pytest.mark.parametrize("environ", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_environment_arrives_byte_for_byte(
    alike: Alike,
    start: Starter,
    environ: list[bytes],
) -> None:
    assert alike([start.probe], environ).environ() == environ


@pytest.mark.parametrize("form", ["script", "module"])
@pytest.mark.parametrize(
    "environ", [pytest.param(ENVIRONMENTS[name], id=name) for name in ENVIRONMENTS if "L" in name]
)
def test_the_environment_arrives_byte_for_byte_without_proc(
    start: Starter, environ: list[bytes], form: str
) -> None:
    direct = start([b"/usr/bin/env", b"-0"], environ=environ, conditions=NO_PROC)
    if direct.status == 77:
        pytest.skip("nothing can be mounted here")
    command = [*start.forms[form], "--quiet", "--", "/usr/bin/env", "-0"]
    launched = start(command, environ=environ, conditions=NO_PROC)
    assert (launched.status, launched.out, launched.err) == (0, direct.out, b"")


@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=CONDITIONS)
def test_the_state_of_the_process_is_handed_on(
    alike: Alike,
    start: Starter,
    conditions: str,
) -> None:
    alike([start.probe], conditions=conditions)


def test_listening_sockets_are_handed_on_to_the_same_pid(alike: Alike, start: Starter) -> None:
    environ = [b"LISTEN_PID=@PID@", b"LISTEN_FDS=7"]
    assert alike([start.probe], environ, OPEN_FILES).environ() == environ


@pytest.mark.parametrize("name", [b"./probe", b"sub/../probe", b".//probe"])
def test_a_path_is_executed_as_typed(
    alike: Alike,
    start: Starter,
    tmp_path: Path,
    name: bytes,
) -> None:
    (tmp_path / "probe").symlink_to(os.fsdecode(start.probe))
    (tmp_path / "sub").mkdir()
    launched = alike([name])
    assert bytes.fromhex(launched.seen["execfn"]) == launched.argv()[0] == name


@pytest.mark.parametrize(
    ("search_path", "found"),
    [
        pytest.param(b"/nonexistent:{}/bin:/bin", b"{}/bin/vllm", id="second directory"),
        pytest.param(b"{}/bin/:/bin", b"{}/bin//vllm", id="slash at the end"),
        pytest.param(b"/bin::/nonexistent", b"vllm", id="empty component"),
        pytest.param(b"", b"vllm", id="empty"),
        pytest.param(b":{}/bin", b"vllm", id="colon first"),
        pytest.param(b"/bin:", b"vllm", id="colon last"),
        pytest.param(b"bin:.", b"bin/vllm", id="relative"),
        pytest.param(b".:bin", b"./vllm", id="dot"),
        pytest.param(b"{}/stdout:bin", b"bin/vllm", id="a file among the directories"),
        pytest.param(b"denied:bin", b"bin/vllm", id="not executable, then executable"),
        pytest.param(b"directory:bin", b"bin/vllm", id="a directory, then the program"),
        pytest.param(b"broken:bin", b"bin/vllm", id="interpreter missing, then the program"),
    ],
)
def test_a_name_is_executed_where_path_finds_it(
    alike: Alike,
    start: Starter,
    tmp_path: Path,
    search_path: bytes,
    found: bytes,
) -> None:
    for name in ("bin", "denied", "directory/vllm", "broken"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "denied/vllm").touch(0o644)
    (tmp_path / "broken/vllm").write_text("#!/nonexistent\n")
    (tmp_path / "broken/vllm").chmod(0o755)
    for link in (tmp_path / "vllm", tmp_path / "bin/vllm"):
        link.symlink_to(os.fsdecode(start.probe))
    here = os.fsencode(tmp_path)
    search_path, found = search_path.replace(b"{}", here), found.replace(b"{}", here)
    environ = [b"A=1", b"PATH=" + search_path, b"PATH=/nonexistent"]
    launched = alike([b"vllm", b"a"], environ, path=found)
    assert bytes.fromhex(launched.seen["execfn"]) == found
