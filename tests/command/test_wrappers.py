"""Wrappers: their own words, and what they change for the server."""

from __future__ import annotations

import shlex

import pytest

from eplb_launch.command import find_server
from eplb_launch.command.wrappers import (
    BARE,
    FACTS,
    PAIRS,
    READERS,
    SHELLS,
    VALUED,
    WRAPPERS,
    row_of,
)
from eplb_launch.model import UNKNOWN, Server

HERE = {"A": "a", "B": "b"}


def server_in(line: str) -> Server | None:
    """Return the server in a command line, split as a shell does."""
    return find_server(shlex.split(line), HERE)


# Each line is put before `vllm serve m -dp 8`.
LINES = [
    *(
        "env",
        "env -i A=1",
        "env - A=1",
        "env -u A -u B",
        "env --unset=A",
        "env -uA B=2 C=",
        "env --",
    ),
    *("env -C /x", "env --chdir=/x A=1", "env -iu A", "env -vi", "/usr/bin/env A=1", "env -a x"),
    *("exec", "exec -a name", "exec -cl", "command", "command -p", "builtin", "nohup", "time -p"),
    *("time -f %e -o log", "nice", "nice -n 5", "nice -n5", "nice -5", "nice --adjustment=5"),
    *(
        "ionice -c 2 -n 0",
        "ionice -c2 -n0",
        "ionice -t",
        "chrt -f 10",
        "chrt --fifo 10",
        "chrt -b 0",
    ),
    *("chrt -b", "taskset 0xff", "taskset -c 0-3", "taskset --cpu-list 0,1", "setsid", "setsid -w"),
    *("numactl -N 0 -m 0", "numactl --cpunodebind=0 --membind=0", "numactl -C 0-7 --localalloc"),
    *(
        "numactl --cpunodebind 0",
        "numactl -N0 -l",
        "numactl --physcpubind +0-3 --",
        "numactl -aN 0",
    ),
    *("stdbuf -oL", "stdbuf -o L -e0", "timeout 5", "timeout -s KILL -k 5 1h", "timeout -- 5"),
    *("timeout --signal=KILL --foreground 5", "timeout --kill-after 5 9", "flock /tmp/lock"),
    *("flock -n -E 3 /tmp/lock", "prlimit --nofile=1024:", "setpriv --reuid 1 --clear-groups"),
    *("unshare -n", "nsenter -t 1 -a", "chroot /x", "chroot --userspec=1:1 /x", "choom -n 5 --"),
    *("gosu user", "su-exec user:group", "runuser -u user --", "runuser -u user", "doas -u user"),
    *("sudo", "sudo -E", "sudo -u user -g group A=1 B=2", "sudo -nHu user --", "sudo -D /x"),
    *("sudo --preserve-env=A,B --user=user", "chpst -u user -m 5", "softlimit -m 5", "envdir /x"),
    *("setuidgid user", "s6-setuidgid user", "s6-envdir /x", "with-contenv", "cgexec -g cpu:x"),
    *("cgexec -g cpu:x --sticky", "systemd-run --scope -p CPUQuota=1% --", "systemd-run -u x -P"),
    *(
        "systemd-inhibit --what=sleep",
        "bwrap --bind / / --dev /dev --setenv A 1",
        "firejail --net=none",
    ),
    *("nsys profile", "nsys profile -t cuda,nvtx -o out -f true", "nsys profile --trace cuda"),
    *("nsys profile --stats=true --sample none -w true -c cudaProfilerApi --kill none",),
    *("nsys launch --session-new=x", "ncu -o out --set full -k regex:x --csv", "cuda-gdb --args"),
    *("strace", "strace -f -e trace=open -o log", "strace -ff -s 99 -E A=1", "ltrace -e malloc"),
    *("perf record -g --", "perf record -F 99 -o x", "perf stat -e cycles", "gdb --args"),
    *("gdb -batch -ex run -ex bt --args", "lldb -o run --", "valgrind --tool=x", "catchsegv"),
    *(
        "py-spy record -o x --",
        "uv run",
        "uv run --with x --python 3.12 --no-sync",
        "uv run -p3.12",
    ),
    *(
        "uv --quiet run --extra a --env-file .env --",
        "uv run --index-url x --project d --directory /x",
    ),
    *(
        "uvx --from vllm",
        "uv tool run --from vllm",
        "poetry run",
        "pipenv run",
        "pdm run",
        "hatch run",
    ),
    *("hatch -e x run", "pixi run -e x", "rye run", "conda run -n x", "mamba run -p /x"),
    *(
        "conda run --no-capture-output -n x",
        "micromamba run -n x",
        "dotenv run",
        "dotenv -f x run --",
    ),
    *("honcho run", "opentelemetry-instrument --service_name x", "ddtrace-run", "coverage run"),
    *("newrelic-admin run-program", "torchrun", "torchrun --nproc-per-node 2 --nnodes=1"),
    *("torchrun --nproc_per_node=1 --no-python", "python -m torch.distributed.run --nnodes 1"),
    *("accelerate launch --num_processes 1", "srun", "srun -N 1 -n1 --gpus-per-node=8 -J x"),
    *("srun --container-image x --container-mounts=/a:/a --export ALL", "srun -l -u --mpi=pmix"),
    *("salloc -N 1", "mpirun -np 2", "mpirun -n 2 --hostfile x -x A -mca btl tcp --bind-to none"),
    *("mpiexec -n 2 -genv A 1", "mpirun --allow-run-as-root --oversubscribe -H a:1,b:1"),
    *("ray job submit --address x --", "docker run image", "docker run --rm -it --gpus all image"),
    *("docker run -d --name x -p 80:80 -v /a:/a -e A=1 --env B=2 --ipc=host --shm-size 1g image",),
    *("docker exec -it x", "docker exec -w /x -e A=1 x", "docker container run image"),
    *("docker compose run --rm service", "docker compose -f x.yml exec -T service"),
    *(
        "docker --context x run --network host vllm/vllm-openai:latest",
        "podman run --device a image",
    ),
    *("nerdctl -n k8s.io exec x", "kubectl exec pod --", "kubectl exec -it -n x pod -c y --"),
    *("kubectl exec deploy/x -c y -- env A=1", "kubectl -n x exec pod", "oc exec pod --"),
    *("singularity exec --nv image.sif", "apptainer exec --nv -B /a --env A=1 image.sif"),
    *("apptainer run --pwd /x docker://image", "enroot start --rw -e A=1 -m a:b image"),
    *(
        "ssh host",
        "ssh -p 22 -i key user@host",
        "ssh -tt host --",
        "ssh host -p 22",
        "ssh -oA=b host",
    ),
    *("tmux new-session -d -s x", "tmux -L y new -d -n x", "screen -dmS x", "watch -n 5"),
    *(
        "tini --",
        "tini -s -g -e 143 --",
        "tini -p SIGTERM",
        "/usr/bin/dumb-init --",
        "dumb-init -c",
    ),
    *("dumb-init -r 15:2 -v --", "catatonit -g --", "busybox nice -n 5", "toybox nohup"),
    *("eplb-launch --", "eplb-launch --vllm-version 0.20 --strict --", "python -m eplb_launch --"),
    *("python -m coverage run -m", "python -m cProfile -o x", "script -c"),
    *("sudo -u x env A=1 numactl -N 0 nice -n 5 timeout 5 setsid", "tini -- env A=1 taskset -c 0"),
]


@pytest.mark.parametrize("line", LINES)
def test_each_wrapper_leaves_the_server_behind_it(line: str) -> None:
    last = line.rsplit(" ", 1)[-1]
    if last == "-m":
        command = f"{line} vllm.entrypoints.openai.api_server m -dp 8"
    elif line == "script -c":
        command = f"{line} 'vllm serve m -dp 8' log"
    else:
        command = f"{line} vllm serve m -dp 8"
    server = server_in(command)
    assert server is not None
    assert server.entry in ("vllm serve", "vllm.entrypoints.openai.api_server")
    assert [*server.words] == ["m", "-dp", "8"]
    assert server.args_known
    assert server.wrappers
    if line != "script -c":
        own = [word for wrapper in server.wrappers for word in wrapper.words]
        assert own == shlex.split(line)


@pytest.mark.parametrize(
    "line",
    [
        "command -v",
        "command -V",
        "taskset -p",
        "taskset -cp 0-3",
        "chrt -p 10",
        "ionice -p",
        "prlimit --pid 5",
        "numactl --hardware",
        "numactl -s",
        "sudo -l",
        "sudo -v",
        "choom -p",
    ],
)
def test_an_option_that_starts_nothing_gives_no_server(line: str) -> None:
    assert server_in(f"{line} vllm serve m") is None


@pytest.mark.parametrize(
    ("line", "environ"),
    [
        pytest.param("env A=1 C=", {"A": "1", "B": "b", "C": ""}, id="env"),
        pytest.param("env A==x=", {"A": "=x=", "B": "b"}, id="equals signs"),
        pytest.param("env -u A", {"B": "b"}, id="env -u"),
        pytest.param("env -uA --unset=B", {}, id="env -u joined"),
        pytest.param("env -i A=1", {"A": "1"}, id="env -i"),
        pytest.param("env - A=1", {"A": "1"}, id="env -"),
        pytest.param("env A=1 env -u B env C=2", {"A": "1", "C": "2"}, id="env, env"),
        pytest.param("env -S 'A=1 nice'", {"A": "1", "B": "b"}, id="env -S"),
        pytest.param("env -iS 'A=1 nice'", {"A": "1"}, id="env -iS"),
        pytest.param("env --split-string='-u A nice'", {"B": "b"}, id="env -S with an option"),
        pytest.param("exec -c", {}, id="exec -c"),
        pytest.param("sudo A=1", {"A": "1", "B": "b"}, id="sudo"),
        pytest.param("su - x -c", {}, id="su -"),
        pytest.param("setpriv --reset-env", {}, id="setpriv"),
        pytest.param("bwrap --unsetenv A --setenv C 1", {"B": "b", "C": "1"}, id="bwrap"),
        pytest.param("strace -E A=1", {"A": "1", "B": "b"}, id="strace"),
        pytest.param("mpirun -x A=1", {"A": "1", "B": "b"}, id="mpirun"),
        pytest.param("srun --export=ALL,A=1", {"A": "1", "B": "b"}, id="srun ALL"),
        pytest.param("srun --export=NONE", {}, id="srun NONE"),
        pytest.param("srun --export B,C=1", {"B": "b", "C": "1"}, id="srun names"),
        pytest.param("systemd-run --scope", HERE, id="systemd-run --scope"),
        pytest.param("systemd-run -E C=1", {"C": "1"}, id="systemd-run"),
        pytest.param(
            "docker run -e C=1 -e A --env=D=2 i", {"C": "1", "A": "a", "D": "2"}, id="docker"
        ),
        pytest.param("docker exec -eC=1 x", {"C": "1"}, id="docker exec"),
        pytest.param("kubectl exec x --", {}, id="kubectl"),
        pytest.param("ssh x C=1", {"C": "1"}, id="ssh"),
        pytest.param("apptainer exec --env C=1 i", {**HERE, "C": "1"}, id="apptainer"),
        pytest.param("apptainer exec -e i", {}, id="apptainer -e"),
    ],
)
def test_a_wrapper_changes_the_environment_of_the_server(
    line: str, environ: dict[str, str]
) -> None:
    command = "'vllm serve m'" if line.endswith(" -c") and "su" in line else "vllm serve m"
    server = server_in(f"{line} {command}")
    assert server is not None
    assert dict(server.environ) == environ


@pytest.mark.parametrize(
    ("line", "directory"),
    [
        pytest.param("env -C /x", "/x", id="env"),
        pytest.param("env -C /x env --chdir=y", "/x/y", id="relative"),
        pytest.param("env -C x env -C /y", "/y", id="absolute"),
        pytest.param("sudo -D /x", "/x", id="sudo"),
        pytest.param("uv run --directory /x", "/x", id="uv"),
        pytest.param("docker run -w /x i", "/x", id="docker"),
        pytest.param("srun -D/x", "/x", id="srun"),
        pytest.param("numactl -N 0", None, id="none"),
    ],
)
def test_a_wrapper_changes_the_directory_of_the_server(line: str, directory: str | None) -> None:
    server = server_in(f"{line} vllm serve m")
    assert server is not None
    assert server.directory == directory


@pytest.mark.parametrize(
    ("line", "remote"),
    [
        ("docker run i", "docker"),
        ("podman exec c", "podman"),
        ("kubectl exec p --", "kubectl"),
        ("ssh h", "ssh"),
        ("srun", "srun"),
        ("mpirun -np 2", "mpirun"),
        ("singularity exec i", "singularity"),
        ("apptainer exec i", "apptainer"),
        ("chroot /x", "chroot"),
        ("srun docker exec c", "srun"),
        ("sudo docker exec c", "docker"),
        ("sudo", ""),
        ("uv run", ""),
        ("sh -c 'exec \"$@\"' sh", ""),
    ],
)
def test_a_wrapper_may_start_the_server_elsewhere(line: str, remote: str) -> None:
    server = server_in(f"{line} vllm serve m")
    assert server is not None
    assert server.remote == remote


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        pytest.param("su user -c 'vllm serve m'", "m", id="su"),
        pytest.param("su -c 'cd /x; vllm serve m' user", "m", id="su, option first"),
        pytest.param("runuser user -c 'vllm serve m'", "m", id="runuser"),
        pytest.param("flock /x -c 'vllm serve m'", "m", id="flock"),
        pytest.param("script -qec 'vllm serve m' log", "m", id="script"),
        pytest.param("sbatch -N 1 --wrap 'vllm serve m'", "m", id="sbatch"),
        pytest.param("ssh host 'A=1 vllm serve m; x'", "m", id="ssh"),
        pytest.param("ssh host vllm serve '\"a b\"' '$NO'", "a b", id="ssh, two shells"),
        pytest.param("tmux new -d 'vllm serve m'", "m", id="tmux"),
        pytest.param("watch 'vllm serve m'", "m", id="watch"),
        pytest.param("docker run i sh -c 'vllm serve m'", "m", id="docker"),
        pytest.param("docker run --entrypoint vllm i serve m", "m", id="entry point"),
        pytest.param(
            "docker run --entrypoint=/bin/bash i -c 'vllm serve m'", "m", id="entry point bash"
        ),
        pytest.param(
            "docker run --entrypoint python3 i -m dynamo.vllm m", "m", id="entry point python"
        ),
        pytest.param("env -S 'vllm serve \"a b\"' c", "a b|c", id="env -S"),
        pytest.param("xargs -n 1 sh -c 'vllm serve \"$1\"' sh m", "m", id="xargs"),
        pytest.param("busybox sh -c 'vllm serve m'", "m", id="busybox sh"),
        pytest.param("bash --norc -euxo pipefail -c -- 'vllm serve m'", "m", id="bash"),
        pytest.param("bash -ec 'vllm serve m'", "m", id="bash -ec"),
        pytest.param("bash -c -l 'vllm serve m'", "m", id="bash -c -l"),
        pytest.param("bash +e -O extglob --rcfile x -c 'vllm serve m'", "m", id="bash +e"),
        pytest.param("sudo bash -c \"bash -c 'vllm serve m'\"", "m", id="shells"),
    ],
)
def test_a_wrapper_with_a_command_string_hands_it_to_a_shell(line: str, arguments: str) -> None:
    server = server_in(line)
    assert server is not None
    assert "|".join(server.words) == arguments


def test_a_container_hides_the_values_of_variables() -> None:
    server = server_in("docker run i sh -c 'vllm serve -$A ${B:-x}y $C'")
    assert server is not None
    assert [*server.words] == [f"-{UNKNOWN}", f"{UNKNOWN}y"]
    assert not server.args_known


def test_xargs_adds_arguments() -> None:
    server = server_in("xargs vllm serve m")
    assert server is not None
    assert not server.args_known


def test_each_wrapper_has_its_own_words() -> None:
    server = server_in("sudo -u x numactl -N 0 sh -c 'env A=1 exec vllm serve m' sh")
    assert server is not None
    assert [(w.name, w.words, w.position) for w in server.wrappers] == [
        ("sudo", ("sudo", "-u", "x"), 0),
        ("numactl", ("numactl", "-N", "0"), 3),
        ("sh", ("sh", "-c", "env A=1 exec vllm serve m"), 6),
        ("env", ("env", "A=1"), 8),
        ("exec", ("exec",), 8),
    ]


def test_a_program_without_a_row_is_a_wrapper_too() -> None:
    server = server_in("nice wrapper --x vllm serve m")
    assert server is not None
    assert [(w.name, w.words) for w in server.wrappers] == [
        ("nice", ("nice",)),
        ("wrapper", ("wrapper", "--x")),
    ]


@pytest.mark.parametrize(
    "line", ["numactl --weird 5", "nsys profile --new-option x --y", "nice -q z"]
)
def test_an_option_that_no_row_lists_does_not_hide_the_server(line: str) -> None:
    server = server_in(f"{line} vllm serve m")
    assert server is not None
    assert [*server.words] == ["m"]


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_a_wrapper_with_nothing_behind_it_has_no_server(name: str) -> None:
    started = shlex.split(name.replace("-m ", "python3 -m "))
    assert find_server(started, {}) is None
    for words in (["--"], ["-c"], ["-e", "x"], ["run"], ["run", "--entrypoint"], ["x", "-c"]):
        find_server([*started, *words], {})
        find_server([*started, *words, "vllm", "serve"], {})


def test_no_program_is_in_two_tables() -> None:
    assert not set(WRAPPERS) & (READERS | SHELLS)


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_row_has_known_columns_and_no_option_twice(name: str) -> None:
    row = row_of(name)
    columns = {**VALUED, **PAIRS, **BARE}
    assert row.keys() <= {*columns, *FACTS}
    options = [option for column in columns for option in row.get(column, "").split()]
    assert len(options) == len(set(options)) or "requires" in row
    assert all(column in ("flags", "nodes") or row[column] for column in row.keys() - FACTS.keys())
