"""Commands in a string that a program executes, and releases that a command names."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from conftest import SCRIPT

from eplb_launch.command import find_server, look
from eplb_launch.command.context import requirement
from eplb_launch.plans import plan

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch.plans import Plan

HAZARD = (
    "--data-parallel-size 8 --enable-eplb --all2all-backend deepep_low_latency "
    "--eplb-config.use_async true"
)
SERVE = f"vllm serve m {HAZARD}"


def planned(line: str, directory: Path | None = None, **options: str) -> Plan:
    """Return the plan of a command line, split as a shell does."""
    place = str(directory) if directory else None
    return plan(shlex.split(line), {"PATH": "/nowhere"}, directory=place, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("sg docker -c 'SERVE'", ["sg"]),
        ("sg docker 'SERVE'", ["sg"]),
        ("doppler run --command 'SERVE'", ["doppler"]),
        ("doppler -p x run -c dev --command='SERVE'", ["doppler"]),
        ("doppler run -- SERVE", ["doppler"]),
        ("sops exec-env f.yaml 'SERVE'", ["sops"]),
        ("sops exec-file --filename a f.yaml 'SERVE'", ["sops"]),
        ("fish -c 'SERVE'", ["fish"]),
        ("tcsh -c 'SERVE'", ["tcsh"]),
        ("pdsh -w node[1-4] 'SERVE'", ["pdsh"]),
        ("tmux send-keys -t x 'SERVE' C-m", ["tmux"]),
        ("supervise --command 'cd /x && SERVE'", ["supervise"]),
        ("supervise -- 'numactl -N 0 SERVE'", ["supervise", "numactl"]),
        ("supervise --note 'SERVE'", ["supervise"]),  # with the options of vLLM in it
        ("nice supervise 'SERVE'", ["nice", "supervise"]),
        ("bash -c \"sg x -c 'SERVE'\"", ["sh", "sg"]),
        ("sg docker -c 'docker run --rm image SERVE'", ["sg", "docker"]),
    ],
)
def test_a_command_in_a_string_is_followed(line: str, names: list[str]) -> None:
    decided = planned(line.replace("SERVE", SERVE), vllm_version="0.16.0")
    assert decided.server is not None
    assert [wrapper.name for wrapper in decided.server.wrappers] == names
    assert decided.server.entry == "vllm serve"
    assert decided.server.args_known
    assert decided.environment
    dropped = [warning.code for warning in decided.warnings] == ["variable-dropped"]
    assert dropped == ("docker" in names)


@pytest.mark.parametrize(
    "line",
    [
        "parallel 'SERVE' ::: a b",
        "parallel -j 2 vllm serve {} HAZARD ::: a b",
        "parallel 'vllm serve m -dp {} HAZARD' ::: 8",
        "fish -c 'SERVE $options'",
        "tcsh -c 'set x = (a b); SERVE'",
    ],
)
def test_what_a_program_adds_or_expands_is_not_known(line: str) -> None:
    line = line.replace("SERVE", SERVE).replace("HAZARD", HAZARD)
    decided = planned(line, vllm_version="0.16.0")
    assert decided.server is not None
    assert not decided.server.args_known
    assert decided.environment
    assert not decided.warnings


@pytest.mark.parametrize(
    "line",
    [
        *("echo 'SERVE'", "printf '%s\\n' 'SERVE'", "grep -r 'SERVE' .", "pgrep -f 'SERVE'"),
        *("pkill -f 'SERVE'", "logger 'SERVE'", "curl -d 'SERVE' x", "git commit -m 'SERVE'"),
        *("notify-send 'SERVE'", "mail -s 'SERVE' x", "sh -c \"echo 'SERVE'\"", "wall 'SERVE'"),
        *("supervise --note 'vllm serve is up'", "supervise 'import vllm; vllm.serve()'"),
        *("supervise 'the vllm server'", "supervise 'echo SERVE'", "supervise '# SERVE'"),
        *("sg docker", "sg docker -c", "doppler run", "doppler secrets 'x'", "sops exec-env f"),
        *("fish x.fish", "parallel", "pipx install vllm", "pipx list", "uvx", "uvx vllm@0.16.0"),
    ],
)
def test_a_string_that_is_no_command_has_no_server(line: str) -> None:
    assert find_server(shlex.split(line.replace("SERVE", SERVE)), {}) is None


@pytest.mark.parametrize(
    "line", ["sops exec-env --pristine f 'SERVE'", "sg - docker -c 'SERVE'"], ids=str.split
)
def test_a_variable_that_is_lost_on_the_way_gives_a_warning(line: str) -> None:
    decided = planned(line.replace("SERVE", SERVE), vllm_version="0.16.0")
    assert [warning.code for warning in decided.warnings] == ["variable-dropped"]


@pytest.mark.parametrize("name", ["supervise", "doppler", "sops", "sg", "tcsh"])
def test_the_server_in_a_string_gets_the_variable(name: str, tmp_path: Path) -> None:
    real = shutil.which(name)
    words = {
        "sg": ["root", "-c"],
        "doppler": ["run", "--command"],
        "sops": ["exec-env", "f"],
    }.get(name, ["-c"])
    for program, text in {
        "vllm": 'echo "cap ${NCCL_MAX_CTAS-none}"',
        name: 'for last; do :; done; exec sh -c "$last"',
    }.items():
        if program != name or real is None:
            (tmp_path / program).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / program).chmod(0o755)
    ended = subprocess.run(
        [SCRIPT, "--vllm-version", "0.16.0", "--", name, *words, SERVE],
        env={"PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr.startswith("eplb-launch: set NCCL_MAX_CTAS=8")
    assert ended.stdout == "cap 8\n"


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("uvx vllm@0.16.0 serve m", "0.16.0"),
        ("uvx 'vllm[audio]@0.16.0' serve m", "0.16.0"),
        ("uvx --with x --from vllm==0.16.0 vllm serve m", "0.16.0"),
        ("uvx --from=vllm==0.16.0 vllm serve m", "0.16.0"),
        ("uv tool run vllm@0.16.0 serve m", "0.16.0"),
        ("uv run --with vllm==0.16.0 vllm serve m", "0.16.0"),
        ("uv run --with vllm==0.16.0 python -m vllm.entrypoints.openai.api_server m", "0.16.0"),
        ("pipx run vllm==0.16.0 serve m", "0.16.0"),
        ("pipx run --spec vllm==0.16.0 vllm serve m", "0.16.0"),
        ("uvx vllm serve m", None),
        ("uvx vllm@latest serve m", None),
        ("uvx --from 'vllm>=0.16' vllm serve m", None),
        ("uvx --from 'vllm==0.16.*' vllm serve m", None),
        ("uvx --from git+https://x/vllm@0.16.0 vllm serve m", None),
        ("uvx --with other==1.0 vllm serve m", None),
        ("pipx run vllm serve m", None),
    ],
)
def test_a_release_in_the_command_counts(line: str, version: str | None) -> None:
    decided = planned(line)
    assert decided.server is not None
    assert decided.server.words == ("m",)
    assert decided.vllm_version == version
    assert decided.vllm_source == (
        "the package that the command asks for" if version else decided.vllm_source
    )
    assert planned(line, vllm_version="0.12.0").vllm_version == "0.12.0"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vllm", ("vllm", "")),
        ("vllm==0.16.0", ("vllm", "0.16.0")),
        ("vllm == 0.16.0", ("vllm", "0.16.0")),
        ("vllm@0.16.0", ("vllm", "0.16.0")),
        ("vllm[a,b]==0.16.0rc1", ("vllm", "0.16.0rc1")),
        ("vllm==0.16.0,!=0.16.1", ("vllm", "")),
        ("vllm~=0.16.0", ("vllm", "")),
        ("vllm @ https://x/vllm-0.16.0.whl", ("vllm", "")),
        ("vllm-omni==0.16.0", ("vllm-omni", "0.16.0")),
        ("", ("", "")),
    ],
)
def test_a_requirement_names_the_package_and_the_release(text: str, found: tuple[str, str]) -> None:
    assert requirement(text) == found


SWEEPS = [
    "vllm bench sweep serve --serve-cmd 'SERVE' --bench-cmd 'vllm bench serve'",
    "vllm bench sweep serve --bench_cmd 'x' --serve_cmd='SERVE'",
    "vllm bench sweep serve_workload --serve-cmd 'SERVE'",
    "python3 -m vllm.benchmarks.sweep.serve --serve-cmd 'SERVE' --bench-cmd x",
    "python3 -m vllm.benchmarks.sweep.serve_sla --serve_cmd 'SERVE'",
]


@pytest.mark.parametrize("line", SWEEPS)
def test_vllm_bench_sweep_starts_the_server_of_serve_cmd(line: str) -> None:
    assert planned(line.replace("SERVE", SERVE), vllm_version="0.16.0").environment
    assert not planned(line.replace("SERVE", "vllm serve m"), vllm_version="0.16.0").environment


@pytest.mark.parametrize(
    "line",
    [
        "vllm bench sweep plot x",
        "vllm bench sweep serve --bench-cmd x",
        "python -m vllm.benchmarks.sweep.plot x",
        "python -m vllm.benchmarks.sweep.serve --bench-cmd x",
    ],
)
def test_vllm_bench_sweep_without_serve_cmd_starts_no_server(line: str) -> None:
    assert look(shlex.split(line), {})[:2] == (None, True)


@pytest.mark.parametrize(
    ("content", "command", "expected"),
    [
        # The options that the file names are not known. All others are known.
        ('[{"enable_eplb": true}, {}]', HAZARD.replace("--enable-eplb", ""), True),
        ('{"a": {"enable-eplb": true}}', HAZARD.replace("--enable-eplb", ""), True),
        ('[{"data_parallel_size": 8}]', HAZARD.replace("-size 8", "-size 1"), True),
        ('[{"eplb_config.use_async": true}]', HAZARD.replace("true", "false"), True),
        ('[{"eplb_config": {"use_async": true}}]', HAZARD.partition(" --eplb-config")[0], True),
        # vLLM reads dotted options last.
        ('[{"eplb_config": {"use_async": true}}]', HAZARD.replace("true", "false"), False),
        ('[{"all2all_backend": "x"}]', HAZARD, True),
        ('[{"max_num_seqs": 8}]', HAZARD, True),
        ('[{"max_num_seqs": 8}, {"_benchmark_name": "b"}]', "", False),
        ('[{"data_parallel_size": 8}]', "", False),
        ('[{"enable_eplb": false}]', HAZARD.replace("--enable-eplb", ""), False),
        ("[]", HAZARD.replace("--enable-eplb", ""), False),
        # Nothing is known about a file that is not valid.
        ("{", HAZARD.replace("--enable-eplb", ""), True),
        ('["x"]', HAZARD.replace("--enable-eplb", ""), True),
        ("[" * 100_000, HAZARD.replace("--enable-eplb", ""), True),
        (None, HAZARD.replace("--enable-eplb", ""), True),
    ],
    ids=lambda value: None if value is None else str(value)[:40],
)
@pytest.mark.parametrize("option", ["--serve-params f.json", "--serve_params=./f.json"])
def test_a_parameter_file_makes_unknown_what_it_names(
    content: str | None, command: str, expected: bool, option: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "f.json").write_text(content)
    line = f"vllm bench sweep serve {option} --serve-cmd 'vllm serve m {command}' --bench-cmd x"
    decided = planned(line, tmp_path, vllm_version="0.16.0")
    assert bool(decided.environment) is expected
    assert not decided.warnings


@pytest.mark.parametrize("entry", ["throughput", "latency"])
def test_an_option_of_the_benchmark_alone_is_taken_but_vllm_serve_refuses_it(entry: str) -> None:
    for option in ("--n 2", "--n=2"):
        decided = planned(f"vllm bench {entry} --model m {option} {HAZARD}", vllm_version="0.16.0")
        assert decided.environment
        assert not decided.warnings
    (refused,) = planned(f"{SERVE} --n 2", vllm_version="0.16.0").warnings
    assert refused.code == "arguments-refused"


def test_dynamo_vllm_main_is_an_entry_point() -> None:
    decided = planned(f"python3 -m dynamo.vllm.main --model m {HAZARD}", vllm_version="0.16.0")
    assert decided.server is not None
    assert decided.server.entry == "dynamo.vllm.main"
    assert decided.environment
