"""Make lines.jsonl, the command lines with wrappers and shell strings: `python -m golden.generate`.

The same seed gives the same lines on one Python only, so they are kept as data. A new seed, or more
lines, is a new set of cases: the old records go.
"""

from __future__ import annotations

import json
import os
import random
import shlex
from typing import Any

SEED = 496
COUNT = 300
LINES = os.path.join(os.path.dirname(__file__), "lines.jsonl")

# What vLLM needs to hang, one word or two each. Left out now and then.
HAZARD = (
    ("--data-parallel-size 8", "-dp 8", "--data-parallel-size=16", "-dp=2"),
    ("--enable-eplb",),
    ("--eplb-config.use_async true", "--eplb-config.use_async=True"),
    ("--all2all-backend deepep_low_latency", "--all2all-backend=deepep_low_latency"),
)
ASYNC_AS_JSON = ("--eplb-config", '{"use_async": true, "num_redundant_experts": 32}')
MEGA = ("--moe-backend", "deep_gemm_mega_moe", "--eplb-config.communicator", "torch_nccl")
OTHERS = (
    ("-ep",),
    ("--enable-expert-parallel",),
    ("--api-key", "s3cret"),
    ("--no-enable-eplb",),
    ("--data-parallel-backend", "ray"),
    ("--distributed-executor-backend", "ray"),
    ("--max-model-len", "16k"),
    ("--host", "0.0.0.0"),
    ("--eplb-config.num_redundant_experts", "32"),
    ("--headless",),
    ("--config", "serve.yaml"),
    ("--config", "missing.yaml"),
)
CONFIGS = (
    "enable-eplb: true\ndata-parallel-size: 8\n",
    "all2all-backend: deepep_low_latency\neplb-config: {use_async: true}\n",
    "port: 8000\n",
    "a: [\n",
)
MODELS = ("m", "deepseek-ai/DeepSeek-V3", "/models/deepseek", "/models/small", "/models/broken")
SERVERS = (
    ("vllm", "serve", "{model}"),
    ("vllm", "serve", "{model}"),
    ("vllm", "serve", "--model", "{model}"),
    ("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}"),
    ("python", "-m", "vllm.entrypoints.cli.main", "serve", "{model}"),
    ("/opt/vllm-0.16.0/bin/vllm", "serve", "{model}"),
    ("/opt/vllm-0.23.0/bin/vllm", "serve", "{model}"),
    ("/opt/vllm-0.33.0/bin/python3", "/opt/vllm-0.33.0/bin/vllm", "serve", "{model}"),
    ("vllm", "bench", "serve", "--model", "{model}"),
    ("vllm", "chat"),
)
WRAPPERS = (
    "env A=1",
    "env -u NCCL_MAX_CTAS",
    "env -i PATH=/opt/vllm-0.16.0/bin",
    "env NCCL_MAX_CTAS=32",
    "env NCCL_MAX_CTAS=4",
    "env VLLM_BATCH_INVARIANT=1",
    "env -C /srv",
    "numactl -N 0 -m 0",
    "nice -n 5",
    "nohup",
    "setsid -w",
    "timeout -k 5 3600",
    "stdbuf -oL",
    "sudo",
    "sudo -E",
    "sudo -E -u nobody",
    "sudo -i",
    "su -c",
    "taskset -c 0-7",
    "chrt -f 1",
    "tini --",
    "dumb-init --",
    "catatonit --",
    "nsys profile -o x",
    "uv run",
    "uv run --with x",
    "uvx --from vllm",
    "conda run -n vllm",
    "conda run -p /opt/vllm-0.21.0",
    "poetry run",
    "pixi run",
    "srun --nodes=4",
    "srun --export=NONE",
    "srun --export=ALL,A=1",
    "mpirun -np 2",
    "mpirun -x NCCL_MAX_CTAS -np 2",
    "mpiexec -n 2",
    "torchrun --nproc-per-node 2 --no-python",
    "ssh host",
    "docker run --rm --gpus all vllm/vllm-openai:v0.16.0",
    "docker run -e NCCL_MAX_CTAS=8 --entrypoint= vllm/vllm-openai:v0.16.0",
    "docker exec c",
    "podman run -e NCCL_MAX_CTAS vllm/vllm-openai",
    "kubectl exec pod --",
    "apptainer exec --nv x.sif",
    "singularity exec --cleanenv x.sif",
    "ray job submit --",
    "systemd-run --scope",
    "xargs",
    "time -v",
    "strace -f -o x",
    "unshare -r",
    "chroot /srv",
    "setpriv --no-new-privs",
    "prlimit --nofile=65536",
    "gosu user",
    "exec",
    "eplb-launch --",
    "python -m eplb_launch --strict --",
)
# "{}" is the command, "{words}" its arguments.
STRINGS = (
    "{}",
    "exec {}",
    "export NCCL_MAX_CTAS=4; {}",
    "export A=1 && exec {}",
    "NCCL_MAX_CTAS=16 {}",
    "NCCL_MAX_CTAS=8 exec {}",
    "unset NCCL_MAX_CTAS; {}",
    "sleep 1; {} &\nwait",
    "if [ $RANK = 0 ]; then {}; else {} --headless; fi",
    "for i in 0 1; do {} --port 800$i & done; wait",
    "set -euo pipefail\ncd /srv\n{} 2>&1 | tee log",
    "case $ROLE in leader) {};; *) sleep 9;; esac",
    "start() {{ {}; }}\nstart",
    "N=$((NODES * 8)); {} --data-parallel-size $N",
    "ARGS='--enable-eplb'; {} $ARGS",
    "{} ${{EXTRA:-}}",
    '{} "$@"',
    "source env.sh; {}",
    "pip install x && {} || true",
    "while true; do {}; done",
    "( {} )",
    "echo {}",
    "# {}",
    "$(which vllm) serve m",
    "cat > x <<EOF\n{}\nEOF",
    "eplb-launch -- {}",
    "trap 'kill 0' EXIT; {} &\nwait -n",
    'eval "{}"',
    "true && {} --data-parallel-rank $SLURM_PROCID",
    'OPTS=(--enable-eplb -ep); {} "${{OPTS[@]}}"',
)
SHELLS = ("bash -c", "sh -c", "bash -lc", "bash -euxc", "/bin/bash -c", "zsh -c", "bash --norc -c")
VARIABLES: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {},
    {"NCCL_MAX_CTAS": "8"},
    {"NCCL_MAX_CTAS": "4"},
    {"NCCL_MAX_CTAS": "16"},
    {"NCCL_MAX_CTAS": "64"},
    {"NCCL_MAX_CTAS": "0"},
    {"NCCL_MAX_CTAS": ""},
    {"NCCL_MAX_CTAS": "0x8"},
    {"NCCL_MAX_CTAS": "08"},
    {"NCCL_MAX_CTAS": " 8"},
    {"NCCL_MAX_CTAS": "-1"},
    {"NCCL_MAX_CTAS": "x"},
    {"NCCL_MIN_NCHANNELS": "16"},
    {"NCCL_MIN_NCHANNELS": "4"},
    {"NCCL_MIN_NRINGS": "16"},
    {"NCCL_MIN_P2P_NCHANNELS": "32", "NCCL_MAX_CTAS": "8"},
    {"NCCL_MIN_CTAS": "16"},
    {"VLLM_BATCH_INVARIANT": "1"},
    {"VLLM_BATCH_INVARIANT": "1", "NCCL_MAX_CTAS": "8", "NCCL_MIN_NCHANNELS": "16"},
    {"VLLM_ALL2ALL_BACKEND": "deepep_low_latency"},
    {"VLLM_DP_SIZE": "8"},
    {"NCCL_CONF_FILE": "nccl.conf"},
)
CONFS = (
    {"/etc/nccl.conf": "NCCL_MAX_CTAS=8\n"},
    {"/etc/nccl.conf": "NCCL_MAX_CTAS=32\n"},
    {"/etc/nccl.conf": "NCCL_MIN_NCHANNELS=16\n"},
    {"/home/user/.nccl.conf": "# own\nNCCL_MAX_CTAS=4\n"},
    {"/work/nccl.conf": "NCCL_MAX_CTAS=8\nNCCL_MIN_P2P_NCHANNELS=16\n"},
)
RELEASES: tuple[str, ...] = (
    "0.11.0",
    "0.12.0",
    "0.14.1",
    "0.15.1",
    "0.16.0",
    "0.17.1",
    "0.19.1",
    "0.20.2",
)
RELEASES += ("0.21.0", "0.22.1", "0.23.0", "0.24.0", "0.33.0", "0.99.0")
CAPS = (
    ("--max-ctas", "4"),
    ("--max-ctas", "16"),
    ("--max-ctas", "fit", "--sms", "132"),
    ("--max-ctas", "fit", "--sms", "78"),
    ("--max-ctas", "fit", "--sms", "148"),
    ("--max-ctas=fit", "--sms=16"),
)


def server(draw: random.Random) -> list[str]:
    """Make the command of a server, in half of all cases one that can hang."""
    model = draw.choice(MODELS)
    words = [word.format(model=model) for word in draw.choice(SERVERS)]
    options = [draw.choice(ways).split(" ") for ways in HAZARD]
    if draw.random() < 0.15:
        options[2] = list(ASYNC_AS_JSON)
    if draw.random() < 0.4:
        options.pop(draw.randrange(4))
    if draw.random() < 0.2:
        options.append(list(MEGA))
    options += [list(words) for words in draw.sample(OTHERS, draw.choice((0, 0, 1, 1, 2)))]
    draw.shuffle(options)
    return words + [word for option in options for word in option]


def in_shell(draw: random.Random, command: list[str]) -> list[str]:
    """Put a command into a shell string."""
    text = draw.choice(STRINGS).replace("{}", shlex.join(command))
    return [*draw.choice(SHELLS).split(" "), text.replace("{{", "{").replace("}}", "}")]


def line(draw: random.Random) -> dict[str, Any]:
    """Make a case."""
    command = server(draw)
    kind = draw.random()
    if kind < 0.45:
        command = in_shell(draw, command)
    if kind > 0.3:
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3))):
            wrapper = draw.choice(WRAPPERS).split(" ")
            last = [shlex.join(command)] if wrapper[0] == "su" else command
            command = [*wrapper, *last]
    made: dict[str, Any] = {"command": command}
    options = [name for name in ("--strict", "--quiet", "--verbose") if draw.random() < 0.12]
    if draw.random() < 0.5:
        options += ["--vllm-version", draw.choice(RELEASES)]
    if draw.random() < 0.2:
        options += draw.choice(CAPS)
    if options:
        made["options"] = options
    if variables := draw.choice(VARIABLES):
        made["environ"] = variables
    files: dict[str, str] = dict(draw.choice(CONFS)) if draw.random() < 0.15 else {}
    if "serve.yaml" in "\0".join(command):
        files["/work/serve.yaml"] = draw.choice(CONFIGS)
    if files:
        made["files"] = files
    return made


def main() -> None:
    """Write the lines."""
    draw = random.Random(SEED)
    with open(LINES, "w", encoding="utf-8") as file:
        for number in range(COUNT):
            print(json.dumps({"id": f"line-{number:03}", **line(draw)}), file=file)


if __name__ == "__main__":
    main()
