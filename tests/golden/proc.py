"""The processes of the made-up machine, as /proc shows them: for `ps`."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from golden import cases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from golden.frozen import Machine

BOOT = 1_100_000_000  # 2004: `ps` shows a day of this year otherwise than one of another year
TICKS = 100  # a second, on every Linux
CONTAINER = "/containers/a"
TITLES = {
    "coordinator": "VLLM::DPCoordinator",
    "engine": "VLLM::EngineCore_DP0",
    "worker": "VLLM::Worker_DP0_TP0_EP0",
    "other": "B::EngineCore",
}
_BIN = "/opt/vllm-0.16.0/bin"
_SERVE = f"{_BIN}/python3 {_BIN}/vllm serve m"
_HANGS = (
    f"{_SERVE} -dp 8 -ep --enable-eplb --eplb-config.use_async true "
    "--all2all-backend deepep_low_latency"
)
_CAPPED = {"NCCL_MAX_CTAS": "8"}
_SPAWN = f"{_BIN}/python3 -c 'from multiprocessing.spawn import spawn_main; spawn_main()'"


class Processes:
    """Fills /proc of a machine."""

    def __init__(self, machine: Machine) -> None:
        """Start with the process init."""
        self.machine = machine
        self.denied: list[str] = []
        self.number = 1
        self.names: dict[int, str] = {}
        machine.write("/proc/stat", f"cpu  1 1 1 1 1 1 1 1 1 1\nbtime {BOOT}\n")
        machine.write("/proc/uptime", "99999999.00 1.00\n")
        machine.links["/proc/self/ns/mnt"] = ("mnt:[1]", "/dev/null")
        self.add("init", "/sbin/init", pid=1, parent=0)

    def add(
        self,
        name: str,
        command: str | list[str],
        *,
        pid: int = 0,
        parent: int = 1,
        environ: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        state: str = "S",
        user: int = 0,
        exe: str = f"{_BIN}/python3.12",
        root: str = "",
        cwd: str = cases.HOME_DIRECTORY,
        denied: bool = False,
        group: int = 0,
    ) -> int:
        """Start a process; return its pid. A command that is a title has taken the environment."""
        if not pid:
            self.number += 1
            pid = self.number * 10
        self.names[pid] = name
        words = shlex.split(command) if isinstance(command, str) else command
        titled = "::" in words[0]
        cmdline = b"\0".join(word.encode() for word in words) + b"\0" + b"\0" * 20 * titled
        variables = {"PATH": f"{_BIN}:/usr/bin:/bin", "HOME": "/root", **(environ or {})}
        entries = b"".join(f"{key}={value}\0".encode() for key, value in variables.items())
        short = words[0].rpartition("/")[2][:15]
        fields = [state, parent, group or 5, 5, *[0] * 15, pid * TICKS, *[0] * 32]
        place = f"/proc/{pid}"
        write = self.machine.write
        write(f"{place}/stat", f"{pid} ({short}) {' '.join(map(str, fields))}\n")
        write(f"{place}/status", f"Name:\t{short}\nUid:{f'{chr(9)}{user}' * 4}\n")
        write(f"{place}/cmdline", b"" if state == "Z" else cmdline)
        write(f"{place}/environ", b"\0" * 50 if titled else entries if raw is None else raw)
        links = {"exe": (exe, root + exe), "cwd": (cwd, root + cwd), "root": ("/", root or "/")}
        links["ns/mnt"] = ("mnt:[2]" if root else "mnt:[1]", "/dev/null")
        for link, found in links.items():
            self.machine.links[f"{place}/{link}"] = found
        self.machine.owners[place] = user
        if denied:
            self.denied += [f"{place}/{name}" for name in ("environ", *links)]
        return pid

    def tree(self, name: str, command: str | list[str], **more: Any) -> int:
        """Start a server with an engine and a worker."""
        head = self.add(name, command, **more)
        engine = self.add(name, TITLES["engine"], parent=head)
        self.add(name, TITLES["worker"], parent=engine)
        return head


def start(machine: Machine) -> Processes:
    """Start what runs on the machine."""
    machine.write("/work/changed.yaml", "enable-eplb: true\n")
    machine.write("/work/serve.yaml", "enable-eplb: true\neplb-config: {use_async: true}\n")
    _build_container(machine)
    machine.age()
    found = Processes(machine)
    tree, add = found.tree, found.add
    _ordinary(found)
    shell = add("under-a-shell", ["sh", "-c", f"{_HANGS}; sleep 9"], exe="/bin/sh")
    tree("under-a-shell", _HANGS, parent=shell)
    tini = add("under-tini-and-uv", "tini -- uv run vllm serve m", exe="/usr/bin/tini")
    uv = add("under-tini-and-uv", "uv run vllm serve m", exe="/usr/bin/uv", parent=tini)
    tree("under-tini-and-uv", _SERVE, parent=uv)
    spawned = tree("spawned", _HANGS)
    add("spawned", TITLES["coordinator"], parent=spawned)
    helper = add("spawned", _SPAWN, parent=spawned)
    add("spawned", TITLES["worker"], parent=helper)
    add("gone", TITLES["engine"], group=77)
    add("gone", TITLES["worker"], parent=found.number * 10, group=77)
    add("gone-other", TITLES["other"], group=78)
    program = add("a-program", f"{_BIN}/python3 train.py", environ=_CAPPED)
    add("a-program", TITLES["engine"], parent=program)
    add("zombie", _HANGS, state="Z")
    fork = add("forked", _HANGS)
    add("forked", _HANGS, parent=fork)
    for name in ("grep -r vllm serve", "vim vllm", "tail -f vllm.log", "vllm bench serve", "bash"):
        add("no-server", name, exe="/usr/bin/env")
    add("overwritten", _HANGS, raw=b"\0" * 80)
    add("half-overwritten", _HANGS, raw=b"A=1\0\0\0\0NCCL_MAX_CTAS=8\0")
    add("no-environment", _HANGS, raw=b"")
    add("twice", _HANGS, raw=b"NCCL_MAX_CTAS=4\0NCCL_MAX_CTAS=64\0PATH=/usr/bin\0")
    tree("of-a-user", _HANGS, user=1000, denied=True)
    tree("of-a-user-capped", _HANGS, user=1000, environ=_CAPPED)
    tree("of-somebody", _HANGS, user=4242, denied=True)
    _container(found)
    # Changed after its server had started.
    os.utime(f"{machine.folder}/work/changed.yaml", (2e9, 2e9))
    tree("config-changed", f"{_SERVE} -dp 8 --config changed.yaml")
    tree("config", f"{_SERVE} -dp 8 --config serve.yaml --all2all-backend deepep_low_latency")
    tree("config-missing", f"{_HANGS} --config missing.yaml")
    _of_cases(found)
    return found


def _ordinary(found: Processes) -> None:
    tree = found.tree
    tree("plain", _SERVE)
    tree("hangs", _HANGS)
    tree("capped", _HANGS, environ=_CAPPED)
    tree("ray", f"{_HANGS} --distributed-executor-backend ray", environ=_CAPPED)
    tree("module", f"{_BIN}/python3 -m vllm.entrypoints.openai.api_server --model m -dp 8")
    tree("dynamo", f"{_BIN}/python3 -m dynamo.vllm --model m")
    tree("refused", f"{_SERVE} -dp x")
    tree("script", f"{_BIN}/vllm {_HANGS.partition('vllm ')[2]}")
    tree("launched", ["env", "A=1", *shlex.split(_HANGS)])
    tree("release-not-known", _HANGS.replace(_BIN, "/nowhere"), exe="/nowhere/python3")
    tree("secret", f"{_SERVE} --api-key s3cret -dp 8", environ={"TOKEN": "s3cret"})
    tree("control-characters", [*shlex.split(_SERVE), "--served-model-name", "\x1b[31m\n"])
    for release in cases.INSTALLED:
        command = _HANGS.replace("0.16.0", release)
        mega = command.replace("--all2all-backend deepep_low_latency", "")
        exe = f"/opt/vllm-{release}/bin/python3.12"
        tree(f"hangs-{release}", command, exe=exe)
        tree(f"capped-{release}", command, exe=exe, environ=_CAPPED)
        tree(f"mega-{release}", f"{mega} --moe-backend deep_gemm_mega_moe", exe=exe)
        tree(
            f"mega-nccl-{release}",
            f"{mega} --moe-backend deep_gemm_mega_moe --eplb-config.communicator torch_nccl",
            exe=exe,
        )
    for name, environ in cases.VARIABLES.items():
        tree(name, _HANGS, environ=environ)


def _build_container(machine: Machine) -> None:
    root = CONTAINER
    write = machine.write
    write(f"{root}/etc/nccl.conf", "NCCL_MAX_CTAS=4\n")
    write(f"{root}/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    write(f"{root}/work/serve.yaml", "enable-eplb: false\n")
    packages = f"{root}/usr/local/lib/python3.12/dist-packages"
    write(f"{packages}/vllm-0.16.0.dist-info/METADATA")
    write(f"{root}/usr/bin/python3.12", "", 0o755)
    write(f"{root}/usr/local/bin/vllm", "#!/usr/bin/python3.12\n", 0o755)


def _container(found: Processes) -> None:
    """Start servers in another mount namespace, with other files."""
    options = _HANGS.partition(" serve ")[2]
    command = f"/usr/bin/python3.12 /usr/local/bin/vllm serve {options}"
    more: dict[str, Any] = {"root": CONTAINER, "exe": "/usr/bin/python3.12"}
    found.tree("container", command, **more)
    found.tree("container-capped", command, environ=_CAPPED, **more)
    config = f"{command} --no-enable-eplb --config serve.yaml"
    found.tree("container-config", config, **more)
    found.add("container-no-workers", command, environ={"NCCL_CONF_FILE": "/no.conf"}, **more)


def _of_cases(found: Processes) -> None:
    """Start some of the command lines of `data/oracle`, of the releases that are installed."""
    by_release = {release.rpartition(".")[0]: release for release in cases.INSTALLED}
    for case in cases.oracle(40):
        release = by_release.get(case["options"][2].rpartition(".")[0])
        words = [word for word in case["command"][1:] if word]
        if release and not case["files"] and "\0" not in "".join(words):
            bin_ = f"/opt/vllm-{release}/bin"
            found.tree(
                case["id"],
                [f"{bin_}/python3", f"{bin_}/vllm", *words],
                environ={k: v for k, v in case["environ"].items() if k != "PATH"},
                exe=f"{bin_}/python3.12",
            )
