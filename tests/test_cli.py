"""The command line before "--": options, help, usage errors, completion, what is said and when."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from typing import IO, TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from eplb_launch import __version__, cli, launch_options

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
EXPOSED = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
]
SAID = (
    "eplb-launch: set NCCL_MAX_CTAS=8: async EPLB with DeepEP low-latency "
    "(data_parallel_size=8, vLLM 0.16.0)\n"
)
V16 = ["--vllm-version", "0.16.0"]


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """Return a folder with a `vllm` that prints the variable."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "vllm"
    program.write_text('#!/bin/sh\necho "NCCL_MAX_CTAS=${NCCL_MAX_CTAS-unset}"\n')
    program.chmod(0o755)
    return folder


def start(
    *words: str, path: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words],
        env={"PATH": f"{path}:/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "80", **environ},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_says_what_it_sets_once(bin_folder: Path) -> None:
    done = start(*V16, "--", *EXPOSED, path=bin_folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "NCCL_MAX_CTAS=8\n", SAID)


def test_a_launcher_behind_the_launcher_says_nothing(bin_folder: Path) -> None:
    inner = [SCRIPT, *V16, "--verbose", "--", *EXPOSED]
    done = start(*V16, "--", *inner, path=bin_folder)
    assert done.stdout == "NCCL_MAX_CTAS=8\n"
    assert done.stderr.count("set NCCL_MAX_CTAS=8") == 1


NOTHING_TO_DO = {
    "one condition missing": [*EXPOSED, "--no-enable-eplb"],
    "vLLM that starts no engine": ["vllm", "bench", "serve"],
    "the same behind a wrapper": ["env", "A=1", "vllm", "chat"],
    "the same in a shell": ["sh", "-c", "exec vllm --version"],
}


@pytest.mark.parametrize("command", NOTHING_TO_DO.values(), ids=NOTHING_TO_DO)
def test_says_nothing_when_there_is_nothing_to_do(bin_folder: Path, command: list[str]) -> None:
    for options in ([], ["--strict"], ["--quiet"], V16):
        done = start(*options, "--", *command, path=bin_folder)
        assert (done.returncode, done.stderr) == (0, "")


UNSEEN = (
    "no vLLM server seen in the command; nothing set; "
    "put eplb-launch in front of `vllm serve` itself\n"
)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["echo", "x"], id="a program"),
        pytest.param(["bash", "-c", "echo x"], id="a shell string"),
        pytest.param(["./start.sh"], id="a script"),
        pytest.param(["bash", "start.sh"], id="a script for a shell"),
        pytest.param(["python3", "serve.py"], id="a script for Python"),
    ],
)
def test_says_that_no_server_is_seen(tmp_path: Path, command: list[str]) -> None:
    start_sh, serve = tmp_path / "start.sh", tmp_path / "serve.py"
    start_sh.write_text("#!/bin/sh\necho x\n")
    start_sh.chmod(0o755)
    serve.write_text("print('x')\n")

    def run(*options: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [SCRIPT, *options, "--", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert run() == (0, "x\n", f"eplb-launch: warning: {UNSEEN}")
    assert run("--quiet") == (0, "x\n", "")
    for options in (["--strict"], ["--strict", "--quiet"]):
        assert run(*options) == (125, "", f"eplb-launch: not started (--strict): {UNSEEN}")


def test_says_nothing_where_the_value_stays(bin_folder: Path) -> None:
    done = start(*V16, "--", *EXPOSED, path=bin_folder, NCCL_MAX_CTAS="4")
    assert (done.stdout, done.stderr) == ("NCCL_MAX_CTAS=4\n", "")


def test_verbose_says_why_nothing_was_set(bin_folder: Path) -> None:
    done = start("--verbose", "--", "echo", "x", path=bin_folder)
    assert done.stdout == "x\n"
    assert done.stderr == (
        "eplb-launch: nothing set: no vLLM server seen in the command\n"
        f"eplb-launch: warning: {UNSEEN}"
    )
    done = start("--verbose", "--", "vllm", "--version", path=bin_folder)
    assert done.stderr == "eplb-launch: nothing set: the vLLM command starts no engine\n"
    done = start("--verbose", *V16, "--", *EXPOSED, "--no-enable-eplb", path=bin_folder)
    assert done.stderr == (
        "eplb-launch: nothing set: no async EPLB with DeepEP low-latency: enable_eplb does not "
        "hold (enable_eplb=False, argument 11: --no-enable-eplb)\n"
    )


def test_quiet_says_nothing_and_sets_all_the_same(bin_folder: Path) -> None:
    done = start("--quiet", *V16, "--", *EXPOSED, path=bin_folder)
    assert (done.stdout, done.stderr) == ("NCCL_MAX_CTAS=8\n", "")


TROUBLE = {
    "refused": (["--data-parallel", "8"], "--data-parallel is ambiguous"),
    "no file": (["--config", "missing.yaml"], "the --config file is unreadable: "),
    "bad JSON": (["--eplb-config", "{"], "--eplb-config is not valid JSON"),
    "deep JSON": (["--eplb-config", "[" * 100_000], "--eplb-config is nested too deeply"),
}


@pytest.mark.parametrize(("words", "message"), TROUBLE.values(), ids=TROUBLE)
def test_trouble_is_one_line_and_the_command_runs_unchanged(
    bin_folder: Path, words: list[str], message: str
) -> None:
    command = ["vllm", "serve", "m", "--api-key", "s3cr3t", *words]
    done = start("--", *command, path=bin_folder)
    assert (done.returncode, done.stdout) == (0, "NCCL_MAX_CTAS=unset\n")
    assert done.stderr.startswith(f"eplb-launch: warning: {message}")
    assert done.stderr.count("\n") == 1
    assert "s3cr3t" not in done.stderr
    assert start("--quiet", "--", *command, path=bin_folder).stderr == ""
    for options in (["--strict"], ["--strict", "--quiet"]):
        done = start(*options, "--", *command, path=bin_folder)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"eplb-launch: not started (--strict): {message}")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["raise RuntimeError('s3cr3t')", "raise SystemExit(3)", "def loads(", "x = 1"]
)
def test_a_failure_of_ours_is_one_line_and_the_command_runs_unchanged(
    tmp_path: Path, bin_folder: Path, text: str
) -> None:
    """With a module that stands in the way of the real one: what a bug of ours would look like."""
    folder = tmp_path / "shadow"
    folder.mkdir()
    (folder / "json.py").write_text(text)
    command = ["vllm", "serve", "m", "--eplb-config", "{}"]
    done = start("--", *command, path=bin_folder, PYTHONPATH=str(folder))
    assert (done.returncode, done.stdout) == (0, "NCCL_MAX_CTAS=unset\n")
    assert done.stderr.startswith("eplb-launch: warning: internal error, nothing set: ")
    assert done.stderr.count("\n") == 1
    assert "s3cr3t" not in done.stderr
    done = start("--strict", "--", *command, path=bin_folder, PYTHONPATH=str(folder))
    assert (done.returncode, done.stdout) == (125, "")


@pytest.mark.parametrize("text", ["raise ImportError('s3cr3t')", "def main(", "main = 1"])
def test_a_broken_installation_is_one_line_and_the_command_runs_unchanged(
    tmp_path: Path, bin_folder: Path, text: str
) -> None:
    package = tmp_path / "shadow" / "eplb_launch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    shadow = str(tmp_path / "shadow")
    done = start("--", "vllm", "serve", "m", path=bin_folder, PYTHONPATH=shadow)
    assert (done.returncode, done.stdout) == (0, "NCCL_MAX_CTAS=unset\n")
    assert done.stderr.startswith("eplb-launch: warning: cannot be loaded (")
    assert done.stderr.count("\n") == 1
    done = start("--strict", "--", "vllm", "serve", "m", path=bin_folder, PYTHONPATH=shadow)
    assert (done.returncode, done.stdout) == (125, "")


RIGHT_FORM = "eplb-launch [OPTIONS] -- vllm serve MODEL [ARGUMENTS]..."
USAGE = {
    "nothing": ([], "There is no command to start."),
    "no command": (["--"], "There is no command to start."),
    "options and no command": (["--strict", "--"], "There is no command to start."),
    "only options": (["--verbose"], "There is no command to start."),
    "no --": (["vllm", "serve", "m"], '"--" is missing before the command.'),
    "no -- after options": (["--strict", "vllm", "serve"], '"--" is missing before the command.'),
    "an option of the server": (["-dp", "8", "--", "vllm"], "-d"),
    "an unknown option": (["--no-such", "--", "true"], "--no-such"),
    "no release": (["--vllm-version", "--", "true"], "--vllm-version"),
    "a wrong release": (["--vllm-version", "new", "--", "true"], "'new' is not a vLLM release"),
    "an empty release": (["--vllm-version=", "--", "true"], "'' is not a vLLM release"),
}


@pytest.mark.parametrize(("words", "message"), USAGE.values(), ids=USAGE)
def test_usage_errors(words: list[str], message: str) -> None:
    done = start(*words, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    if not message.startswith("-"):  # what Click finds, it says as it likes
        assert "eplb-launch [OPTIONS] -- CMD [ARGUMENTS]..." in done.stderr
    assert "Traceback" not in done.stderr
    if "-- " in message or "command" in message:
        assert RIGHT_FORM in done.stderr


def test_help_and_version() -> None:
    done = start("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--strict", "--quiet", "--verbose", "--vllm-version", "--version", "--help"):
        assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout
    done = start("--version")
    assert (done.returncode, done.stdout) == (0, f"eplb-launch {__version__}\n")


def test_help_after_the_dashes_is_the_commands() -> None:
    done = start("--quiet", "--", "echo", "--help", "--version", "--strict")
    assert (done.returncode, done.stdout, done.stderr) == (0, "--help --version --strict\n", "")


@pytest.mark.parametrize(
    ("shell", "words"),
    {
        "bash": {"COMP_WORDS": "eplb-launch --str", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "eplb-launch --str"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "eplb-launch --str",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }.items(),
)
def test_completion(shell: str, words: dict[str, str]) -> None:
    done = start(path=None, _EPLB_LAUNCH_COMPLETE=f"complete_{shell}", **words)
    assert "--strict" in done.stdout
    assert "--quiet" not in done.stdout


# What is typed, up to the cursor, and a word that is completed to; None: to nothing.
TYPED = [
    ("eplb-launch --str", "--strict"),
    ("eplb-launch exp", "explain"),
    ("eplb-launch --strict expl", "explain"),
    ("eplb-launch ", "explain"),
    ("eplb-launch explain --js", "--json"),
    ("eplb-launch env --format syst", "systemd"),
    ("eplb-launch -- vllm se", None),
    ("eplb-launch -- ", None),
    ("eplb-launch -- e", None),
    ("eplb-launch -- --str", None),
    ("eplb-launch --strict -- vllm --quiet", None),
    ("eplb-launch explain -- vllm se", None),
    ("eplb-launch explain -- --js", None),
    ("eplb-launch env --format shell -- ", None),
    ("eplb-launch check -- a", None),
    ("eplb-launch vllm se", None),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="takes bash")
@pytest.mark.parametrize(("typed", "expected"), TYPED, ids=[typed for typed, _ in TYPED])
def test_completion_in_bash(typed: str, expected: str | None) -> None:
    code = start(
        "--show-completion", SHELL="/bin/bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    if code.returncode != 0:
        code = start("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    words = typed.split()
    if typed.endswith(" "):
        words.append("")
    press = (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); read -r _ _ _ _ name _ '
        '<<< "$(complete -p eplb-launch)"; "$name" eplb-launch; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{code.stdout}\n{press}", "bash", *words],
        env={"PATH": f"{os.path.dirname(SCRIPT)}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    found = done.stdout.split()
    assert expected in found if expected else found == []


def test_a_completion_that_fails_says_nothing() -> None:
    words = {"COMP_WORDS": "eplb-launch x", "COMP_CWORD": "no number"}
    done = start(path=None, _EPLB_LAUNCH_COMPLETE="complete_bash", **words)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", "")


ERRORS = {
    "RuntimeError": "RuntimeError('s3cr3t')",
    "RecursionError": "RecursionError('s3cr3t')",
    "EOFError": "EOFError('s3cr3t')",
    "BrokenPipeError": "BrokenPipeError(32, 'Broken pipe', 's3cr3t')",
    "OSError": "OSError('s3cr3t')",
}
# What is replaced by a function that raises, for a bug of ours, and the sub-command that meets it.
FAILING = {
    "explain": ("plans.plan", ["explain", "--", "vllm", "serve", "m"]),
    "explain, shown": ("render.explain.show", ["explain", "--", "vllm", "serve", "m"]),
    "env": ("plans.plan", ["env", "--", "vllm", "serve", "m"]),
    "ps": ("ps.processes.scan", ["ps"]),
    "ps of a pid": ("ps.processes.scan", ["ps", "1"]),
    "check": ("check.command.check", ["check", "."]),
    "check, judging": ("check.command.Review.status", ["check", "."]),
    "the app": ("cli.app", ["--version"]),
    "its options": ("vllm.releases.minor_release", ["--vllm-version", "1", "explain", "--", "x"]),
    "its help": ("cli.Group.parse_args", ["--help"]),
}


@pytest.mark.parametrize(("place", "words"), FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("error", ERRORS)
def test_a_failure_of_ours_is_125_in_every_sub_command(
    tmp_path: Path, place: str, words: list[str], error: str
) -> None:
    owner, _, name = f"eplb_launch.{place}".rpartition(".")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib, pkgutil\n"
        f"def fail(*_, **__): raise {ERRORS[error]}\n"
        f"setattr(pkgutil.resolve_name({owner!r}), {name!r}, fail)\n"
    )
    done = subprocess.run(
        [SCRIPT, *words],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("eplb-launch: ")
    assert done.stderr.count("\n") == 1
    assert "s3cr3t" not in done.stderr
    if error == "RuntimeError":
        assert done.stderr == "eplb-launch: internal error: RuntimeError at sitecustomize.py:2\n"


SAYING = {
    "ps": ["ps", "1"],
    "ps in JSON": ["ps", "--json", "1"],
    "check": ["check", "."],
    "check in JSON": ["check", "--json", "."],
    "explain": ["explain", "--", "vllm", "serve", "m"],
    "explain in JSON": ["explain", "--json", "--", "vllm", "serve", "m"],
    "env": ["env", "--format", "json", "--", "vllm", "serve", "m"],
    "help": ["--help"],
    "help of check": ["check", "--help"],
    "version": ["--version"],
}


@pytest.mark.parametrize("words", SAYING.values(), ids=SAYING)
def test_a_stdout_that_takes_nothing(tmp_path: Path, words: list[str]) -> None:
    """Without PYTHONUNBUFFERED: what Python itself finds at its end would be the status 120."""

    def run(stdout: IO[bytes] | int) -> tuple[int, str]:
        done = subprocess.run(
            [SCRIPT, *words],
            env={"PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stderr

    with open("/dev/full", "wb") as full:
        assert run(full) == (125, "eplb-launch: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    status, said = run(writer)
    os.close(writer)
    assert (status, said) == (-signal.SIGPIPE, "")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", SCRIPT, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        check=False,
    )
    unknown = b"eplb-launch: 1 of 1 unknown: 1\n" if words[0] == "ps" else b""
    assert (closed.returncode, closed.stderr) == (0, unknown)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_calls_the_command(shell: str) -> None:
    done = start(
        "--show-completion", SHELL=f"/bin/{shell}", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    if done.returncode != 0:  # the option takes the shell where it cannot be detected
        done = start("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"_EPLB_LAUNCH_COMPLETE=complete_{shell}" in done.stdout


FORMS = [
    [],
    ["--strict"],
    ["--quiet"],
    ["--verbose"],
    ["--vllm-version", "0.16.0"],
    ["--vllm-version=0.17.1+cu129"],
]


def test_the_short_cut_reads_the_options_as_the_app_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(
        cli, "run", lambda command, **options: seen.update(options, command=command)
    )
    unset = {"strict": False, "quiet": False, "verbose": False, "vllm_version": None}
    for forms in itertools.product(FORMS, repeat=3):
        words = [word for form in forms for word in form]
        options = launch_options.read([*words, "--", "true"])
        assert options is not None
        seen.clear()
        result = CliRunner().invoke(cli.app, words, obj=["true"])
        assert result.exit_code == 0, result.output
        known = {name: value for name, value in seen.items() if name in unset}
        assert known == {**unset, **options}
        assert seen["command"] == ["true"]


@pytest.mark.parametrize(
    "words",
    [
        ["--strict"],
        ["--strict", "--"],
        ["--vllm-version"],
        ["--vllm-version", "--", "true"],
        ["--vllm-version=x", "--", "true"],
        ["--help", "--", "true"],
        ["--version", "--", "true"],
        ["--stric", "--", "true"],
        ["explain", "--", "true"],
        ["true"],
        [],
    ],
)
def test_the_short_cut_leaves_all_else_to_the_app(words: list[str]) -> None:
    assert launch_options.read(words) is None


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eplb_launch", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"eplb-launch {__version__}\n"
