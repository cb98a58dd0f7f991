"""Real servers: vLLM's CPU build, as Makefile puts it into .venv-vllm, and two tiny models.

A server is started twice at the same time, directly and through the launcher, by the same parent
and in the same conditions: what a test compares is what the launcher makes of it.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BIN = ROOT / ".venv-vllm" / "bin"
SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
# Importing vLLM takes 10 to 20 s of a core, and a server with two ranks is seven processes.
START_SECONDS = 600
END_SECONDS = 120
SIGNALS = ("SigBlk", "SigIgn", "SigCgt")  # of /proc/PID/status
# One sequence at a time, and no compilation: both would make the start slow.
# float32: with bfloat16 vLLM's CPU build uses AMX where the CPU names it, and some virtual machines
# name it and then end the worker with SIGILL.
SMALL = [
    *("--enforce-eager", "--max-model-len", "64", "--max-num-seqs", "1"),
    *("--dtype", "float32", "--host", "127.0.0.1"),
]


class Server:
    """A process that becomes `vllm serve`, in a session and a folder of its own."""

    def __init__(self, folder: Path, home: Path, plugin: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.log = folder / "log"
        self.reports_file = folder / "reports"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.environ = {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "PYTHONPATH": str(plugin),
            "E2E_REPORTS": str(self.reports_file),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        }
        self.process: subprocess.Popen[bytes]
        self.pid = 0  # of the server, seen from here

    def start(self, argv: Sequence[str], conditions: str = "", **options: Any) -> None:
        """Start `argv`; `conditions` are statements for start.py."""
        entries = [f"{name}={value}".encode() for name, value in self.environ.items()]
        words = [word.encode() for word in argv]
        path = shutil.which(argv[0], path=self.environ["PATH"])
        assert path, argv[0]
        spec = self.folder / "spec"
        spec.write_bytes(marshal.dumps((path.encode(), words, entries, conditions)))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(HERE.parent / "start.py"), str(spec)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={},
                cwd=self.folder,
                start_new_session=True,
                **options,
            )
        self.pid = self.process.pid

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the server."""
        data = json.dumps(body).encode() if body else None
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def wait(self) -> None:
        """Wait until it serves."""
        until = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, f"{self.process.returncode}: {self.tail()}"
            assert time.monotonic() < until, self.tail()
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.get("/health")
                return
            time.sleep(0.5)

    def tail(self) -> str:
        """Return the end of what it wrote."""
        return self.log.read_text(errors="replace")[-4000:]

    def said(self) -> list[str]:
        """Return what the launcher wrote."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("eplb-launch: ")]

    def state(self) -> tuple[list[str], list[str]]:
        """Return the environment it was given and what it does with signals, but for its names."""
        with open(f"/proc/{self.pid}/environ") as file:
            text = file.read().replace(str(self.folder), "@FOLDER@")
        text = text.replace(f"LISTEN_PID={self.pid}\0", "LISTEN_PID=@PID@\0")
        with open(f"/proc/{self.pid}/status") as file:
            return text.split("\0"), [line for line in file if line.startswith(SIGNALS)]

    def reports(self) -> list[tuple[int, str, str | None]]:
        """Return what the plugin has seen: process, moment, value of the variable."""
        lines = map(json.loads, self.reports_file.read_text().splitlines())
        return [(line["pid"], line["when"], line["value"]) for line in lines]

    def at_start(self) -> list[str | None]:
        """Return the variable as each interpreter found it that the process has become."""
        own = (self.pid, "start")
        return [value for pid, when, value in self.reports() if (pid, when) == own]

    def ps(self, pid: int = 0) -> dict[str, Any]:
        """Return what `eplb-launch ps` says of it, asked for one of its processes."""
        command = [SCRIPT, "ps", "--json", str(pid or self.pid)]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        (row,) = answer["servers"]
        return dict(row)

    def end(self, number: int, *, group: bool = False) -> tuple[int, list[str]]:
        """Send a signal; return the status, and the processes that it leaves behind."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        (os.killpg if group else os.kill)(self.pid, number)
        status = self.process.wait(END_SECONDS)
        left = _alive(below, self.process.pid)
        until = time.monotonic() + END_SECONDS / 4
        while left and time.monotonic() < until:
            time.sleep(0.2)
            left = _alive(below, self.process.pid)
        print(f"{self.folder.name}: signal {number}, status {status}, left {left}")
        return status, list(map(str, left))

    def kill(self) -> None:
        """End all that there is, whatever happened."""
        if hasattr(self, "process"):
            below = []
            with contextlib.suppress(psutil.NoSuchProcess):
                below = psutil.Process(self.process.pid).children(recursive=True)
            for process in _alive(below, self.process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()


def _alive(known: Sequence[psutil.Process], session: int) -> list[psutil.Process]:
    """Return which of the processes live, and which others there are of the session."""
    found = []
    for process in {*known, *psutil.process_iter()}:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            here = process in known or os.getsid(process.pid) == session
            if here and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class House:
    """Starts servers, and sees to it that none is left."""

    def __init__(self, folder: Path, models: Path, plugin: Path) -> None:
        self.folder, self.models, self.plugin = folder, models, plugin
        self.launcher = [SCRIPT, "--"]

    @contextlib.contextmanager
    def servers(self, name: str, *kinds: str) -> Iterator[dict[str, Server]]:
        """Make servers that are still to be started, and end them afterwards."""
        made = {
            kind: Server(self.folder / f"{name}-{kind}", self.folder, self.plugin) for kind in kinds
        }
        try:
            yield made
        finally:
            for server in made.values():
                server.kill()

    def serve(self, model: str, server: Server, *more: str) -> list[str]:
        """Return the command that serves a model."""
        words = ["vllm", "serve", str(self.models / model), "--served-model-name", model]
        return [*words, *SMALL, "--port", str(server.port), *more]


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Return what starts servers; fails where there is no vLLM."""
    assert (BIN / "vllm").exists(), "there is no .venv-vllm: use `make e2e`"
    folder = tmp_path_factory.mktemp("e2e")
    models, plugin = folder / "models", folder / "plugin"
    subprocess.run([BIN / "python", HERE / "models.py", models], check=True)
    # vLLM finds its plugins among the distributions that are on Python's path.
    described = plugin / "reporter-1.dist-info"
    described.mkdir(parents=True)
    shutil.copy(HERE / "reporter.py", plugin)
    (plugin / "sitecustomize.py").write_text("import reporter\n\nreporter.report('start')\n")
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: reporter\nVersion: 1\n")
    (described / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nreporter = reporter:loaded\n"
    )
    return House(folder, models, plugin)
