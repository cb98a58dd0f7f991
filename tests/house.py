"""An environment with a stand-in for vLLM, and the servers started from it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eplb_launch.ps.command import look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.ps.rows import Row

SOURCE = Path(__file__).with_name("stand_in_server.py").read_text()
HAZARD = (
    "serve m --data-parallel-size 8 --enable-eplb --eplb-config.use_async true "
    "--all2all-backend deepep_low_latency"
)


class House:
    """A virtual environment with a stand-in for vLLM, and the processes started from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        venv.create(root, symlinks=True, with_pip=False)
        self.packages = next((root / "lib").glob("python3.*/site-packages"))
        import setproctitle

        (self.packages / "tests.pth").write_text(f"{Path(setproctitle.__file__).parent.parent}\n")
        self.vllm = root / "bin" / "vllm"
        self.vllm.write_text(f"#!{root}/bin/python\n{SOURCE}")
        self.vllm.chmod(0o755)
        self.release: Path | None = None
        self.started: list[subprocess.Popen[bytes]] = []

    def install(self, version: str | None) -> None:
        """Install a release of vLLM: only its dist-info folder."""
        if self.release:
            self.release.rmdir()
        self.release = self.packages / f"vllm-{version}.dist-info" if version else None
        if self.release:
            self.release.mkdir()

    def start(
        self,
        arguments: str | Sequence[str] = HAZARD,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        program: Sequence[str] | None = None,
        executable: str | None = None,
        **options: Any,
    ) -> int:
        """Start a stand-in, wait for all of its processes, and return its pid."""
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        process = subprocess.Popen(
            [*(program or [str(self.vllm)]), *words],
            executable=executable,
            env={
                "PATH": f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin",
                "STAND_IN": json.dumps(options),
                **(environ or {}),
            },
            cwd=cwd or self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    def end(self) -> None:
        """End every process that was started; orphans are in the same process group."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout:
                process.stdout.close()
        self.started.clear()


def seen(pid: int) -> Row:
    """Return the one row for a pid."""
    (row,) = look([pid])
    return row
