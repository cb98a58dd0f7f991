"""What processes of another user can do to `eplb-launch ps` of root: each attack's seconds and MB.

Each attack is a process of nobody's that looks like a server (of root's where it runs Python, which
nobody may not be allowed to). `--before FOLDER` measures another release beside this one: FOLDER
holds its package, as `git worktree add FOLDER COMMIT` makes it. Then `ps` looks at thousands of
processes with some of each attack among them. All that is started is ended again. Takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from ps import start as start_others

NOBODY = 65534
LIMIT = 60.0  # seconds, after which a look is ended
TARGET = 3.0  # seconds for all processes
ENTRIES = 60_000
KEYS = 25_000
DEPTH = 100
WORDS = 30_000
AREA = 256 << 20
HERE = Path(__file__).resolve().parent.parent
SERVE = (
    *("m", "-dp", "8", "--enable-eplb", "--eplb-config.use_async", "true"),
    *("--all2all-backend", "deepep_low_latency"),
)
WAITS = "echo ready; read x\n"


class Attackers:
    """A folder that everybody may read, and the processes of nobody's that start in it."""

    def __init__(self, folder: Path) -> None:
        """Write what they need."""
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.deep = folder.joinpath(*["a"] * DEPTH)
        self.deep.mkdir(parents=True)
        for place in (folder, self.deep):
            for script in ("serve", "bash", "env"):
                (place / script).write_text(WAITS)  # what a shell runs that is called "vllm"
        packages = folder / "lib/python3.12/site-packages/vllm-0.16.0.dist-info"
        packages.mkdir(parents=True)
        (folder / "bin").mkdir()
        for name, text in (("python3.12", ""), ("vllm", f"#!{folder}/bin/python3.12\n")):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        (folder / "keys.yaml").write_text("".join(f"k{i}:\n" for i in range(KEYS)))
        (folder / "large").mkdir()
        (folder / "large/vllm").write_text((HERE / "tests/stand_in_server.py").read_text())

    def start(self, kind: str) -> int:
        """Start an attacker and wait until it is there; return its pid."""
        user = NOBODY
        words, executable, cwd = ["vllm", "serve", *SERVE], "/bin/sh", self.folder
        environ = {"PATH": f"{self.folder}/bin:/usr/bin:/bin"}
        many = ":".join(["b"] * ENTRIES)
        if kind.startswith("PATH"):
            environ["PATH"] = many
        elif kind.startswith("PYTHONPATH"):
            environ["PYTHONPATH"] = many
        elif kind.startswith("--config"):
            words += ["--config", "keys.yaml"]
        elif kind.startswith("a shell string"):
            doubled = 'set -- "$@" "$@"; ' * 40
            text = f"{WAITS}set -- a b c d; {doubled} vllm serve {' '.join(SERVE)}"
            words = ["bash", "-c", f'{text} "$@"']
            if kind.endswith("env"):
                words, executable = ["env", *words], "/bin/sh"
            elif kind.endswith("above"):
                server = f"(exec -a vllm sh serve {' '.join(SERVE)}) <&0 & wait"
                words[2], executable = words[2].replace(WAITS, server + "\n"), "/bin/bash"
        elif kind == "words":
            words = [*["env"] * WORDS, "vllm", "serve", *SERVE]
        elif kind in ("cmdline", "environ"):
            user, executable = 0, os.path.realpath(sys.executable)
            words = [executable, f"{self.folder}/large/vllm", "serve", *SERVE]
            environ["PYTHONPATH"] = sysconfig.get_path("platlib")
            environ["STAND_IN"] = json.dumps({"area": [kind, AREA]})
        if kind.endswith("deep"):
            cwd = self.deep
        process = subprocess.Popen(
            words,
            executable=executable,
            user=user,
            group=user,
            extra_groups=[],
            cwd=cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        if process.stdout is not None and process.stdout.readline() != b"ready\n":
            sys.exit(f"{kind}: it does not start")
        return process.pid

    def end(self) -> None:
        """End all of them."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self.started.clear()


KINDS = {
    "a plain server": "plain",
    f"{ENTRIES} entries in PATH": "PATH",
    f"{ENTRIES} entries in PATH, {DEPTH} deep": "PATH deep",
    f"{ENTRIES} entries in PYTHONPATH": "PYTHONPATH",
    f"{ENTRIES} entries in PYTHONPATH, {DEPTH} deep": "PYTHONPATH deep",
    f"a --config file of {KEYS} keys": "--config",
    "a shell string that doubles": "a shell string",
    "a shell string that doubles, behind env": "a shell string env",
    "a shell string that doubles, above a server": "a shell string above",
    f"a command of {WORDS} words": "words",
    f"a command line of {AREA >> 20} MB": "cmdline",
    f"an environment of {AREA >> 20} MB": "environ",
}


def measure(package: Path, *words: str) -> tuple[float, int, str]:
    """Run `ps` of a package; return its seconds, its MB, and what it says of the first server."""
    with tempfile.TemporaryFile() as out:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "eplb_launch", "ps", "--json", *words],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(package)},
            cwd="/",
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        _, _, usage = os.wait4(process.pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - begun
        process.returncode = 0
        out.seek(0)
        try:
            servers = json.loads(out.read())["servers"]
            said = servers[0]["cause"] if servers else "-"
        except ValueError:
            said = "ended" if seconds >= LIMIT else "failed"
    return seconds, usage.ru_maxrss >> 10, said


def main() -> None:
    """Measure each attack, then all at once; exit status 1 where that takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER")
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--attackers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("takes root")
    packages = {"now": HERE}
    if options.before:
        packages = {"before": options.before.resolve(), **packages}
    with tempfile.TemporaryDirectory(prefix="eplb-launch-hostile-") as name:
        os.chmod(name, 0o755)  # noqa: S103
        attackers = Attackers(Path(name))
        others = None
        try:
            for title, kind in KINDS.items():
                pid = attackers.start(kind)
                for when, package in packages.items():
                    seconds, megabytes, said = measure(package, str(pid))
                    print(f"{title:44} {when:6} {seconds:6.2f} s {megabytes:5} MB  {said}")
                attackers.end()
            kinds = itertools.cycle(list(KINDS.values())[1:])
            for kind in itertools.islice(kinds, options.attackers):
                attackers.start(kind)
            others = start_others(options.processes)
            there = sum(name.isdigit() for name in os.listdir("/proc"))
            taken = [measure(HERE) for _ in range(options.rounds)]
        finally:
            attackers.end()
            if others is not None:
                os.killpg(others.pid, signal.SIGKILL)
                others.communicate()
    median = statistics.median(seconds for seconds, _, _ in taken)
    most = max(megabytes for _, megabytes, _ in taken)
    print(
        f"{there} processes, {options.attackers} of them attackers: median {median:.2f} s of "
        f"{len(taken)}, {most} MB; the target is {TARGET:g} s"
    )
    sys.exit(median > TARGET)


if __name__ == "__main__":
    main()
