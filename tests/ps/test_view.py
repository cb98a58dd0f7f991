"""`ps` reads the files that processes of other users name, with their rights and no more."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eplb_launch.ps import children, view
from eplb_launch.ps.children import results
from eplb_launch.ps.command import look, run
from eplb_launch.ps.rows import as_dict, table
from eplb_launch.ps.view import BUDGET, NOT_SAFE, TOO_MUCH, GiveUpError, View, rights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eplb_launch.ps.rows import Row

NOBODY = 65534
TEAM = 4242
STRANGER = 61_234  # who has no process
HAZARD = (
    *("-dp", "8", "--enable-eplb", "--eplb-config.use_async", "true"),
    *("--all2all-backend", "deepep_low_latency"),
)
YAML = (
    "data-parallel-size: 8\nenable-eplb: true\neplb-config: {use_async: true}\n"
    "all2all-backend: deepep_low_latency\n"
)
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become another user")


class People:
    """A folder that every user may read, and processes of other users that look like servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        packages = folder / "lib/python3.12/site-packages/vllm-0.16.0.dist-info"
        packages.mkdir(parents=True)
        (folder / "bin").mkdir()
        self.write("bin/python3.12", "", 0o755)
        self.write("bin/vllm", f"#!{folder}/bin/python3.12\n", 0o755)
        # The shell that is called "vllm" runs its first argument.
        self.write("serve", "echo ready\n/bin/sleep 600\n")
        for path in folder.rglob("lib*"):
            path.chmod(0o755)

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def start(
        self,
        *arguments: str,
        user: int = NOBODY,
        groups: tuple[int, ...] = (),
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
        program: str = "/bin/sh",
    ) -> int:
        process = subprocess.Popen(
            ["vllm", "serve", *arguments],
            executable=program,
            user=user,
            group=user,
            extra_groups=list(groups),
            cwd=cwd or self.folder,
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def people() -> Iterator[People]:
    """Return a folder outside of those of the tests, which only our user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="eplb-launch-people-"))
    folder.chmod(0o755)
    found = People(folder)
    yield found
    found.end()
    shutil.rmtree(folder)


def seen(pid: int) -> Row:
    (row,) = look([pid])
    return row


def verdict(pid: int) -> tuple[str, str]:
    row = seen(pid)
    return row.verdict, row.assessment.cause


def inside(pid: int, job: Callable[[View], Any]) -> Any:
    """Return what a job finds in the view of a process, in a child process."""

    def entered() -> Any:
        found = View(pid)
        found.take_rights()
        try:
            return job(found)
        except GiveUpError as error:
            return error.trouble.cause
        except OSError as error:
            return error.strerror

    return results({0: entered})[0]


EXPOSED = ("EXPOSED", "no-limit")
NOT_READ = ("unknown", "config-not-read")


# The rights.


@root_only
@pytest.mark.parametrize(
    ("file", "groups", "expected"),
    [
        ((0o644, 0, 0), (), EXPOSED),
        ((0o600, 0, 0), (), NOT_READ),
        ((0o600, NOBODY, 0), (), EXPOSED),
        ((0o640, 0, TEAM), (TEAM,), EXPOSED),
        ((0o640, 0, TEAM), (TEAM + 1,), NOT_READ),
        ((0o640, 0, NOBODY), (), EXPOSED),
        ((0o060, NOBODY, NOBODY), (), NOT_READ),
    ],
    ids=["all", "root's", "its own", "its group's", "another group's", "its first group's", "not"],
)
def test_a_config_file_is_read_with_the_rights_of_the_server(
    people: People,
    file: tuple[int, int, int],
    groups: tuple[int, ...],
    expected: tuple[str, str],
) -> None:
    mode, owner, group = file
    os.chown(people.write("s.yaml", YAML, mode), owner, group)
    os.chmod(people.folder / "s.yaml", mode)
    assert verdict(people.start("m", "--config", "s.yaml", groups=groups)) == expected


@root_only
def test_a_file_of_root_that_another_user_names_is_not_shown(
    people: People, capfd: pytest.CaptureFixture[str]
) -> None:
    """For a server of root the same file is read, and shown."""
    people.write("s.yaml", YAML.replace("deepep_low_latency", "the-secret"), 0o600)
    people.write("n.conf", "NCCL_MIN_NCHANNELS=77\n", 0o600)
    environ = {"NCCL_CONF_FILE": f"{people.folder}/n.conf"}
    pids = [
        people.start("m", "--config", "s.yaml"),
        people.start("m", *HAZARD, environ=environ),
    ]
    run(pids, as_json=True)
    run(pids)
    said = "".join(capfd.readouterr())
    assert "the-secret" not in said
    assert "NCCL_MIN_NCHANNELS" not in said
    run([people.start("m", *HAZARD, user=0, environ=environ)], as_json=True)
    assert "NCCL_MIN_NCHANNELS=77" in capfd.readouterr().out


SETUID = """import os, time
if {become}:
    os.setgid(0)
    os.setuid(0)
print("ready", flush=True)
time.sleep(600)
"""


@root_only
@pytest.mark.parametrize("become", [False, True])
@pytest.mark.parametrize("bit", [0o4000, 0o2000], ids=["setuid", "setgid"])
def test_no_files_are_read_for_a_setuid_program(people: People, bit: int, become: bool) -> None:
    """`exec -a vllm sudo serve` runs as root while it waits for a password."""
    program = next((path for path in PYTHONS if os.path.exists(path)), "")
    if not program:
        pytest.skip("no Python of the system, which everybody may run")
    shutil.copy(os.path.realpath(program), people.folder / "sudo")
    (people.folder / "sudo").chmod(0o755 | bit)
    people.write("serve", SETUID.format(become=become and bit == 0o4000))
    people.write("s.yaml", YAML, 0o600)
    pid = people.start("m", "--config", "s.yaml", program=str(people.folder / "sudo"))
    row = seen(pid)
    assert (row.verdict, row.assessment.cause) == ("unknown", NOT_SAFE.cause)
    assert row.settings == {}


@root_only
def test_the_child_has_exactly_the_rights_of_the_process(people: People) -> None:
    pid = people.start("m", groups=(TEAM, 7))

    def look(found: View) -> Any:
        mine = rights_of("self")
        return found.user(), (mine.user, mine.group, mine.groups), mine.capabilities & 0b110

    assert inside(pid, look) == (NOBODY, (NOBODY, NOBODY, frozenset({TEAM, 7})), 0)
    assert rights_of("self").user == 0


@root_only
def test_rights_are_not_taken_with_a_second_thread(people: People) -> None:
    """Each thread has rights of its own: the second one would keep ours."""
    pid = people.start("m")

    def enter() -> str:
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        try:
            View(pid).take_rights()
        except GiveUpError as error:
            return error.trouble.cause
        finally:
            done.set()
            thread.join()
        return "entered"

    assert results({0: enter})[0] == NOT_SAFE.cause


@root_only
@pytest.mark.parametrize("call", ["setfsuid", "setfsgid"])
def test_rights_that_the_kernel_does_not_give_are_noticed(
    people: People, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """These calls report no error."""
    people.write("s.yaml", YAML)
    pid = people.start("m", "--config", "s.yaml")
    monkeypatch.setattr(view._libc, call, lambda _number: 0)  # noqa: SLF001
    assert verdict(pid) == ("unknown", NOT_SAFE.cause)


def test_nothing_is_read_with_our_own_rights() -> None:
    found = View(os.getpid())
    for job in (found.stat, found.names, found.real, lambda path: found.read(path, 1)):
        with pytest.raises(GiveUpError, match=NOT_SAFE.cause):
            job("/etc/passwd")


@root_only
def test_a_program_counts_only_if_the_process_may_execute_it(people: People) -> None:
    path = people.write("bin/tool", "")
    pid = people.start("m", groups=(TEAM,))
    for mode, owner, group, expected in [
        (0o755, 0, 0, True),
        (0o644, 0, 0, False),
        (0o754, 0, 0, False),
        (0o754, 0, TEAM, True),
        (0o700, NOBODY, 0, True),
        (0o655, NOBODY, 0, False),
    ]:
        os.chown(path, owner, group)
        path.chmod(mode)
        assert inside(pid, lambda found: found.runs(str(path))) is expected, oct(mode)


# Regular files only.


@root_only
@pytest.mark.parametrize("kind", ["pipe", "folder", "ptmx", "socket"])
def test_only_regular_files_are_opened(people: People, kind: str) -> None:
    path = people.folder / "x"
    writer = None
    if kind == "pipe":
        os.mkfifo(path)
        path.chmod(0o666)
        # It waits until a process opens the other end.
        words = ["sh", "-c", "echo x > x; touch opened"]
        writer = subprocess.Popen(words, cwd=people.folder, stderr=subprocess.DEVNULL)
    elif kind == "folder":
        path.mkdir()
    elif kind == "ptmx":
        path.symlink_to("/dev/ptmx")
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    pid = people.start("m", "--config", "x", environ={"NCCL_CONF_FILE": str(path)})
    try:
        assert verdict(pid) == ("unknown", "command-not-understood")  # vLLM takes YAML files only
        assert inside(pid, lambda found: found.read(str(path), 1)) == "not a regular file"
        assert not (people.folder / "opened").exists()
        assert writer is None or writer.poll() is None
    finally:
        if writer is not None:
            writer.kill()
            writer.wait()


@root_only
def test_a_run_of_ps_opens_no_device(people: People) -> None:
    """strace records the calls, if it is installed."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here")
    pid = people.start("m", "--config", "/dev/ptmx")
    script = f"from eplb_launch.ps.command import run; run([{pid}])"
    log = people.folder / "log"
    command = [strace, "-f", "-o", str(log), "-e", "trace=open,openat,openat2"]
    subprocess.run([*command, sys.executable, "-c", script], check=False, capture_output=True)
    calls = log.read_text()
    if "openat2" not in calls and "/dev/ptmx" not in calls:
        pytest.skip("strace may not trace here")
    opened = [line for line in calls.splitlines() if "ptmx" in line]
    assert opened
    assert all("O_PATH" in line for line in opened)


def test_files_of_proc_are_not_read(tmp_path: Path) -> None:
    """They have no size, and to read some of them blocks or has effects."""
    (tmp_path / "x").write_text("x")
    assert inside(os.getpid(), lambda found: found.read(str(tmp_path / "x"), 9)) == b"x"
    assert inside(os.getpid(), lambda found: found.read("/proc/version", 9)) == b""


def test_magic_links_are_not_followed() -> None:
    found = inside(os.getpid(), lambda found: found.read("/proc/self/exe", 4))
    assert found == os.strerror(40)  # ELOOP


# The root.


class Jail:
    """A process in a chroot, and a file outside of it."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "secret"
        self.outside.write_text("outside")
        self.root = folder / "jail"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/x").write_text("inside")
        self.pid = os.fork()
        if not self.pid:
            try:
                os.chroot(self.root)
                os.chdir("/")
                time.sleep(600)
            finally:
                os._exit(0)
        for _ in range(500):
            if os.readlink(f"/proc/{self.pid}/root") == str(self.root):
                return
            time.sleep(0.01)
        raise AssertionError("the chroot did not happen")

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[Jail]:
    if os.geteuid():
        pytest.skip("takes root for a chroot")
    found = Jail(tmp_path)
    yield found
    found.end()


def test_links_stay_below_the_root(jail: Jail) -> None:
    (jail.root / "opt").mkdir()
    (jail.root / "opt/absolute").symlink_to("/etc/x")
    (jail.root / "opt/up").symlink_to("../../../../../etc/x")
    (jail.root / "opt/out").symlink_to(f"..{jail.outside}")
    (jail.root / "a").symlink_to("/b")
    (jail.root / "b").symlink_to("a")
    for path, expected in {
        "/etc/x": b"inside",
        "etc/x": b"inside",
        "/opt/absolute": b"inside",
        "/opt/up": b"inside",
        "/../../etc/x": b"inside",
        "/opt/out": os.strerror(2),
        str(jail.outside): os.strerror(2),
        "/a": os.strerror(40),
    }.items():
        assert inside(jail.pid, functools.partial(View.read, path=path, most=99)) == expected
    assert inside(jail.pid, lambda found: found.real("/opt/absolute")) == "/etc/x"
    assert inside(jail.pid, lambda found: found.real("/opt/./missing")) == "/opt/./missing"
    assert sorted(inside(jail.pid, lambda found: found.names("/opt/.."))) == [
        *("a", "b", "etc", "opt"),
    ]


def test_a_link_that_is_swapped_meanwhile_stays_below_the_root(jail: Jail) -> None:
    """A folder and a link to the root above are swapped, and a folder on the way up is moved."""
    (jail.root / "d").mkdir()
    (jail.root / "d/secret").write_text("inside")
    (jail.root / "l").symlink_to("../../../../..")
    (jail.root / "deep/deeper").mkdir(parents=True)
    swapper = os.fork()
    if not swapper:
        try:
            libc = ctypes.CDLL(None)
            names = [os.fsencode(jail.root / name) for name in ("d", "l", "deep/deeper", "moved")]
            while True:
                libc.renameat2(-100, names[0], -100, names[1], 2)  # RENAME_EXCHANGE
                os.rename(names[2], names[3])
                os.rename(names[3], names[2])
        finally:
            os._exit(0)

    def look(found: View) -> set[object]:
        seen: set[object] = set()
        found.left = 1 << 40
        for _ in range(3000):
            for path in ("/d/secret", "/l/secret", "/deep/deeper/../../../secret"):
                try:
                    seen.add(found.read(path, 99))
                except OSError as error:
                    seen.add(error.errno)
        return seen

    try:
        found = inside(jail.pid, look)
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
    assert b"inside" in found
    assert b"outside" not in found


def test_without_openat2_only_files_below_our_root_are_read(
    jail: Jail, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_OPENAT2", 100_000)  # ENOSYS
    people.write("s.yaml", YAML)
    assert verdict(people.start("m", "--config", "s.yaml")) == EXPOSED
    people.write("s.yaml", YAML, 0o600)
    assert verdict(people.start("m", "--config", "s.yaml")) == NOT_READ
    assert inside(jail.pid, lambda found: found.read("/etc/x", 9)) == NOT_SAFE.cause


# The bounds.


def many(name: str, entries: int = 60_000) -> dict[str, str]:
    return {name: ":".join(["b"] * entries)}


@root_only
@pytest.mark.parametrize(
    "environ",
    [many("PATH"), {**many("PYTHONPATH"), "PATH": "/none"}, many("PYTHONPATH")],
    ids=["PATH", "PYTHONPATH, not looked at", "PYTHONPATH"],
)
def test_a_process_that_names_too_many_files_is_unknown(
    people: People, environ: dict[str, str]
) -> None:
    deep = people.folder.joinpath(*["a" * 20] * 100)
    deep.mkdir(parents=True)
    (deep / "serve").write_text("echo ready\n/bin/sleep 600\n")
    for path in (deep, *deep.parents):
        if people.folder in path.parents:
            path.chmod(0o755)
    expected = "release-not-known" if environ.get("PATH") == "/none" else TOO_MUCH.cause
    environ = {"PATH": f"{people.folder}/bin:/usr/bin:/bin", **environ}
    pid = people.start("m", *HAZARD, environ=environ, cwd=deep)
    assert verdict(pid) == ("unknown", expected)


@root_only
@pytest.mark.timeout(60 * children.SECONDS)
def test_a_file_system_that_hangs_does_not_hang_ps(people: People) -> None:
    """The file system is FUSE, and nothing answers."""
    place = people.folder / "hangs"
    place.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("no FUSE here")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    try:
        if ctypes.CDLL(None).mount(b"none", os.fsencode(place), b"fuse", 6, options):
            pytest.skip("may not mount FUSE")
        pids = [people.start("m", "--config", "hangs/x"), people.start("m", *HAZARD)]
        causes = {row.pid: row.assessment.cause for row in look(pids)}
        assert causes == dict(zip(pids, ("timed-out", "no-limit"), strict=True))
    finally:
        os.close(device)  # which ends all that waits for it
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def test_each_look_up_and_each_byte_costs(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 4096 * 10)
    for number in range(64):
        (tmp_path / f"f{number}").touch()
    path = f"{tmp_path}/x"

    def cost(job: Callable[[View], Any]) -> Any:
        def measured(found: View) -> int:
            job(found)
            return BUDGET - found.left

        return inside(os.getpid(), measured)

    assert len(path) < 128
    assert cost(lambda found: found.stat(path)) == 1
    assert cost(lambda found: found.read(path, 1 << 20)) == 11
    assert cost(lambda found: found.names(str(tmp_path))) == 3
    assert cost(lambda found: found.exists("/" * 1280)) == 11
    many = inside(os.getpid(), lambda found: [found.exists(path) for _ in range(BUDGET + 1)])
    assert many == TOO_MUCH.cause


@root_only
def test_values_are_cut_and_escaped(people: People, capfd: pytest.CaptureFixture[str]) -> None:
    backend = "\x1b[31m" + "x" * 5000
    people.write("s.yaml", YAML.replace("deepep_low_latency", json.dumps(backend)))
    pid = people.start("m", "--config", "s.yaml", environ={"NCCL_MAX_CTAS": "y" * 5000})
    run([pid])
    run([pid], as_json=True)
    said = capfd.readouterr().out
    assert "\x1b" not in said
    assert "x" * 150 in said
    assert "x" * 201 not in said
    assert "y" * 201 not in said


@root_only
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--config", "none.yaml"], id="a file that is not there"),
        pytest.param(["--config", "x" * 5000], id="a long name"),
        pytest.param(["-dp", "8" * 5000, "--enable-eplb"], id="a long number"),
        pytest.param(["--served-model-name", "x" * 5000, *HAZARD], id="what is not shown"),
    ],
)
def test_no_value_is_shown_whole(people: People, words: list[str]) -> None:
    """NCCL reads 8 from the long value."""
    pid = people.start("m", *words, environ={"NCCL_MAX_CTAS": "8" + "abc" * 2000})
    (row,) = look([pid])
    said = json.dumps(as_dict([row])) + table([row], width=None)
    assert all(len(word) < 250 for word in said.split())
    assert "8abc" in said


# The child processes.


def test_a_job_that_does_not_end_is_abandoned() -> None:
    """A stopped process stands in for one that a file system blocks: only SIGKILL ends it."""
    pids = Path("/proc/self/task")

    def hang() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    begun = time.monotonic()
    jobs: dict[str, Callable[[], Any]] = {"hangs": hang, "works": lambda: str(pids)}
    try:
        assert results(jobs, 2.0) == {"hangs": None, "works": str(pids)}
        assert time.monotonic() - begun >= 2
        (child,) = children._abandoned.values()  # noqa: SLF001
        # The job is not run again while its child exists.
        assert results(jobs, 2.0) == {"hangs": None, "works": str(pids)}
        assert list(children._abandoned.values()) == [child]  # noqa: SLF001
    finally:
        for child in children._abandoned.values():  # noqa: SLF001
            os.kill(child, signal.SIGKILL)
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert results({"hangs": lambda: 1}) == {"hangs": 1}
    assert children._abandoned == {}  # noqa: SLF001


def test_a_reader_of_our_output_does_not_wait_for_an_abandoned_child() -> None:
    script = (
        "import os, signal, sys\n"
        "from eplb_launch.ps import children\n"
        "job = lambda: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "print(children.results({1: job}, 0.2), children._abandoned[1], flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    found, child = ended.stdout.split("} ")
    assert found == "{1: None"
    os.kill(int(child), signal.SIGKILL)


def test_a_job_that_uses_too_much_time_or_memory_has_no_result() -> None:
    def spin() -> None:
        while True:
            pass

    jobs: dict[str, Callable[[], Any]] = {
        "spins": spin,
        "eats": lambda: len(bytearray(children.MAX_MEMORY * 2)),
        "ends": lambda: os._exit(3),
        "works": lambda: 7,
    }
    assert results(jobs, 2.0) == {"spins": None, "eats": None, "ends": None, "works": 7}
    assert children._abandoned == {}  # noqa: SLF001


def test_many_jobs_all_have_their_result() -> None:
    def job(number: int) -> Callable[[], bytes]:
        return lambda: b"x" * number

    numbers = (0, 1, 70_000, 1_000_000, *range(40))
    assert results({n: job(n) for n in numbers}) == {n: b"x" * n for n in numbers}


def test_a_child_has_none_of_our_descriptors() -> None:
    with tempfile.TemporaryFile() as file:
        os.set_inheritable(file.fileno(), True)
        opened = results({0: lambda: sorted(os.listdir("/proc/self/fd"), key=int)})[0]
    assert len(opened) == 5  # with the pipe, and that of the listing


# Hidden processes.


@root_only
def test_ps_says_that_processes_are_hidden() -> None:
    libc = ctypes.CDLL(None)

    def hidden(**options: Any) -> Any:
        def job() -> Any:
            if libc.unshare(0x00020000):  # CLONE_NEWNS
                return None
            mounted = "-t proc -o hidepid=2 none /proc"
            for words in (["--make-rprivate", "/"], mounted.split()):
                if subprocess.run(["mount", *words], check=False).returncode:
                    return None
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
                status = run((), **options)
                sys.stdout.flush()
                out.seek(0)
                err.seek(0)
                return status, out.read().decode(), err.read().decode()

        return results({0: job})[0]

    found = hidden()
    if found is None:
        pytest.skip("may not mount")
    said = "eplb-launch: other users' processes are hidden: run as root\n"
    assert found == (125, "", said)
    status, out, err = hidden(as_json=True)
    assert (status, json.loads(out)["hidden"], json.loads(out)["servers"]) == (125, True, [])
    assert err == said
