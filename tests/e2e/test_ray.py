"""Ray: what is in the driver's environment is not in that of workers on a cluster that was there.

Two nodes of the real Ray, on this machine. The driver stands in for vLLM up to 0.16, which hands
no NCCL variable to its Ray workers.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ray", reason="no Ray for this Python")
pytestmark = pytest.mark.timeout(300)

HERE = Path(__file__).parent
BIN = sysconfig.get_path("scripts")
RELEASE = ["--vllm-version", "0.16.0"]
EXPOSED = [
    *("vllm", "serve", "m", "-dp", "2", "-ep", "--enable-eplb", "--eplb-config.use_async", "true"),
    *("--all2all-backend", "deepep_low_latency", "--data-parallel-backend", "ray"),
]
CAP = {"env_vars": {"NCCL_MAX_CTAS": "8"}}
# Before `ray start`, as the warning has it.
EVALUATED = f'eval "$(eplb-launch env {shlex.join([*RELEASE, "--", *EXPOSED])})"'


class Cluster:
    """Two nodes that run before the driver starts; each is a `ray start` of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        # In front of the real ray and eplb-launch, the driver as `vllm`.
        driver = folder / "vllm"
        driver.write_text(f"#!{sys.executable}\n{(HERE / 'ray_driver.py').read_text()}")
        driver.chmod(0o755)
        self.environ = {
            "PATH": f"{folder}:{BIN}:/usr/bin:/bin",
            "HOME": str(folder),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "LANG": "C.UTF-8",
        }
        self.folder = folder
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, name: str, before: str = ":") -> None:
        """Start a node, after the statement `before` of a shell; the first is the head."""
        head = ["--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false"]
        words = ["ray", "start", "--block", "--num-cpus=1", f"--resources={json.dumps({name: 1})}"]
        words += ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 << 20}"]
        words += [f"--address={self.address}"] if self.nodes else head
        with open(self.folder / f"{name}.log", "wb") as log:
            node = subprocess.Popen(
                ["sh", "-c", f"{before}; exec {shlex.join(words)}"],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(node)
        until = time.monotonic() + 120
        while "--block" not in (text := (self.folder / f"{name}.log").read_text()):
            assert node.poll() is None, text
            assert time.monotonic() < until, text
            time.sleep(0.2)

    def drive(self, runtime_env: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Run the driver through the launcher; return what it saw, and what the launcher said."""
        ended = subprocess.run(
            ["eplb-launch", *RELEASE, "--", *EXPOSED],
            executable=f"{BIN}/eplb-launch",
            env={
                **self.environ,
                "RAY_ADDRESS": self.address,
                "RUNTIME_ENV": json.dumps(runtime_env),
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        said = [line for line in ended.stderr.splitlines() if line.startswith("eplb-launch: ")]
        return json.loads(ended.stdout.splitlines()[-1]), "\n".join(said)

    def end(self) -> None:
        """End the nodes, the head last, and all processes that they have started."""
        for node in reversed(self.nodes):
            below = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
            node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(20)
            node.kill()
            node.wait()
            for process in psutil.wait_procs(below, timeout=10)[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@contextlib.contextmanager
def cluster(**nodes: str) -> Iterator[Cluster]:
    """Start nodes by name, each after a statement of a shell."""
    # Ray's sockets are below it, and the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        made = Cluster(Path(folder))
        try:
            for name, before in nodes.items():
                made.add(name, before)
            yield made
        finally:
            made.end()


@pytest.fixture(scope="module")
def plain() -> Iterator[Cluster]:
    """Return a cluster that was started with nothing of ours in its environment."""
    with cluster(first=":", second=":") as made:
        yield made


def runtime_env() -> dict[str, Any]:
    """Return what `env --format ray` prints."""
    command = [f"{BIN}/eplb-launch", "env", *RELEASE, "--format", "ray", "--", *EXPOSED]
    found = subprocess.run(command, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"})
    return dict(json.loads(found.stdout))


def test_the_launcher_alone_reaches_the_driver_only(plain: Cluster) -> None:
    seen, said = plain.drive({})
    assert seen == {"driver": "8", "actors": {"first": None, "second": None}}
    assert "eplb-launch: warning: vLLM 0.16.0 passes no NCCL variables to its Ray workers" in said


def test_as_runtime_env_it_reaches_the_actors_on_both_nodes(plain: Cluster) -> None:
    assert runtime_env() == CAP
    seen, _ = plain.drive(runtime_env())
    assert seen == {"driver": "8", "actors": {"first": "8", "second": "8"}}


def test_each_node_hands_on_what_it_was_started_with() -> None:
    with cluster(first=EVALUATED, second=":") as made:
        seen, _ = made.drive({})
    assert seen["actors"] == {"first": "8", "second": None}


@contextlib.contextmanager
def exposed(root: Path) -> Iterator[int]:
    """Start a stand-in for a server of vLLM 0.16.0 without the cap; return its pid."""
    venv.create(root, symlinks=True, with_pip=False)
    packages = next((root / "lib").glob("python3.*/site-packages"))
    (packages / "vllm-0.16.0.dist-info").mkdir()
    vllm = root / "bin" / "vllm"
    vllm.write_text(
        f"#!{root}/bin/python\nimport time\nprint('ready', flush=True)\ntime.sleep(300)\n"
    )
    vllm.chmod(0o755)
    environ = {"PATH": "/usr/bin:/bin"}
    command = [str(vllm), *EXPOSED[1 : EXPOSED.index("--data-parallel-backend")]]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield server.pid
        server.kill()


def test_the_example_asks_every_node_which_servers_are_safe(plain: Cluster, tmp_path: Path) -> None:
    script = HERE.parent.parent / "examples" / "ray" / "ray_ps.py"
    with exposed(tmp_path / "venv") as pid:
        ended = subprocess.run(
            [sys.executable, str(script)],
            env={**plain.environ, "RAY_ADDRESS": plain.address},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    # Both nodes are on this machine, and see the same process.
    found = re.findall(
        rf"^\S+ \((\w+)\): {pid}: EXPOSED: .*", ended.stdout, re.MULTILINE | re.IGNORECASE
    )
    assert len(set(found)) == 2, ended.stdout
