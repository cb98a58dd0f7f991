"""The command line before "--": options, help, usage errors and messages."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import sysconfig
from typing import IO, TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from eplb_launch import __version__, cli, launch_options
from eplb_launch.launch_options import SUB_COMMANDS
from eplb_launch.render.env import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

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


def test_says_nothing_if_the_value_stays(bin_folder: Path) -> None:
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
        "eplb-launch: nothing set: enable_eplb does not hold "
        "(enable_eplb=False, argument 11: --no-enable-eplb)\n"
    )


def test_quiet_says_nothing_and_sets_all_the_same(bin_folder: Path) -> None:
    done = start("--quiet", *V16, "--", *EXPOSED, path=bin_folder)
    assert (done.stdout, done.stderr) == ("NCCL_MAX_CTAS=8\n", "")


TROUBLE = {
    "refused": (["--data-parallel", "8"], "--data-parallel is ambiguous"),
    "no file": (["--config", "missing.yaml"], "the --config file is unreadable: "),
    "bad JSON": (["--eplb-config", "{"], "--eplb-config is not a JSON object"),
    "deep JSON": (["--eplb-config", "[" * 100_000], "--eplb-config is not a JSON object"),
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
def test_an_internal_error_is_one_line_and_the_command_starts_unchanged(
    tmp_path: Path, bin_folder: Path, text: str
) -> None:
    """A module that shadows the real one fails here, as a bug of the launcher would."""
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


FORM = "The right form is: eplb-launch"
NONE = f"There is no command to start. {FORM} -- vllm serve MODEL"
MISSING = f'"--" is missing before the command. {FORM}'
NO_RELEASE = "--vllm-version must be a vLLM release such as 0.16.0, not "
NO_COMMAND = 'takes no command: remove "--" and everything after it'
NO_PATHS = "There is nothing to check. Name files or folders: eplb-launch check deploy/"
# A command line and its whole message.
USAGE = {
    "nothing": ([], NONE),
    "no command": (["--"], NONE),
    "options and no command": (["--strict", "--"], NONE),
    "only options": (["--verbose"], NONE),
    "no --": (["vllm", "serve", "m"], f"{MISSING} -- vllm serve m"),
    "no -- after options": (["--strict", "vllm", "serve"], f"{MISSING} --strict -- vllm serve"),
    "no --, and options of the server": (
        ["vllm", "serve", "a b", "-dp", "8", "--api-key", "s3cr3t"],
        f"{MISSING} -- vllm serve 'a b' ...",
    ),
    "no -- for a wrapper with one": (
        ["numactl", "--", "vllm", "serve", "m"],
        f"{MISSING} -- numactl ...",
    ),
    "no -- after explain": (
        ["explain", "vllm", "serve", "m"],
        f"{MISSING} explain -- vllm serve m",
    ),
    "no -- after options of explain": (
        ["--strict", "explain", "--json", "vllm", "serve", "m", "-dp", "8"],
        f"{MISSING} --strict explain --json -- vllm serve m ...",
    ),
    "no -- after env": (["env", "X=s3cr3t", "vllm"], f"{MISSING} env -- ..."),
    "explain and no command": (
        ["explain"],
        f"There is no command to look at. {FORM} explain -- vllm serve MODEL",
    ),
    "env and no command": (
        ["env", "--"],
        f"There is no command to look at. {FORM} env -- vllm serve MODEL",
    ),
    "nearly explain": (
        ["explian", "--", "vllm", "serve", "m", "--api-key", "s3cr3t"],
        "'explian' is not a sub-command. Did you mean: eplb-launch explain -- vllm serve m ...",
    ),
    "nearly check": (
        ["--strict", "chek", "x"],
        "'chek' is not a sub-command. Did you mean: eplb-launch --strict check x",
    ),
    "a wrong release": (["--vllm-version", "new", "--", "true"], f"{NO_RELEASE}'new'"),
    "an empty release": (["--vllm-version=", "--", "true"], f"{NO_RELEASE}''"),
    "a wrong release of explain": (
        ["explain", "--vllm-version", "new", "--", "true"],
        f"{NO_RELEASE}'new'",
    ),
    "a wrong release of check": (
        ["check", "--vllm-version=0.1.dev5", "."],
        f"{NO_RELEASE}'0.1.dev5'",
    ),
    "a wrong release before check": (["--vllm-version", "new", "check", "."], f"{NO_RELEASE}'new'"),
    "ps of a name": (
        ["ps", "abc"],
        "'abc' is not a process id. To see all servers: eplb-launch ps",
    ),
    "ps of a command": (["ps", "--", "vllm"], f"ps {NO_COMMAND}"),
    "no paths": (
        ["check"],
        f"{NO_PATHS}; or - for stdin: helm template CHART | eplb-launch check -",
    ),
    "check of a command": (["check", ".", "--", "vllm"], f"check {NO_COMMAND}"),
    "a style that is none": (
        ["check", "--format", "xml", "."],
        "--format must be one of text, json, github or sarif, not 'xml'",
    ),
    "a format that is none": (
        ["env", "--format", "xml", "--", "true"],
        f"--format must be one of {', '.join([*FORMATS][:-1])} or slurm, not 'xml'",
    ),
}


def typed(words: list[str]) -> Result:
    """Run a command line in this process, as `cli.main` does."""
    at = words.index("--") if "--" in words else len(words)
    return CliRunner().invoke(cli.app, words[:at], obj=words[at + 1 :], prog_name=cli.PROGRAM)


@pytest.mark.parametrize(("words", "message"), USAGE.values(), ids=USAGE)
def test_a_usage_error_says_what_to_type(words: list[str], message: str) -> None:
    done = typed(words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(f" {message}\n")
    assert "[OPTIONS]" in done.stderr


# Click words these messages. Each must contain the option that was typed.
FOUND_BY_CLICK = {
    "an option of the server": ["-dp", "8", "--", "vllm"],
    "an unknown option": ["--no-such", "--", "true"],
    "no release": ["--vllm-version", "--", "true"],
    "an unknown option of check": ["check", "--no-such", "."],
}


@pytest.mark.parametrize("words", FOUND_BY_CLICK.values(), ids=FOUND_BY_CLICK)
def test_usage_errors_that_click_finds(words: list[str]) -> None:
    done = typed(words)
    assert (done.exit_code, done.stdout) == (2, "")
    option = next(word for word in words if word.startswith("-"))
    assert option[:2] in done.stderr


def test_a_command_without_dashes_is_shown_with_them() -> None:
    done = start("vllm", "serve", "m")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f" {MISSING} -- vllm serve m\n")


PAGES: dict[str, list[str]] = {"the launcher": [], **{name: [name] for name in SUB_COMMANDS}}


@pytest.mark.parametrize("words", PAGES.values(), ids=PAGES)
def test_each_page_of_help_fits_80_columns_and_has_a_short_option(words: list[str]) -> None:
    done = typed([*words, "--help"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert typed([*words, "-h"]).stdout == done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []
    assert "\x1b" not in done.stdout
    # The help shows no Python types: <bool>, <list[str]>.
    assert "<" not in done.stdout


@pytest.mark.parametrize("words", PAGES.values(), ids=PAGES)
def test_the_help_of_each_option_is_a_sentence(words: list[str]) -> None:
    command: Any = typer.main.get_command(cli.app)
    if words:
        command = command.commands[words[0]]
    ours = [option for option in command.params if not option.name.endswith("_completion")]
    said = {option.name: option.help for option in ours if not option.hidden}
    assert said
    for text in said.values():
        assert text[0].isupper()
        assert text.endswith(".")


def test_help_and_version_are_printed() -> None:
    done = start("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--strict", "--quiet", "--verbose", "--vllm-version", "--version", "--help"):
        assert option in done.stdout
    done = start("--version")
    assert (done.returncode, done.stdout) == (0, f"eplb-launch {__version__}\n")


def test_help_after_the_dashes_is_the_commands() -> None:
    done = start("--quiet", "--", "echo", "--help", "--version", "--strict")
    assert (done.returncode, done.stdout, done.stderr) == (0, "--help --version --strict\n", "")


ERRORS = {
    "RuntimeError": "RuntimeError('s3cr3t')",
    "RecursionError": "RecursionError('s3cr3t')",
    "EOFError": "EOFError('s3cr3t')",
    "BrokenPipeError": "BrokenPipeError(32, 'Broken pipe', 's3cr3t')",
    "OSError": "OSError('s3cr3t')",
}
# A function that raises here, as a bug of ours would, and the sub-command that calls it.
FAILING = {
    "explain": ("plans.plan", ["explain", "--", "vllm", "serve", "m"]),
    "explain, shown": ("render.explain.show", ["explain", "--", "vllm", "serve", "m"]),
    "env": ("plans.plan", ["env", "--", "vllm", "serve", "m"]),
    "ps": ("ps.processes.scan", ["ps"]),
    "ps of a pid": ("ps.processes.scan", ["ps", "1"]),
    "check": ("check.command.check", ["check", "."]),
    "check, printing": ("check.command.print_text", ["check", "."]),
    "the app": ("cli.app", ["--version"]),
    "its options": ("vllm.releases.minor_release", ["--vllm-version", "1", "explain", "--", "x"]),
    "its help": ("cli.Group.parse_args", ["--help"]),
}


@pytest.mark.parametrize(("place", "words"), FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("error", ERRORS)
def test_an_internal_error_is_125_in_every_sub_command(
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
        where = "RuntimeError at sitecustomize.py:2"
        assert done.stderr == f"eplb-launch: internal error: {where}; please report this bug\n"


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
def test_a_full_stdout_is_125_and_a_closed_pipe_is_quiet(tmp_path: Path, words: list[str]) -> None:
    """Without PYTHONUNBUFFERED, Python would flush at exit, fail, and exit with 120."""

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
        env={"PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        check=False,
    )
    unknown = b"eplb-launch: 1 of 1 unknown: 1\n" if words[0] == "ps" else b""
    assert (closed.returncode, closed.stderr) == (0, unknown)


FORMS = [
    [],
    ["--strict"],
    ["--quiet"],
    ["--verbose"],
    ["--vllm-version", "0.16.0"],
    ["--vllm-version=0.17.1+cu129"],
    ["--max-ctas", "4"],
]


def test_a_plain_launch_reads_its_options_as_typer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(
        cli, "run", lambda command, **options: seen.update(options, command=command)
    )
    unset = {"strict": False, "quiet": False, "verbose": False}
    for forms in itertools.product(FORMS, repeat=2):
        words = [word for form in forms for word in form]
        options = launch_options.read([*words, "--", "true"])
        assert options is not None
        seen.clear()
        result = CliRunner().invoke(cli.app, words, obj=["true"])
        assert result.exit_code == 0, result.output
        assert seen == {**unset, **options, "command": ["true"]}


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
def test_typer_reads_every_other_command_line(words: list[str]) -> None:
    assert launch_options.read(words) is None


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eplb_launch", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"eplb-launch {__version__}\n"
