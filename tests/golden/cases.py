"""What is recorded: the cases of each sub-command, and the machine that they run on."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

from golden.generate import LINES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from golden.frozen import Machine

HOME_DIRECTORY = "/work"
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRON = {
    "PATH": "/opt/vllm-0.16.0/bin:/usr/bin:/bin",
    "HOME": "/home/user",
    "COLUMNS": "80",
    "LANG": "C.UTF-8",
    "LC_CTYPE": "C.UTF-8",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "TZ": "UTC",
}
INSTALLED = ("0.13.0", "0.16.0", "0.19.1", "0.21.0", "0.23.0", "0.33.0")
NIXL = "0.23.0"
# Programs that a case may start with, all in /usr/bin.
PROGRAMS = """
apptainer bash catatonit chroot chrt conda docker dumb-init env gosu kubectl mpiexec mpirun nice
nohup nsys numactl pixi podman poetry prlimit python3 ray setpriv setsid sh singularity srun ssh
stdbuf strace su sudo systemd-run taskset time timeout tini torchrun true unshare uv uvx xargs zsh
"""
EXPERTS = {"deepseek": 256, "small": 16, "many": 2048}

_DP = "vllm serve m -dp 8 -ep --enable-eplb"
_HANGS = f"{_DP} --eplb-config.use_async true --all2all-backend deepep_low_latency"
_MEGA = f"{_DP} --moe-backend deep_gemm_mega_moe"
_16 = "--vllm-version 0.16.0 --"
# By hand: options, "--", the command. The first ones are started for real too: what is installed
# has no say there, and the program that is started hands the environment on.
LAUNCHED = {
    "hangs": f"{_16} {_HANGS}",
    "verbose": f"--verbose {_16} {_HANGS}",
    "quiet": f"--quiet {_16} {_HANGS}",
    "strict": f"--strict {_16} {_HANGS}",
    "no-eplb": f"{_16} {_HANGS} --no-enable-eplb",
    "no-eplb-verbose": f"--verbose {_16} {_HANGS} --no-enable-eplb",
    "one-rank": f"--verbose {_16} {_HANGS} -dp 1",
    "sync": f"--verbose {_16} {_DP} --all2all-backend deepep_low_latency",
    "no-server": "--verbose -- vllm bench serve --model m",
    "no-server-quiet": "-- vllm chat",
    "other-program": "--verbose -- true",
    "old": f"--verbose --vllm-version 0.11.0 -- {_HANGS}",
    "own-rule": f"--verbose --vllm-version 0.19.1 -- {_HANGS}",
    "refused-there": f"--verbose --vllm-version 0.33.0 -- {_HANGS}",
    "mega-nccl": f"--vllm-version 0.33.0 -- {_MEGA} --eplb-config.communicator torch_nccl",
    "four": f"--max-ctas 4 {_16} {_HANGS}",
    "fit-unknown": f"--max-ctas fit --sms 132 {_16} {_HANGS}",
    "fit-unknown-strict": f"--strict --max-ctas fit --sms 132 {_16} {_HANGS}",
    "env": f"{_16} env A=1 {_HANGS}",
    "env-overwrites-strict": f"--strict {_16} env NCCL_MAX_CTAS=32 {_HANGS}",
    "env-batch-invariant": f"{_16} env VLLM_BATCH_INVARIANT=1 {_HANGS}",
    "nice": f"{_16} nice -n 1 {_HANGS}",
    "nohup": f"{_16} nohup {_HANGS}",
    "sh": f"{_16} sh -c 'exec {_HANGS}'",
    "sh-exports": f"{_16} sh -c 'export A=1; exec {_HANGS}'",
    "sh-variable": f"{_16} sh -c 'exec {_HANGS} -dp $((N * 8))'",
    "sh-words": f"{_16} sh -c 'exec vllm serve m $ARGS'",
    "sh-if": f"{_16} sh -c 'if true; then exec {_HANGS}; else exec vllm serve m; fi'",
    "sh-env-sh": f"{_16} sh -c 'exec env A=1 sh -c \"exec {_HANGS}\"'",
    "bad-number": f"{_16} {_HANGS} -dp x",
    "unknown-option": f"{_16} {_HANGS} --no-such-option",
    "config-missing": f"{_16} {_HANGS} --config /nonexistent/serve.yaml",
    "json": f"{_16} {_DP} --eplb-config '{{\"use_async\": true}}' "
    "--all2all-backend=deepep_low_latency",
    "ray": f"{_16} {_HANGS} --distributed-executor-backend ray",
    "not-there": "-- no-such-program vllm serve m",
}
FROZEN = {
    "mega": f"--verbose --vllm-version 0.33.0 -- {_MEGA}",
    "newer": f"--verbose --vllm-version 0.99.0 -- {_MEGA}",
    "env-overwrites": f"{_16} env NCCL_MAX_CTAS=32 {_HANGS}",
    "env-drops": f"{_16} env -i vllm {_HANGS[5:]}",
    "env-unsets": f"{_16} env -u NCCL_MAX_CTAS {_HANGS}",
    "sh-sets": f"{_16} sh -c 'NCCL_MAX_CTAS=4 exec {_HANGS}'",
    "installed": f"--verbose -- {_HANGS}",
    "installed-old": f"--verbose -- /opt/vllm-0.13.0/bin/{_HANGS}",
    "installed-new": f"--verbose -- /opt/vllm-0.33.0/bin/{_MEGA}",
    "nixl": f"--verbose -- /opt/vllm-{NIXL}/bin/{_MEGA}",
    "not-installed": f"--verbose -- env PATH=/bin {_HANGS}",
    **{
        f"fit-{model}-{sms}": f"--max-ctas fit --sms {sms} {_16} "
        + _HANGS.replace(" m ", f" /models/{model} ")
        for model in (*EXPERTS, "broken", "dense", "none")
        for sms in (16, 78, 132, 148)
    },
    **{
        f"explained-{model}": f"{_16} {_HANGS.replace(' m ', f' /models/{model} ')}"
        for model in (*EXPERTS, "broken", "dense")
    },
}
# Each with a command that can hang, as it is and behind `env A=1`.
VALUES: tuple[str, ...] = (
    "",
    "0",
    "1",
    "2",
    "4",
    "8",
    "08",
    "0x8",
    " 8",
    "8 ",
    "9",
    "16",
    "32",
    "64",
    "65",
    "-1",
)
VALUES += ("x", "8x", "٨", "99999999999999999999")
VARIABLES: dict[str, dict[str, str]] = {
    **{f"ctas-{value!a}": {"NCCL_MAX_CTAS": value} for value in VALUES},
    "batch-invariant": {"VLLM_BATCH_INVARIANT": "1"},
    "batch-invariant-0": {"VLLM_BATCH_INVARIANT": "0"},
    "batch-invariant-min": {"VLLM_BATCH_INVARIANT": "1", "NCCL_MIN_NCHANNELS": "16"},
    "batch-invariant-8": {"VLLM_BATCH_INVARIANT": "1", "NCCL_MAX_CTAS": "8"},
    "min": {"NCCL_MIN_NCHANNELS": "16"},
    "min-8": {"NCCL_MIN_NCHANNELS": "16", "NCCL_MAX_CTAS": "8"},
    "min-small": {"NCCL_MIN_NCHANNELS": "4", "NCCL_MAX_CTAS": "8"},
    "rings": {"NCCL_MIN_NRINGS": "32", "NCCL_MAX_CTAS": "8"},
    "p2p": {"NCCL_MIN_P2P_NCHANNELS": "32", "NCCL_MAX_CTAS": "8"},
    "min-ctas": {"NCCL_MIN_CTAS": "16", "NCCL_MAX_CTAS": "8"},
    "max-nchannels": {"NCCL_MAX_NCHANNELS": "4"},
}
FORMATS = ("shell", "plain", "dotenv", "json", "systemd", "kubernetes", "docker", "ray", "slurm")


def furnish(machine: Machine) -> None:
    """Put on the machine what all cases find there."""
    for name in PROGRAMS.split():
        machine.write(f"/usr/bin/{name}", "#!/bin/sh\n", 0o755)
    machine.write("/bin/sh", "#!/bin/sh\n", 0o755)
    machine.write("/tmp/.keep")
    machine.write("/srv/.keep")
    machine.write("/proc/self/stat", "1")
    machine.write(
        "/etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
    )
    for release in INSTALLED:
        root = f"/opt/vllm-{release}"
        packages = f"{root}/lib/python3.12/site-packages"
        machine.write(f"{root}/pyvenv.cfg", "home = /usr/bin\n")
        machine.write(f"{packages}/vllm-{release}.dist-info/METADATA")
        machine.write(f"{root}/bin/vllm", f"#!{root}/bin/python3\n", 0o755)
        machine.write(f"{root}/bin/python3.12", "", 0o755)
        for name in ("python3", "python"):
            os.symlink("python3.12", f"{machine.folder}{root}/bin/{name}")
        if release == NIXL:
            machine.write(f"{packages}/nixl/__init__.py")
    for name, experts in EXPERTS.items():
        config = {"architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": experts}
        machine.write(f"/models/{name}/config.json", json.dumps(config))
    machine.write("/models/dense/config.json", '{"architectures": ["LlamaForCausalLM"]}')
    machine.write("/models/broken/config.json", "{")


def lines() -> Iterator[dict[str, Any]]:
    """Yield the generated command lines."""
    with open(LINES, encoding="utf-8") as file:
        yield from map(json.loads, file)


def by_hand() -> Iterator[dict[str, Any]]:
    """Yield the cases that are written here."""
    for name, text in {**LAUNCHED, **FROZEN}.items():
        words = shlex.split(text)
        at = words.index("--")
        yield {"id": name, "options": words[:at], "command": words[at + 1 :]}
    for name, environ in VARIABLES.items():
        for release in ("0.16.0", "0.19.1"):
            for prefix in ("", "env A=1 "):
                yield {
                    "id": f"{name}-{release}{'-env' if prefix else ''}",
                    "options": ["--vllm-version", release],
                    "command": shlex.split(prefix + _HANGS),
                    "environ": environ,
                }


def oracle(step: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the rows of data/oracle, or one of `step`."""
    folder = os.path.join(TESTS, "data", "oracle")
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".jsonl"):
            continue
        release = name.removesuffix(".jsonl").split("-")[1]
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for number, text in enumerate(file):
                if number % step == 0:
                    row = json.loads(text)
                    if "\\u0000" in text:
                        continue  # no word of a command line has it
                    nixl = {"PATH": f"/opt/vllm-{NIXL}/bin"} if row["nixl"] else {}
                    yield {
                        "id": f"{name[5:-6]}-{number + 1}",
                        "options": ["--verbose", "--vllm-version", release],
                        "command": ["vllm", *row["argv"]],
                        "environ": {**nixl, **row["env"]},
                        "files": {f"/work/{file}": text for file, text in row["files"].items()},
                    }
