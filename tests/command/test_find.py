"""Which commands start a vLLM server, and what the server is given."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from conftest import calls
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_launch.command import find_server, look
from eplb_launch.model import UNKNOWN, Server

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


def server_in(line: str, **environ: str) -> Server | None:
    """Return the server in a command line, split as a shell does."""
    return find_server(shlex.split(line), environ)


@pytest.mark.parametrize(
    ("line", "entry", "arguments"),
    [
        # The vllm command
        pytest.param("vllm serve m -dp 8", "vllm serve", "m -dp 8", id="serve"),
        pytest.param("vllm serve", "vllm serve", "", id="serve alone"),
        pytest.param("/opt/venv/bin/vllm serve m", "vllm serve", "m", id="path"),
        pytest.param("./vllm serve m", "vllm serve", "m", id="relative path"),
        pytest.param("vllm-omni serve m", "vllm-omni serve", "m", id="vllm-omni"),
        pytest.param("vllm serve m --omni", "vllm serve", "m --omni", id="--omni"),
        pytest.param("vllm --omni serve m", "vllm serve", "m", id="--omni before"),
        pytest.param("vllm run-batch -i a", "vllm run-batch", "-i a", id="run-batch"),
        pytest.param("vllm preload --model m", "vllm preload", "--model m", id="preload"),
        pytest.param("vllm snapshot create m", "vllm snapshot create", "m", id="snapshot"),
        pytest.param("vllm bench latency -dp 2", "vllm bench latency", "-dp 2", id="latency"),
        pytest.param("vllm bench throughput m", "vllm bench throughput", "m", id="throughput"),
        pytest.param("vllm bench startup m", "vllm bench startup", "m", id="startup"),
        pytest.param("vllm bench mm-processor m", "vllm bench mm-processor", "m", id="mm"),
        pytest.param(
            "vllm bench sweep serve --bench-cmd 'x' --serve-cmd='vllm serve m -dp 8'",
            "vllm serve",
            "m -dp 8",
            id="sweep",
        ),
        # python -m
        pytest.param(
            "python -m vllm.entrypoints.openai.api_server --model m",
            "vllm.entrypoints.openai.api_server",
            "--model m",
            id="api_server",
        ),
        pytest.param(
            "/usr/bin/python3.12 -u -OO -X dev -W ignore -Wd -IE -Bs "
            "-m vllm.entrypoints.openai.api_server -dp 2",
            "vllm.entrypoints.openai.api_server",
            "-dp 2",
            id="options of the interpreter",
        ),
        pytest.param(
            "python3 -umvllm.entrypoints.openai.api_server -dp 2",
            "vllm.entrypoints.openai.api_server",
            "-dp 2",
            id="joined",
        ),
        pytest.param(
            "python3 --check-hash-based-pycs never -m vllm.entrypoints.api_server m",
            "vllm.entrypoints.api_server",
            "m",
            id="long option",
        ),
        pytest.param("python -m vllm serve m", "vllm serve", "m", id="python -m vllm"),
        pytest.param(
            "python -m vllm.entrypoints.cli.main serve m", "vllm serve", "m", id="cli.main"
        ),
        pytest.param(
            "python -m vllm.entrypoints.launchers.api_server.entry m",
            "vllm.entrypoints.launchers.api_server.entry",
            "m",
            id="launchers",
        ),
        pytest.param(
            "python -m vllm.snapshot.server --ready-file a -- --model m",
            "vllm.snapshot.server",
            "--model m",
            id="snapshot.server",
        ),
        pytest.param("python3 -m dynamo.vllm --model m", "dynamo.vllm", "--model m", id="dynamo"),
        pytest.param(
            "python -m huggingfaceserver -dp 2", "huggingfaceserver", "-dp 2", id="KServe"
        ),
        pytest.param("python /x/bin/vllm serve m", "vllm serve", "m", id="script"),
        pytest.param("python -u vllm serve m", "vllm serve", "m", id="script here"),
        pytest.param(
            "python /x/vllm/entrypoints/openai/api_server.py --model m",
            "vllm.entrypoints.openai.api_server",
            "--model m",
            id="file of a module",
        ),
        # After programs that are not known
        pytest.param("./wrapper vllm serve m", "vllm serve", "m", id="wrapper"),
        pytest.param("./wrapper --quiet vllm serve m", "vllm serve", "m", id="option before"),
        pytest.param("./wrapper -- python -m dynamo.vllm m", "dynamo.vllm", "m", id="module"),
        pytest.param("./wrapper x env A=1 vllm serve m", "vllm serve", "m", id="wrapper before"),
        pytest.param("./wrapper sh -c 'vllm serve m'", "vllm serve", "m", id="shell"),
        pytest.param("python launch.py --nodes 2 -- vllm serve m", "vllm serve", "m", id="python"),
        pytest.param("python train.py --name vllm serve -dp 2", "vllm serve", "-dp 2", id="marked"),
        pytest.param("bash start.sh vllm serve m", "vllm serve", "m", id="script of a shell"),
        # Options that only vLLM has
        pytest.param("./serve.sh m --enable-eplb", "", "m --enable-eplb", id="--enable-eplb"),
        pytest.param("./serve.sh --enable_eplb", "", "--enable_eplb", id="underscore"),
        pytest.param("./serve.sh --eplb-config={}", "", "--eplb-config={}", id="equals"),
        pytest.param(
            "./serve.sh --eplb-config.use_async 1", "", "--eplb-config.use_async 1", id="dotted"
        ),
        pytest.param("./serve.sh -dp 2", "", "-dp 2", id="-dp"),
        pytest.param("./a -x -- ./serve.sh m -dp 2", "", "m -dp 2", id="-- before the program"),
        pytest.param("./a -- -dp 2 -- m", "", "-dp 2 -- m", id="-- after the option"),
        pytest.param("python a.py -dp=2", "", "a.py -dp=2", id="Python script"),
        pytest.param(
            "nice ./a --all2all-backend=b", "", "--all2all-backend=b", id="wrapper, marked"
        ),
        pytest.param("docker run i -dp 8", "", "-dp 8", id="image"),
    ],
)
def test_a_server_is_found_with_all_its_arguments(line: str, entry: str, arguments: str) -> None:
    server = server_in(line)
    assert server is not None
    assert server.entry == entry
    assert [*server.words] == shlex.split(arguments)
    assert server.args_known


@pytest.mark.parametrize(
    "line",
    [
        "''",
        "vllm",
        "vllm --version",
        "vllm bench serve --model m",
        "vllm bench",
        "vllm bench sweep plot x",
        "vllm chat --url x",
        "vllm complete",
        "vllm collect-env",
        "vllm launch render m",
        "vllm download-kernels",
        "vllm snapshot inspect d",
        "vllm server m",
        "vllm serv m",
        "vllm m serve",
        "my-vllm serve m",
        "vllm.py serve m",
        "/opt/vllm/serve m",
        "python -m vllm.entrypoints.openai.api_server2 m",
        "python -m vllm.entrypoints.launchers.render.entry m",
        "python -m vllm.benchmarks.serve -dp 8",
        "python -m vllm bench serve",
        "python -m sglang.launch_server --enable-eplb",
        "python -m dynamo.sglang --enable-eplb",
        "python -c 'import vllm' serve m",
        "python -",
        "python",
        "python -m",
        "python -X",
        "pythonic -m dynamo.vllm",
        "python train.py --name vllm serve",
        "python -m http.server vllm",
        "grep vllm serve.log",
        "grep -r 'vllm serve' --enable-eplb .",
        "pkill -f 'vllm serve'",
        "pgrep -af 'vllm serve'",
        "echo vllm serve m",
        "printf %s vllm serve m",
        "pip install vllm serve",
        "python -m pip install vllm",
        "uv pip install vllm",
        "which vllm",
        "man vllm",
        "cat vllm serve",
        "ls -l /opt/venv/bin/vllm serve",
        "kill -9 vllm",
        "test -x vllm",
        "tail -f vllm serve",
        "sleep 5",
        "nvidia-smi",
        "docker ps",
        "docker run --rm image",
        "docker stop vllm",
        "kubectl logs vllm",
        "systemctl start vllm",
        "git clone vllm serve",
        "env A=vllm B=serve",
        "env",
        "timeout 5 echo vllm serve m",
        "command -v vllm serve",
        "taskset -p 42 vllm serve",
        "sh -c 'echo vllm serve m'",
        "sh -c '# vllm serve m'",
        "sh -c ': <<E\nvllm serve m\nE'",
        "sh -c 'vllm bench serve'",
        "sh -c 'exit; vllm serve m'",
        "sh -c",
        "sh -c ''",
        "sh vllm serve.sh",
        "bash -c 'if ! command -v vllm; then pip install vllm; fi'",
        "ssh host",
        "./serve.sh --data-parallel",
        "./serve.sh --enable-epl",
        "./serve.sh -d -p",
        "./serve.sh --model=--enable-eplb",
    ],
)
def test_a_command_that_starts_no_server_has_none(line: str) -> None:
    assert server_in(line) is None


def test_an_empty_command_has_no_server() -> None:
    assert find_server([], {}) is None


IDLE = [
    *("vllm", "vllm --version", "vllm --help", "vllm -v", "vllm chat --url x", "vllm complete"),
    *("vllm collect-env", "vllm bench", "vllm bench serve --model m", "/opt/venv/bin/vllm chat"),
    *("vllm bench sweep plot x", "vllm launch render m", "vllm download-kernels"),
    *("vllm snapshot inspect d", "vllm-omni --help", "vllm --omni bench serve"),
    "python -m vllm bench serve",
    "python3 -m vllm.entrypoints.cli.main bench serve",
    "python3.12 -u -m vllm.entrypoints.cli.main --help",
    "python -m vllm_omni.entrypoints.cli.main chat",
    "python -m vllm.benchmarks.serve --model m",
    "python -m vllm.entrypoints.launchers.render.entry m",
    "python /opt/venv/bin/vllm bench serve",
    *("nice vllm chat", "env A=1 vllm --help", "uv run vllm collect-env", "tini -- vllm chat"),
    *("timeout 60 nice -n 5 vllm bench serve", "numactl -N 0 python -m vllm bench serve"),
    *("docker run --rm image vllm bench serve", "ssh host vllm bench serve", "env -S 'vllm chat'"),
    *("./wrapper vllm bench serve", "./wrapper --a b -- /opt/bin/vllm collect-env"),
    *(
        "sh -c 'vllm bench serve'",
        "bash -lc 'exec vllm chat'",
        "bash -c 'exec \"$@\"' sh vllm chat",
    ),
    "bash -c 'cd /x && export A=1 && vllm bench serve'",
    "bash -c 'until curl -s h; do sleep 1; done; vllm bench serve | tee log; echo done'",
    "bash -c 'nvidia-smi; vllm bench serve'",
    "bash -c 'sh -c \"vllm chat\"'",
    "eplb-launch -- vllm bench serve",
]
NOT_IDLE = [
    *("true", "''", "./start.sh", "bash start.sh", "sh ./start.sh a", "python serve.py", "python"),
    *("python -c 'import vllm'", "python -m train", "python -m sglang.launch_server"),
    *("python -m dynamo.frontend", "my-vllm chat", "vllm.py chat", "echo vllm chat", "sleep 5"),
    *("grep vllm chat", "cat /opt/bin/vllm", "which vllm", "nvidia-smi", "man vllm bench"),
    *("nice ./start.sh", "env A=1 bash start.sh", "docker run --rm image", "ssh host ./start.sh"),
    *("docker run vllm/vllm-openai --model m", "docker compose up vllm", "systemctl start vllm"),
    *("./start.sh vllm", "./start.sh --backend vllm", "python bench.py --backend vllm --port 1"),
    *("./start.sh --name vllm serve", "torchrun train.py vllm", "env vllm=chat ./start.sh"),
    *("sh -c 'echo hi'", "bash -c ./start.sh", "bash -c ''", "bash -c 'exit 0'"),
    "bash -c 'vllm --version && exec ./start.sh'",
    "bash -c 'vllm collect-env; python serve.py'",
    "vllm bench sweep serve --serve-cmd ./start.sh --bench-cmd 'vllm bench serve'",
    "eplb-launch -- ./start.sh",
    # These start an engine.
    *("vllm serve m", "nice vllm serve m", "bash -c 'vllm --version; vllm serve m'"),
    "bash -c 'vllm serve m & vllm bench serve'",
]


@pytest.mark.parametrize(
    ("line", "expected"), [*((line, True) for line in IDLE), *((line, False) for line in NOT_IDLE)]
)
def test_vllm_without_an_engine_is_idle(line: str, expected: bool) -> None:
    assert look(shlex.split(line), {})[1] is expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("vllm --omni serve m", id="plain"),
        pytest.param("nice python -m vllm.snapshot.server -- m", id="wrapper before"),
        pytest.param("sh -c 'exec vllm serve \"$@\"' sh m", id="shell"),
    ],
)
def test_a_command_may_be_any_sequence_of_words(line: str) -> None:
    server = find_server(tuple(shlex.split(line)), {})
    assert server is not None
    assert server == server_in(line)
    assert [*server.words] == ["m"]


def test_a_plain_command_is_its_own_server() -> None:
    environ = {"A": "1"}
    server = find_server(["/x/vllm", "serve", "m", "-dp", "8"], environ)
    assert server == Server(
        "vllm serve",
        ("m", "-dp", "8"),
        range(2, 5),
        environ,
        "/x/vllm",
    )
    assert server is not None
    assert [*zip(server.words, server.positions, strict=True)] == [("m", 2), ("-dp", 3), ("8", 4)]
    assert server.environ is environ


@pytest.mark.parametrize(
    ("line", "program"),
    [
        pytest.param("/x/vllm serve m", "/x/vllm", id="vllm"),
        pytest.param("python3.12 -m dynamo.vllm", "python3.12", id="module"),
        pytest.param("python3 /x/vllm serve m", "python3", id="script"),
        pytest.param("nice /x/vllm serve m", "/x/vllm", id="wrapper before"),
        pytest.param("torchrun -m dynamo.vllm", "torchrun", id="torchrun -m"),
        pytest.param("torchrun /x/vllm serve m", "/x/vllm", id="torchrun"),
        pytest.param("sh -c '$V/bin/vllm serve m'", f"{UNKNOWN}/bin/vllm", id="unknown folder"),
        pytest.param("sh -c '\"$V\" serve m'", UNKNOWN, id="unknown"),
        pytest.param("./serve.sh -dp 2", "./serve.sh", id="not known"),
        pytest.param("docker run i -dp 2", "", id="none"),
    ],
)
def test_the_program_of_a_server_is_the_word_that_starts_it(line: str, program: str) -> None:
    server = server_in(line)
    assert server is not None
    assert server.program == program


@pytest.mark.parametrize(
    ("line", "places"),
    [
        pytest.param("vllm serve a b", [2, 3], id="plain"),
        pytest.param("python -m dynamo.vllm a", [3], id="module"),
        pytest.param("env A=1 nice -n 5 vllm serve a b", [7, 8], id="wrappers"),
        pytest.param("./wrapper vllm serve a", [3], id="wrapper"),
        pytest.param("./serve.sh a -dp 2", [1, 2, 3], id="no entry"),
        pytest.param("env -S 'vllm serve a' b", [2, 3], id="env -S"),
        pytest.param("nice sh -c 'vllm serve a b'", [3, 3], id="shell"),
    ],
)
def test_arguments_keep_their_index_in_the_command(line: str, places: list[int]) -> None:
    server = server_in(line)
    assert server is not None
    assert [*server.positions] == places


# Commands as people write them: each row is like one in a public repository.
CONFIG = '{"window_size": "1000", "use_async": "true"}'


@pytest.mark.parametrize(
    ("words", "environ", "entry", "arguments", "complete"),
    [
        pytest.param(
            [
                *("/bin/bash", "-c"),
                (
                    "exec vllm serve \\\n m \\\n --data-parallel-size $((LWS_GROUP_SIZE * 8)) \\\n"
                    "  --data-parallel-start-rank $((LWS_WORKER_INDEX * 8)) \\\n"
                    f"  --data-parallel-hybrid-lb --enable-eplb \\\n  --eplb-config '{CONFIG}'\n"
                ),
            ],
            {"LWS_GROUP_SIZE": "2"},
            "vllm serve",
            [
                *("m", "--data-parallel-size", "16", "--data-parallel-start-rank", UNKNOWN),
                *("--data-parallel-hybrid-lb", "--enable-eplb", "--eplb-config", CONFIG),
            ],
            True,
            id="LeaderWorkerSet",
        ),
        pytest.param(
            ["bash", "-c", "pip install x\nexec vllm serve $ARGS m ${RANK:+--node-rank=$RANK}"],
            {"ARGS": "--enable-eplb -dp 8", "RANK": "1"},
            "vllm serve",
            ["--enable-eplb", "-dp", "8", "m", "--node-rank=1"],
            True,
            id="arguments in a variable",
        ),
        pytest.param(
            ["bash", "-c", f"exec python3 -m dynamo.vllm --enable-eplb --eplb-config '{CONFIG}'"],
            {},
            "dynamo.vllm",
            ["--enable-eplb", "--eplb-config", CONFIG],
            True,
            id="dynamo",
        ),
        pytest.param(
            [
                *("bash", "-c"),
                (
                    "for ((i=0; i<8; i++)); do\n"
                    "  CUDA_VISIBLE_DEVICES=$i python -m dynamo.vllm --data_parallel_size 8 "
                    '--data-parallel-rank $i 2>&1 | tee "log_$i" &\ndone\nwait'
                ),
            ],
            {},
            "dynamo.vllm",
            ["--data_parallel_size", "8", "--data-parallel-rank", UNKNOWN],
            False,
            id="one per GPU",
        ),
        pytest.param(
            [
                *("/bin/bash", "-c"),
                'eval "exec vllm serve /mnt/models --port 8000 ${VLLM_ADDITIONAL_ARGS} $@"',
                *("sh", "-dp", "2"),
            ],
            {"VLLM_ADDITIONAL_ARGS": "--enable-eplb --eplb-config.use_async true"},
            "vllm serve",
            [
                *("/mnt/models", "--port", "8000", "--enable-eplb"),
                *("--eplb-config.use_async", "true", "-dp", "2"),
            ],
            True,
            id="eval",
        ),
        pytest.param(
            [
                *("sh", "-c"),
                (
                    "bash /leader.sh leader --ray_cluster_size=$(LWS_GROUP_SIZE); "
                    "python3 -m vllm.entrypoints.openai.api_server --pipeline_parallel_size 2"
                ),
            ],
            {},
            "vllm.entrypoints.openai.api_server",
            ["--pipeline_parallel_size", "2"],
            True,
            id="Ray leader",
        ),
        pytest.param(
            ["/opt/venv/bin/vllm", "serve", "m", "--enable-eplb"],
            {},
            "vllm serve",
            ["m", "--enable-eplb"],
            True,
            id="argument list",
        ),
        pytest.param(
            ["bash", "-c", 'ARGS=()\nARGS+=(-dp 2)\nX=1 vllm serve m "${ARGS[@]}" &\nwait $!'],
            {},
            "vllm serve",
            ["m", "-dp", "2"],
            True,
            id="array",
        ),
        pytest.param(
            ["bash", "-c", "vllm serve m --eplb-config '{\"use_async\": '${USE_ASYNC}'}'"],
            {"USE_ASYNC": "true"},
            "vllm serve",
            ["m", "--eplb-config", '{"use_async": true}'],
            True,
            id="variable in JSON",
        ),
        pytest.param(
            [
                *("srun", "-N", "2", "--ntasks-per-node=1", "bash", "-c"),
                "docker exec -d vllm bash -c 'vllm serve m -dp 16 --enable-eplb'",
            ],
            {},
            "vllm serve",
            ["m", "-dp", "16", "--enable-eplb"],
            True,
            id="srun and docker",
        ),
        pytest.param(
            [
                *("nsys", "profile", "-o", "out", "--trace", "cuda,nvtx", "--stats=true"),
                *("vllm", "serve", "m", "--enable-eplb"),
            ],
            {},
            "vllm serve",
            ["m", "--enable-eplb"],
            True,
            id="nsys",
        ),
        pytest.param(
            ["vllm serve m -dp 8"],
            {},
            None,
            [],
            True,
            id="whole command as one word",
        ),
        pytest.param(
            ["bash", "-c", 'CMD="A=1 vllm serve m -dp 8"; eval $CMD'],
            {},
            "vllm serve",
            ["m", "-dp", "8"],
            True,
            id="command in a variable",
        ),
        pytest.param(
            ["bash", "-c", 'args=(serve m -dp 8); vllm "${args[@]}"'],
            {},
            "vllm serve",
            ["m", "-dp", "8"],
            True,
            id="sub-command in an array",
        ),
        pytest.param(
            ["bash", "-c", 'vllm "${args[@]}" $(more)'],
            {},
            "",
            [],
            False,
            id="sub-command not known",
        ),
        pytest.param(
            ["sh", "-c", 'exec vllm serve m --dp-size "$1" $2', "run", "8", "--enable-eplb"],
            {},
            "vllm serve",
            ["m", "--dp-size", "8", "--enable-eplb"],
            True,
            id="positional arguments",
        ),
        pytest.param(
            ["uv", "run", "--with", "x", "vllm", "serve", "m", "-dp", "2"],
            {},
            "vllm serve",
            ["m", "-dp", "2"],
            True,
            id="uv run",
        ),
        pytest.param(
            ["docker", "run", "--gpus", "all", "-e", "A=1", "vllm/vllm-openai", "-dp", "2"],
            {},
            "",
            ["-dp", "2"],
            True,
            id="image's entry point",
        ),
    ],
)
def test_commands_of_real_deployments_give_their_server(
    words: list[str],
    environ: dict[str, str],
    entry: str | None,
    arguments: list[str],
    complete: bool,
) -> None:
    server = find_server(words, environ)
    if entry is None:
        assert server is None
        return
    assert server is not None
    assert server.entry == entry
    assert [*server.words] == arguments
    assert server.args_known is complete


WORDS = st.sampled_from(
    [
        *(
            "vllm",
            "serve",
            "bench",
            "latency",
            "python3",
            "-m",
            "dynamo.vllm",
            "-c",
            "--",
            "-",
            "-u",
        ),
        *("env", "A=1", "sh", "vllm serve m", "ssh", "docker", "run", "exec", "--entrypoint", "-S"),
        *(
            "torchrun",
            "nsys",
            "profile",
            "su",
            "timeout",
            "xargs",
            "sudo",
            "echo",
            "-dp",
            "",
            UNKNOWN,
        ),
        *(
            "kubectl",
            "mpirun",
            "-mca",
            "srun",
            "--export",
            "numactl",
            "-N",
            "-m=1",
            "--x",
            "\udc80",
        ),
    ]
)


@given(st.lists(WORDS, max_size=12))
@settings(max_examples=300)
def test_no_command_raises_an_error(words: list[str]) -> None:
    server = find_server(words, {"A": "1"})
    if server is not None:
        assert all(0 <= position < len(words) for position in server.positions)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["vllm", "serve", *["x"] * 100_000], id="arguments"),
        pytest.param(["env"] * 20_000, id="wrappers"),
        pytest.param(["python", "-X"] * 20_000, id="interpreters"),
        pytest.param(["x", *["vllm"] * 100_000], id="names"),
        pytest.param(["ssh", "h"] * 2_000, id="joined"),
        pytest.param(["env", "-S"] * 50_000, id="env -S"),
        pytest.param(["x", *["sh", "-c"] * 50_000], id="shells"),
        pytest.param(["docker", "run"] * 10_000, id="containers"),
    ],
)
def test_the_work_for_a_long_command_is_bounded(words: list[str]) -> None:
    assert calls(find_server, words, {}) < 3_000_000


LOADED = """
import sys
before = set(sys.modules)
from eplb_launch.command import find_server
assert find_server(sys.argv[1:], {})
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(
    ("words", "more"),
    [
        pytest.param(["vllm", "serve", "m"], set(), id="plain"),
        pytest.param(["python3", "-m", "dynamo.vllm", "m"], set(), id="module"),
        pytest.param(
            ["nice", "vllm", "serve", "m"],
            {"command.wrappers", "command.find", "command.step", "command.context"}
            | {"launch_options", "vllm", "vllm.releases"},
            id="wrapper before",
        ),
        pytest.param(["sh", "-c", "A=$((1+1)); eval vllm serve $A"], None, id="shell"),
    ],
)
def test_a_command_imports_only_the_modules_it_needs(
    words: list[str], more: set[str] | None
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ran.stdout.split()) - {"__future__", "eplb_launch", "eplb_launch._version"}
    names = {name.removeprefix("eplb_launch.") for name in loaded}
    assert all(name.startswith("eplb_launch.") for name in loaded)
    if more is not None:
        assert names == {"command", "entrypoints", "model"} | more


@pytest.mark.parametrize("many", [10, 2000])
def test_a_command_that_is_too_much_to_follow_gives_a_warning(many: int) -> None:
    server, _, unread = look(["xargs"] * many + ["vllm", "serve", "m"], {})
    assert (server is None) == bool(unread) == (many == 2000)


@pytest.mark.parametrize("program", [["nice"], ["env", "A=1"]], ids=" ".join)
def test_60000_programs_are_too_much_to_follow(program: list[str]) -> None:
    server, _, unread = look([*program * 1000, "vllm", "serve", "m"], {})
    assert server is not None
    assert not unread
    server, _, unread = look([*program * 60_000, "vllm", "serve", "m"], {})
    assert server is None
    assert list(unread) == ["a part of the command was too much to follow"]
    work = calls(look, [*program * 60_000, "vllm", "serve", "m"], {})
    assert work < 1.2 * calls(look, [*program * 30_000, "vllm", "serve", "m"], {})
