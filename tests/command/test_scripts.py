"""Scripts before the server: real shells start a stand-in, which has to get the variable."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import SCRIPT, calls
from house import HAZARD as SERVED
from house import House

from eplb_launch.command.scripts import MAX_BYTES, MAX_LEVELS, MAX_LOOKUPS, MAX_NAMED
from eplb_launch.files import DISK, InMemory
from eplb_launch.plans import NO_SERVER, plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eplb_launch.files import Files
    from eplb_launch.plans import Plan

HAZARD = (
    "--data-parallel-size 8 --enable-eplb --all2all-backend deepep_low_latency "
    "--eplb-config.use_async true"
)
REASON = "async EPLB with DeepEP low-latency (data_parallel_size=8, vLLM 0.16.0)\n"
SERVE = f"vllm serve m {HAZARD}"
START = f'#!/bin/sh\nset -e\nexec {SERVE} "$@"\n'
FILES = {
    "start.sh": START,
    "bash.sh": f'#!/usr/bin/env bash\nargs=({HAZARD})\nvllm serve m "${{args[@]}}"\n',
    "options.sh": f"#!/bin/bash -eu\n{SERVE}\n",
    "env-s.sh": f"#!/usr/bin/env -S A=1 bash -e\n{SERVE} $A\n",
    "no-head.sh": f"{SERVE}\n",
    "entry.sh": '#!/bin/bash\nset -e\nexec "$@"\n',
    "shift.sh": '#!/bin/sh\nmode=$1; shift\n[ "$mode" = serve ] && exec vllm serve "$@"\n',
    "plain.sh": "vllm serve m --port 1\n",
    "x/run.sh": "#!/bin/sh\n. ./lib.sh\nserve --port 9\n",
    "x/lib.sh": f'serve() {{ {SERVE} "$@"; }}\n',
    "x/chain.sh": "#!/bin/sh\ncd ..\nsh x/next.sh m\n",
    "x/next.sh": "#!/bin/sh\n./start.sh --port 2\n",
    "vars.sh": f"OPTIONS='{HAZARD}'\n",
    "sourcing.sh": "source ./vars.sh\nvllm serve m $OPTIONS\n",
    "sourcing-path.sh": "#!/bin/bash\nsource vars-on-path.sh\nvllm serve m $OPTIONS\n",
    "bin/vars-on-path.sh": f"OPTIONS='{HAZARD}'\n",
    "bin/on-path": START,
    "with space.sh": START,
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a folder with the scripts, and with a `vllm` that prints its arguments."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    server = tmp_path / "bin" / "vllm"
    server.write_text('#!/bin/sh\necho "cap ${NCCL_MAX_CTAS-none}"\necho "$@"\n')
    server.chmod(0o755)
    return tmp_path


def launched(
    command: Sequence[str], here: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Start a command through the installed launcher."""
    return subprocess.run(
        [SCRIPT, "--vllm-version", "0.16.0", "--", *command],
        env={"PATH": f"{here}/bin:/usr/local/bin:/usr/bin:/bin", **environ},
        cwd=here,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def planned(command: Sequence[str], here: Path, files: Files = DISK) -> Plan:
    """Return the plan of a command."""
    environ = {"PATH": f"{here}/bin:/usr/bin:/bin"}
    return plan(command, environ, vllm_version="0.16.0", directory=str(here), files=files)


@pytest.mark.parametrize(
    "command",
    [
        ["./start.sh"],
        ["./start.sh", "--port", "1"],
        ["on-path"],
        ["./with space.sh"],
        ["./bash.sh"],
        ["./options.sh"],
        ["./env-s.sh"],
        ["./no-head.sh"],
        ["bash", "start.sh"],
        ["sh", "-e", "./start.sh", "--port", "1"],
        ["bash", "-o", "pipefail", "-eu", "--", "start.sh"],
        ["bash", "on-path"],  # bash looks on PATH where there is none here
        ["bash", "-c", "./start.sh"],
        ["sh", "-c", "cd x && ../start.sh"],
        ["sh", "-c", 'cd "$0" && ./run.sh', "x"],
        ["bash", "-c", "bash <<< true; exec bash start.sh"],
        ["./entry.sh", "vllm", "serve", "m", *HAZARD.split()],
        ["./entry.sh", "./start.sh", "--port", "1"],
        ["./shift.sh", "serve", "m", *HAZARD.split()],
        ["env", "A=1", "./start.sh"],
        ["env", "-C", "x", "./run.sh"],
        ["env", "-C", "x", "sh", "chain.sh"],
        ["nice", "-n", "1", "timeout", "9", "bash", "./start.sh"],
        ["bash", "sourcing.sh"],
        ["./sourcing-path.sh"],
        ["sh", "-c", ". ./vars.sh; vllm serve m $OPTIONS"],
    ],
    ids=" ".join,
)
def test_the_server_of_a_script_gets_the_variable(command: list[str], here: Path) -> None:
    ended = launched(command, here)
    assert ended.stderr.startswith("eplb-launch: set NCCL_MAX_CTAS=8")
    assert len(ended.stderr.splitlines()) == 1
    cap, words = ended.stdout.splitlines()
    assert cap == "cap 8"
    # The launcher has read what the stand-in gets.
    server = planned(command, here).server
    assert server is not None
    assert ["serve", *server.words] == words.split()
    assert server.args_known


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path / "house")
    yield built
    built.end()


def test_the_workers_of_a_script_get_the_variable(house: House) -> None:
    house.install("0.16.0")
    script = house.root / "start.sh"
    script.write_text(f'#!/bin/sh\n. ./options\nexec vllm {SERVED} $OPTIONS "$@"\n')
    script.chmod(0o755)
    (house.root / "options").write_text("OPTIONS='--port 9'\n")
    tree: dict[str, object] = {"VLLM::EngineCore_DP0": {}}
    pid = house.start("--seed 1", program=[SCRIPT, "--quiet", "--", "./start.sh"], tree=tree)
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert words[-5:] == [b"--port", b"9", b"--seed", b"1", b""]
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert below
    for number in (pid, *below):
        assert b"NCCL_MAX_CTAS=8" in Path(f"/proc/{number}/environ").read_bytes().split(b"\0")


@pytest.mark.parametrize(
    "command",
    [["./plain.sh"], ["./shift.sh", "serve", "m"], ["./entry.sh", "vllm", "serve", "m"]],
    ids=" ".join,
)
def test_nothing_is_set_if_the_server_of_a_script_cannot_hang(
    command: list[str], here: Path
) -> None:
    ended = launched(command, here)
    assert (ended.stderr, ended.stdout.splitlines()[0]) == ("", "cap none")


def test_a_script_that_sets_the_variable_gives_a_warning(here: Path) -> None:
    (here / "sets.sh").write_text(f"export NCCL_MAX_CTAS=all\n{SERVE}\n")
    ended = launched(["bash", "sets.sh"], here)
    assert "sets.sh sets NCCL_MAX_CTAS=all for the server" in ended.stderr
    assert ended.stdout.splitlines()[0] == "cap all"


def test_a_script_that_drops_the_variable_gives_a_warning(here: Path) -> None:
    (here / "unsets.sh").write_text(f"unset NCCL_MAX_CTAS\n{SERVE}\n")
    ended = launched(["bash", "unsets.sh"], here)
    assert "unsets.sh does not pass NCCL_MAX_CTAS on" in ended.stderr
    assert ended.stdout.splitlines()[0] == "cap none"


def test_a_script_may_test_the_variable(here: Path) -> None:
    # The script does something else if the variable is set.
    (here / "looks.sh").write_text(f"export NCCL_MAX_CTAS=${{NCCL_MAX_CTAS:-all}}\n{SERVE}\n")
    ended = launched(["bash", "looks.sh"], here)
    assert "set NCCL_MAX_CTAS=8" in ended.stderr
    assert ended.stdout.splitlines()[0] == "cap 8"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["env", "A=1", "./start.sh"], "vllm serve in ./start.sh (behind env, start.sh, exec)"),
        # The hosts of a cluster have the same files; another host and a container may not.
        (["srun", "./start.sh"], "vllm serve in ./start.sh (behind srun, start.sh, exec)"),
        (["sbatch", "-N2", "start.sh"], "vllm serve in start.sh (behind sbatch, start.sh, exec)"),
        (["xargs", "./start.sh"], "vllm serve in ./start.sh (behind xargs, start.sh, exec)"),
        (["ssh", "other", "./start.sh"], "none seen in the command"),
        (["srun", "docker", "run", "image", "./start.sh"], "none seen in the command"),
        (["sbatch", "gone.sh"], "none seen in the command"),
        (
            ["sh", "-c", "cd x; sh chain.sh"],
            "vllm serve in ./start.sh (behind sh, chain.sh, next.sh, start.sh, exec)",
        ),
    ],
)
def test_explain_says_in_which_script_the_server_is(
    command: list[str], shown: str, here: Path
) -> None:
    ended = subprocess.run(
        [SCRIPT, "explain", "--", *command],
        env={"PATH": f"{here}/bin:/usr/bin:/bin", "COLUMNS": "200"},
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown in ended.stdout


@pytest.mark.parametrize(
    "line",
    [
        'source "$(dirname "$0")/../vars.sh"',
        '. "$(dirname "${BASH_SOURCE[0]}")/../vars.sh"',
        'AT="$(cd -- "$( dirname -- "${BASH_SOURCE[0]}" )" &>z && pwd)"; cd /; . "$AT/../vars.sh"',
        "AT=$(dirname $(readlink -f $0)); . $AT/../vars.sh",
        'AT=$(dirname "$(realpath "${BASH_SOURCE[0]:-$0}")"); . "$AT"/../vars.sh',
        'cd "$(dirname "$0")/.." || exit 1; . ./vars.sh',
        'cd "$(dirname "$0")"; AT=$(cd .. && pwd -P); . "$AT/vars.sh"',
        '. "${0%/*}/../vars.sh"',
        '. "${BASH_SOURCE[0]%/*}/../vars.sh"',
        "AT=$PWD; AT=${0%/*}; . $AT/../vars.sh",
    ],
)
@pytest.mark.parametrize(
    "command", [["x/at.sh"], ["bash", "x/at.sh"], ["env", "-C", "x", "./at.sh"]]
)
def test_a_script_finds_the_files_beside_it(line: str, command: list[str], here: Path) -> None:
    (here / "x" / "at.sh").write_text(f"#!/bin/bash\n{line}\nvllm serve m $OPTIONS\n")
    (here / "x" / "at.sh").chmod(0o755)
    ended = launched(command, here)
    assert ended.stderr == "eplb-launch: set NCCL_MAX_CTAS=8: " + REASON
    assert ended.stdout.splitlines() == ["cap 8", f"serve m {HAZARD}"]


@pytest.mark.parametrize(
    "line",
    [
        '. "$(dirname "$(which vllm)")/../vars.sh"',
        '. "$(cd "$(dirname "$0")"; pwd)/../vars.sh"',
        '. "$(dirname "$0" "$0")/vars.sh"',
        '. "$(cd x)vars.sh"',
    ],
)
def test_a_file_at_a_place_that_is_not_known_leaves_the_server_incomplete(
    line: str, here: Path
) -> None:
    (here / "x" / "at.sh").write_text(f"{line}\nvllm serve m $OPTIONS\n")
    found = planned(["bash", "x/at.sh"], here)
    assert found.server is not None
    assert not found.server.args_known
    assert found.environment


def test_a_config_file_that_the_script_writes_first_does_not_stop_the_cap(here: Path) -> None:
    serve = f"vllm serve m {HAZARD} --config made.yaml"
    (here / "writes.sh").write_text(f"echo 'seed: 1' > made.yaml\n{serve}\n")
    for command in (["bash", "writes.sh"], ["sh", "-c", f"echo 'seed: 1' > made.yaml; {serve}"]):
        (here / "made.yaml").unlink(missing_ok=True)
        ended = launched(command, here)
        assert "set NCCL_MAX_CTAS=8" in ended.stderr
        assert ended.stdout.splitlines()[0] == "cap 8"
    # Without a script, nothing writes the file first.
    (here / "made.yaml").unlink()
    (warning,) = planned(serve.split(), here).warnings
    assert warning.code == "config-unreadable"


def warned(found: Plan) -> str:
    """Return the only warning of a plan that sets nothing: no server is seen."""
    assert found.server is None
    assert not found.environment
    (warning,) = found.warnings
    assert warning.code == NO_SERVER.code
    return warning.message.removeprefix(NO_SERVER.message)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("a", b"\x7fELF\2\1\1\0\0vllm serve m", "", id="a binary"),
        pytest.param("a", b"vllm serve m\n\0", "", id="a NUL byte"),
        pytest.param("a", b"#!/usr/bin/python3\nvllm serve m", "", id="of Python"),
        pytest.param("a", b"#!/usr/bin/env perl\nvllm serve m", "", id="of Perl"),
        pytest.param("a", b"#!/usr/bin/fish\nvllm serve m", "", id="of fish"),
        pytest.param("a", b"", "", id="empty"),
        pytest.param("a", b"#!/bin/sh\necho vllm serve m", "", id="that only prints it"),
        pytest.param("a", b"#!/bin/sh\n# vllm serve m\n", "", id="in a comment"),
        pytest.param(
            "a",
            b"#!/bin/sh\nvllm serve m\n" + b"#" * MAX_BYTES,
            "; ./a was not read (larger than 256 KiB)",
            id="too large",
        ),
        pytest.param(
            "a",
            b"#!/bin/sh\nset -e\n./a\n",
            "; ./a was not read (more than 3 scripts, one in another)",
            id="itself",
        ),
        pytest.param(
            "a",
            b"#!/bin/sh\nset -e\n. ./a\n",
            "; ./a was not read (more than 3 scripts, one in another)",
            id="sourcing itself",
        ),
    ],
)
def test_a_script_that_cannot_be_read_is_named_in_the_warning(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / name).chmod(0o755)
    assert warned(planned([f"./{name}"], tmp_path)) == said


def test_a_script_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(f"{START}\n".encode().ljust(MAX_BYTES, b"#"))
    assert planned(["sh", "./a"], tmp_path).environment


def test_scripts_that_are_too_large_together_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(f"{START}\n".encode().ljust(MAX_BYTES, b"#"))
    (tmp_path / "b").write_text("true\n./a\nsh a\n")
    assert warned(planned(["sh", "./b"], tmp_path)) == (
        "; a was not read (with others larger than 256 KiB)"
    )


def test_a_script_that_is_not_executable_is_read_only_behind_a_shell(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(START)
    assert warned(planned(["./a"], tmp_path)) == ""
    assert planned(["sh", "./a"], tmp_path).environment


def test_scripts_are_followed_three_levels_deep(tmp_path: Path) -> None:
    for number in range(MAX_LEVELS):
        (tmp_path / f"{number}").write_text(f"sh ./{number + 1}\n")
    (tmp_path / f"{MAX_LEVELS}").write_text(START)
    said = f"; ./{MAX_LEVELS} was not read (more than {MAX_LEVELS} scripts, one in another)"
    assert warned(planned(["sh", "./0"], tmp_path)) == said
    assert planned(["sh", "./1"], tmp_path).environment
    assert planned(["sh", "-c", "./1 || sh ./1"], tmp_path).environment


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o777)
    opened = []

    def write() -> None:
        with (tmp_path / "pipe").open("wb") as pipe:  # which waits for a reader
            opened.append(pipe.name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert warned(planned(["./pipe"], tmp_path)) == ""
        for words in (["sh", "./pipe"], ["sh", "-c", ". ./pipe"]):
            assert warned(planned(words, tmp_path)) == "; ./pipe was not read (not a regular file)"
        assert opened == []
    finally:
        (tmp_path / "pipe").open("rb").close()
        writer.join()
    assert opened


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "/dev/null", "/proc/self/mem", "/"])
def test_only_regular_files_are_read(name: str, tmp_path: Path) -> None:
    class Watched(type(DISK)):  # type: ignore[misc]
        def read(self, path: str, most: int) -> bytes:
            raise AssertionError(path, most)

    warned(planned(["bash", name], tmp_path, Watched()))
    warned(planned([name], tmp_path, Watched()))


def test_a_script_without_read_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(START)
    (tmp_path / "a").chmod(0o111)

    class Closed(type(DISK)):  # type: ignore[misc]
        def read(self, path: str, most: int) -> bytes:
            del most
            raise PermissionError(13, "Permission denied", path)

    assert warned(planned(["./a"], tmp_path, Closed())) == ""
    assert warned(planned(["sh", "./a"], tmp_path, Closed())) == (
        "; ./a was not read (Permission denied)"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["sh"],
        ["sh", "missing.sh"],
        ["sh", "-s", "start.sh"],
        ["./missing.sh"],
        ["sh", ""],
        [""],
        ["python3", "start.sh"],
        ["cat", "start.sh"],
        ["docker", "run", "image", "./start.sh"],
        ["ssh", "host", "./start.sh"],
        ["chroot", "/x", "/start.sh"],
        ["sh", "-c", "$WHERE/start.sh"],
        ["sh", "-c", "cd $(where) && ./start.sh"],
        ["sh", "a\0b"],
    ],
    ids=ascii,
)
def test_a_command_that_reads_no_script_gives_no_warning(command: list[str], here: Path) -> None:
    assert warned(planned(command, here)) == ""


def test_a_warning_names_at_most_four_scripts(tmp_path: Path) -> None:
    (tmp_path / "d\x1b[0m").mkdir()
    (tmp_path / "a").write_text(". ./d\x1b[0m\n" * 50)
    said = warned(planned(["sh", "a"], tmp_path))
    assert said.count("not a regular file") == MAX_NAMED
    assert "\x1b" not in said


def test_the_number_of_programs_looked_up_is_bounded(tmp_path: Path) -> None:
    looked: list[str] = []

    class Watched(type(DISK)):  # type: ignore[misc]
        def runs(self, path: str) -> bool:
            looked.append(path)
            return False

    (tmp_path / "a").write_text("".join(f"program-{number}\n" for number in range(MAX_LOOKUPS)))
    said = warned(planned(["sh", "./a"], tmp_path, Watched()))
    assert said == "; more programs than are looked for"
    assert len(looked) <= MAX_LOOKUPS


def test_a_script_that_starts_itself_is_bounded_work(tmp_path: Path) -> None:
    read: list[str] = []

    class Watched(type(DISK)):  # type: ignore[misc]
        def read(self, path: str, most: int) -> bytes:
            read.append(path)
            return DISK.read(path, most)

    (tmp_path / "a").write_text("sh ./a; . ./a\n" * 1000)
    warned(planned(["sh", "./a"], tmp_path, Watched()))
    assert len(read) < 50


def test_scripts_are_read_from_given_files() -> None:
    files = InMemory({"/app/start.sh": START, "/app/lib.sh": "true"})
    for command in (["./start.sh"], ["bash", "start.sh"], ["sh", "-c", "cd /app; ./start.sh"]):
        decided = plan(command, {}, vllm_version="0.16.0", directory="/app", files=files)
        assert decided.environment
        assert decided.server is not None
        assert decided.server.script.endswith("start.sh")
    assert not plan(["./start.sh"], {}, directory="/", files=files).environment


@pytest.mark.parametrize(
    "line",
    [
        "export A{0}=x && if a; then program-{0} --option value; fi\n",
        "program-{0} | ",
        "export A{0}=x; nice x\n",
        "program-{0} && ",
        "for A{0} in a b c; do x{0}; done\n",
        '. ./other; "$A{0}"\n',
    ],
)
def test_the_work_for_a_script_is_bounded(line: str, tmp_path: Path) -> None:
    script = "".join(line.format(number) for number in range(MAX_BYTES // len(line)))
    (tmp_path / "a").write_text(script[:MAX_BYTES])
    assert calls(planned, ["sh", "./a"], tmp_path) < 4_000_000


def test_a_sourced_library_of_1000_functions_is_followed(tmp_path: Path) -> None:
    line = 'f{0}() {{ if [ -n "$A{0}" ]; then echo "$1 $A{0}" | tr a b; fi; local x=$(date); }}\n'
    (tmp_path / "lib.sh").write_text("".join(line.format(number) for number in range(1000)))
    (tmp_path / "a").write_text(f". ./lib.sh\n{SERVE}\n")
    found = planned(["sh", "./a"], tmp_path)
    assert found.server is not None
    assert found.server.args_known
    (tmp_path / "a").write_text("# with --enable-eplb\n. ./lib.sh\nother-server --port 1\n")
    assert warned(planned(["sh", "./a"], tmp_path)) == ""


def test_a_server_after_more_servers_than_are_looked_at_gets_the_cap(tmp_path: Path) -> None:
    others = "".join(f"vllm serve m{number} &\n" for number in range(150))
    (tmp_path / "a").write_text(others + SERVE)
    assert planned(["sh", "./a"], tmp_path).environment == {"NCCL_MAX_CTAS": "8"}
    (tmp_path / "a").write_text("vllm serve m &\n" * 50 + "vllm serve m")
    assert planned(["sh", "./a"], tmp_path).environment == {}
