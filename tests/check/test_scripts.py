"""`eplb-launch check` on shell scripts: the server, and the commands around it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from eplb_launch.check import images as engines
from eplb_launch.check import scripts
from eplb_launch.check.command import check
from eplb_launch.plans import plan

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch.check.model import Finding

RULE = "-dp 4 --enable-eplb --eplb-config.use_async=true --all2all-backend deepep_low_latency"
SERVE = f"vllm serve m {RULE}"
RUN = "docker run --gpus all"
IMAGE = "vllm/vllm-openai:v0.16.0"
EXPOSED = ("exposed", "no-limit")
SET = ("ok", "environment")
WRAPPED = ("ok", "eplb-launch")
UNREAD = ("unknown", "environment-not-read")
DOUBT = ("unknown", "limit-not-known")
MISUSED = ("exposed", "launcher-misused")


def findings(folder: Path, script: str, release: str | None = "0.16.0") -> list[Finding]:
    path = folder / "start.sh"
    path.write_text(script)
    review = check([str(path)], release)
    assert not review.troubles
    return list(review.findings)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        # Programs that are not known before the script runs.
        ('"$VLLM_BIN" serve m ' + RULE, [EXPOSED]),
        (f'"$VENV/bin/vllm" serve m {RULE}', [EXPOSED]),
        (f"$(which vllm) serve m {RULE}", [EXPOSED]),
        (f"`which vllm` serve m {RULE}", [EXPOSED]),
        (f'V=$(command -v vllm)\nexec "$V" serve m {RULE}', [EXPOSED]),
        (f'"$PYTHON" -m vllm.entrypoints.openai.api_server --model m {RULE}', [EXPOSED]),
        ('"$VLLM_BIN" serve m', [("ok", "not-needed")]),
        ('"$TOOL" serve-files --port 1', []),
        # Files and output that the shell reads first.
        (f"source ./env.sh\n{SERVE}", [UNREAD]),
        (f". /etc/vllm.env\n{SERVE}", [UNREAD]),
        (f'source "$HERE/env.sh"\n{SERVE}', [UNREAD]),
        (f'eval "$(vault login -token=secret)"\n{SERVE}', [UNREAD]),
        (f"source ./env.sh\nexport NCCL_MAX_CTAS=8\n{SERVE}", [SET]),
        (f"source ./env.sh\neplb-launch -- {SERVE}", [WRAPPED]),
        (f"{SERVE}\nsource ./after.sh", [EXPOSED]),
        (f"source /opt/venv/bin/activate\n{SERVE}", [EXPOSED]),
        (f"source /opt/conda/etc/profile.d/conda.sh\n{SERVE}", [EXPOSED]),
        (f'eval "$(conda shell.bash hook)"\n{SERVE}', [EXPOSED]),
        ("source ./env.sh\nvllm serve m", [("ok", "not-needed")]),
        # The output of `eplb-launch env`.
        (f'eval "$(eplb-launch env -- {SERVE})"\n{SERVE}', [SET]),
        (f"eval `eplb-launch env -- {SERVE}`\n{SERVE}", [SET]),
        (f"source <(eplb-launch env --format shell -- {SERVE})\nexec {SERVE}", [SET]),
        (f'eval "$(eplb-launch env -- \\\n  {SERVE} -tp $1)"\n{SERVE} -tp $1', [SET]),
        (f'eval "$(eplb-launch env -- {SERVE} -dp $1)"\n{SERVE} -dp $1', [SET]),
        (f'eval "$(eplb-launch env -- {SERVE} -dp $1)"\n{SERVE} -dp $2', [("unknown", None)]),
        (f'eval "$(eplb-launch env -- vllm serve m)"\n{SERVE}', [EXPOSED]),
        (f'eval "$(eplb-launch env --format docker -- {SERVE})"\n{SERVE}', [UNREAD]),
        (f"eplb-launch env -- {SERVE} > e\nsource e\n{SERVE}", [UNREAD]),
        (f"eplb-launch explain -- {SERVE}\neplb-launch check .\neplb-launch ps", []),
        # The launcher without "--", or with options that it refuses.
        (f"eplb-launch {SERVE}", [MISUSED]),
        (f"python3 -m eplb_launch --max-ctas 4 {SERVE}", [MISUSED]),
        (f"python3 -m eplb_launch --max-ctas 4 -- {SERVE}", [WRAPPED]),
        (f"python3 /opt/eplb-launch.pyz -- {SERVE}", [WRAPPED]),
        (f"uvx eplb-launch -- {SERVE}", [WRAPPED]),
        # The launcher with options.
        (f"eplb-launch --max-ctas 4 -- {SERVE}", [WRAPPED]),
        (f"eplb-launch --max-ctas fit --sms 132 -- {SERVE}", [WRAPPED]),
        (f"eplb-launch --max-ctas $N --strict -- {SERVE}", [WRAPPED]),
        (f"eplb-launch --max-ctas 64 -- {SERVE}", [("exposed", "max-ctas-too-high")]),
        (f"eplb-launch --max-ctas 64 -- {SERVE} -dp $1", [("unknown", "max-ctas-too-high")]),
        ("eplb-launch --max-ctas 64 -- vllm serve m", [("ok", "not-needed")]),
        (f"eplb-launch --max-ctas zero -- {SERVE}", [MISUSED]),
        (f"eplb-launch --vllm-version 0.16.0 -- {SERVE}", [WRAPPED]),
        (f"eplb-launch --vllm-version 0.24.0 -- {SERVE}", [("ok", "not-needed")]),
        # Words that may be anything.
        ('vllm serve m -dp 8 "$FLAG"', [("unknown", "settings-not-known")]),
        ('vllm serve m -dp 8 -ep "$(cat flags)"', [("unknown", "settings-not-known")]),
        ('vllm serve "$MODEL" -dp 8 --port "$PORT"', [("ok", "not-needed")]),
        (f'{SERVE} "$FLAG"', [EXPOSED]),
        # A cap that is not known, and other variables.
        (
            f'export NCCL_MAX_CTAS=8\n[ "$X" ] && export NCCL_MIN_NCHANNELS=32\n{SERVE}',
            [("exposed", "min-nchannels")],
        ),
        (f'export NCCL_MAX_CTAS=8\n[ "$X" ] && export NCCL_MIN_NCHANNELS=$Y\n{SERVE}', [DOUBT]),
        (f"export NCCL_MIN_P2P_NCHANNELS=$N\neplb-launch -- {SERVE}", [DOUBT]),
        ("export NCCL_MIN_P2P_NCHANNELS=$N\nvllm serve m", [("ok", "not-needed")]),
        (f"export $(grep -v '#' .env | xargs)\n{SERVE}", [UNREAD]),
        (f"export HOST=$(hostname)\n{SERVE}", [EXPOSED]),
        (f"env $(cat .env) {SERVE}", [UNREAD]),
        (f"env HOST=$(hostname) {SERVE}", [EXPOSED]),
        (f"export NCCL_MAX_CTAS=8\ndeclare +x NCCL_MAX_CTAS\n{SERVE}", [EXPOSED]),
        (f"export NCCL_MAX_CTAS=8\nexport -n NCCL_MAX_CTAS\n{SERVE}", [EXPOSED]),
        # Operands that are not known.
        (f'for h in $(cat hosts); do\n  ssh $h "{SERVE}" &\ndone', [EXPOSED]),
        (f'ssh -p 22 $h "{SERVE}"', [EXPOSED]),
        (f"ssh $h {SERVE}", [EXPOSED]),
        (f"ssh $h 'NCCL_MAX_CTAS=8 {SERVE}'", [SET]),
        (f'ssh $h "export NCCL_MAX_CTAS=8; {SERVE}"', [SET]),
        (f"NCCL_MAX_CTAS=8 ssh $h '{SERVE}'", [EXPOSED]),
        (f"NCCL_MAX_CTAS=8 sudo {SERVE}", [("exposed", "variable-dropped")]),
        (f'{RUN} $IMAGE bash -c "{SERVE}"', [EXPOSED]),
        (f"{RUN} $OPTIONS $IMAGE {SERVE}", [EXPOSED]),
        (f"{RUN} $IMAGE --model m {RULE}", [EXPOSED]),
        (f"{RUN} -e NCCL_MAX_CTAS=8 $IMAGE --model m {RULE}", [SET]),
        # Runners of Python.
        (f"uv run {SERVE}", [EXPOSED]),
        (f"uv run --project /app eplb-launch -- {SERVE}", [WRAPPED]),
        ("VIRTUAL_ENV=/v uv run vllm serve m", [("ok", "not-needed")]),
        # Containers.
        (f"{RUN} {IMAGE} --model m {RULE}", [EXPOSED]),
        (f"{RUN} -e NCCL_MAX_CTAS=8 {IMAGE} --model m {RULE}", [SET]),
        (f"export NCCL_MAX_CTAS=8\n{RUN} -e NCCL_MAX_CTAS {IMAGE} --model m {RULE}", [SET]),
        (f"export NCCL_MAX_CTAS=8\n{RUN} {IMAGE} --model m {RULE}", [EXPOSED]),
        (f"{RUN} --env-file=x.env {IMAGE} --model m {RULE}", [UNREAD]),
        (f"{RUN} --entrypoint eplb-launch {IMAGE} -- {SERVE}", [WRAPPED]),
        (f"eplb-launch -- {RUN} {IMAGE} --model m {RULE}", [("exposed", "variable-dropped")]),
        (f"{RUN} vllm/vllm-openai:v0.20.2 m {RULE}", [("ok", "not-needed")]),
        (f"{RUN} {IMAGE} --model m -dp 4", [("ok", "not-needed")]),
        (f"{RUN} postgres:16 -c max_connections=8\ndocker pull {IMAGE}", []),
        # Servers inside `$(..)`.
        (f"PID=$(nohup {SERVE} > log & echo $!)", [EXPOSED]),
        ('N=$(pgrep -fc "vllm serve")\nHELP=$(vllm --help)', []),
        # Nested ones.
        ("if true; then\n" * 40 + SERVE + "\nfi" * 40, [EXPOSED]),
        ("if true; then\n" * 300 + SERVE + "\nfi" * 300, [("unknown", "settings-not-known")]),
        ("(" * 400 + SERVE + ")" * 400, [("unknown", "settings-not-known")]),
        ("(" * 400 + "true" + ")" * 400 + "\n# vllm serve m", []),
        ("echo " + "$(" * 20_000 + SERVE + ")" * 20_000, [("unknown", "settings-not-known")]),
    ],
)
def test_each_server_of_a_script_has_its_verdict(
    tmp_path: Path, script: str, expected: list[tuple[str, str | None]]
) -> None:
    says = "vllm-openai:v" in script or "--vllm-version" in script
    found = findings(tmp_path, f"#!/bin/bash\n{script}\n", None if says else "0.16.0")
    assert [finding.verdict for finding in found] == [verdict for verdict, _ in expected]
    for finding, (_, cause) in zip(found, expected, strict=True):
        assert cause in (None, finding.assessment.cause)


def test_an_eval_of_several_lines_does_not_move_the_line_of_the_server(tmp_path: Path) -> None:
    script = f'eval "$(eplb-launch env -- \\\n vllm serve m)"\n\n{SERVE}\n'
    assert [finding.line for finding in findings(tmp_path, script)] == [4]


def test_a_launcher_with_the_wrong_release_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "start.sh"
    path.write_text(f"eplb-launch --vllm-version 0.24.0 -- {SERVE}\n")
    [finding] = check([str(path)], "0.16.0").findings
    assert (finding.verdict, finding.assessment.cause) == EXPOSED
    assert "given a release" in finding.assessment.reason
    path.write_text(f"eplb-launch --vllm-version 0.15.0 -- {SERVE}\n")
    [finding] = check([str(path)], "0.16.0").findings
    assert (finding.verdict, finding.assessment.cause) == WRAPPED


def test_the_image_in_a_command_tells_the_release(tmp_path: Path) -> None:
    [old, new, own] = findings(
        tmp_path,
        f"{RUN} {IMAGE} --model m {RULE}\n"
        f"{RUN} vllm/vllm-openai:v0.32.0 m {RULE}\n"
        f"{RUN} registry.example/llm:7 {SERVE}\n",
        None,
    )
    assert (old.version, old.version_source) == ("0.16.0", "the tag of the image, v0.16.0")
    assert (new.version, new.entry) == ("0.32.0", "vllm serve")
    assert (own.version, own.version_source) == (None, "the image's name does not give it")


@pytest.mark.parametrize(
    ("line", "fixed"),
    [
        (f"{RUN} {IMAGE} --model m {RULE}", f"{RUN} {{0}} {IMAGE} --model m {RULE}"),
        (f"podman run img {SERVE}", f"podman run {{0}} img {SERVE}"),
        (f"{RUN} {IMAGE} --model m {RULE}", f"{RUN} {{1}} --model m {RULE}"),
        (f"podman run img {SERVE}", f"podman run {{1}} m {RULE}"),
        (f"podman run --entrypoint vllm img serve m {RULE}", f"podman run {{1}} m {RULE}"),
        (f"{RUN} $IMAGE {SERVE}", f"{RUN} {{0}} $IMAGE {SERVE}"),
        (f"{RUN} $IMAGE --model m {RULE}", f"{RUN} {{0}} $IMAGE --model m {RULE}"),
        (SERVE, f"{{0}} m {RULE}"),
        (SERVE, f"{{1}}\n{SERVE}"),
        (f"eplb-launch {SERVE}", f"{{0}} m {RULE}"),
        (f'"$VENV/bin/vllm" serve m {RULE}', f"{{0}} m {RULE}"),
    ],
)
def test_pasting_the_fix_makes_the_server_ok(tmp_path: Path, line: str, fixed: str) -> None:
    [before] = findings(tmp_path, line + "\n")
    assert before.verdict == "exposed"
    texts = [fix.text.removesuffix(" …") for fix in before.fixes]
    [after] = findings(tmp_path, fixed.format(*texts) + "\n")
    assert after.verdict == "ok"


def test_what_could_not_be_read_is_named_without_secrets(tmp_path: Path) -> None:
    reads = 'eval "$(vault login -token=hidden)"\n. ./env.sh\n'
    script = f"{reads}podman run --env-file x img {SERVE}\n{SERVE}\n"
    [run, serve] = findings(tmp_path, script)
    assert serve.assessment.unread == (
        "$(vault …) (evaluated by the shell)",
        "./env.sh (read by the shell)",
    )
    assert "x (--env-file)" in run.assessment.unread
    assert "hidden" not in repr((run.assessment, serve.assessment))


def test_harmless_files_and_commands_are_not_reported() -> None:
    files = (
        "/etc/profile",
        "/v/bin/activate",
        "$(ssh-agent -s)",
        "$(/usr/bin/conda shell.sh hook)",
    )
    assert scripts.unread(files) == ()
    assert len(scripts.unread(("/v/activate.sh", "$(cat x)", "profile"))) == 3


def test_only_docker_run_starts_an_image() -> None:
    from eplb_launch.command import find_server

    for words in (["docker", "exec", "c", "vllm", "serve", "m"], ["ssh", "run", "vllm", "serve"]):
        server = find_server(words, {})
        assert server is not None
        assert engines.run_of(server) is None


def test_nothing_of_the_reviewed_folder_is_imported(tmp_path: Path) -> None:
    for name in ("json", "shlex", "re", "eplb_launch"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close()")
    (tmp_path / "start.sh").write_text(SERVE)
    script = os.path.join(os.path.dirname(sys.executable), "eplb-launch")
    done = subprocess.run(
        [script, "check", "--vllm-version", "0.16.0", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("./start.sh:1: exposed")
    assert "note:" not in done.stdout
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("last", [SERVE, "A='vllm serve m'"], ids=["server", "variable"])
def test_servers_beyond_the_limit_are_unknown(tmp_path: Path, last: str) -> None:
    path = tmp_path / "start.sh"
    path.write_text("".join(f"vllm serve m{number} &\n" for number in range(150)) + last)
    review = check([str(path)], "0.16.0")
    unknown = [finding for finding in review.findings if finding.verdict == "unknown"]
    assert unknown[-1].lines == (101, 151)
    assert review.mentions == ()  # no line is listed as one that starts no server


def writes(text: str, command: str = "cat > engine.yaml") -> str:
    return f"{command} <<'END'\n{text}END\n"


HANGS = (
    "data-parallel-size: 8\nenable-eplb: true\nall2all-backend: deepep_low_latency\n"
    "eplb-config: {use_async: true}\n"
)
STARTS = "vllm serve m --config engine.yaml\n"


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        pytest.param(writes(HANGS) + STARTS, "exposed", id="written before"),
        pytest.param(
            writes(HANGS).replace("true\na", "false\na") + STARTS, "unknown", id="without EPLB"
        ),
        pytest.param(f"export NCCL_MAX_CTAS=8\n{writes(HANGS)}{STARTS}", "ok", id="with the cap"),
        pytest.param(f"cd /x\n{writes(HANGS)}{STARTS}", "exposed", id="in a folder"),
        pytest.param(
            f"cd /x\n{writes(HANGS)}vllm serve m --config /x/engine.yaml", "exposed", id="absolute"
        ),
        pytest.param(f"f() {{\n{writes(HANGS)}}}\nf\n{STARTS}", "exposed", id="by a function"),
        pytest.param(f"{writes(HANGS)}exec nice {STARTS}", "exposed", id="behind exec and nice"),
        pytest.param(f"{writes(HANGS)}cat engine.yaml\n{STARTS}", "exposed", id="only shown"),
        pytest.param(
            "D=8\n" + writes(HANGS.replace("8", "$D")).replace("'END'", "END") + STARTS,
            "exposed",
            id="with a variable",
        ),
        pytest.param(
            writes(HANGS.replace("8", "1")) + writes(HANGS) + STARTS,
            "exposed",
            id="twice, the last with EPLB",
        ),
        pytest.param(
            writes(HANGS) + writes(HANGS.replace("8", "1")) + STARTS,
            "unknown",
            id="twice, the last without EPLB",
        ),
        pytest.param(f"{writes('enable-eplb: [')}{STARTS}", "unknown", id="no YAML"),
        pytest.param(f"if x; then\n{writes(HANGS)}fi\n{STARTS}", "unknown", id="in a branch"),
        pytest.param(
            f"{writes(HANGS)}echo a: b >> engine.yaml\n{STARTS}", "unknown", id="appended"
        ),
        pytest.param(f"{writes(HANGS)}sed -i s/8/1/ engine.yaml\n{STARTS}", "unknown", id="edited"),
        pytest.param(
            f"{writes(HANGS)}x > engine.yaml\n{STARTS}", "unknown", id="written by another program"
        ),
        pytest.param(f"{writes(HANGS)}cd sub\n{STARTS}", "unknown", id="in another folder"),
        pytest.param(
            writes(HANGS.replace("8", "$N")).replace("'END'", "END") + STARTS,
            "unknown",
            id="a value that is not known",
        ),
    ],
)
def test_a_config_file_that_the_script_writes_is_read(
    tmp_path: Path, script: str, verdict: str
) -> None:
    (finding,) = findings(tmp_path, script)
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    "change",
    [
        "echo 'enable-eplb: true' | tee -a engine.yaml",
        "cat other | sponge engine.yaml",
        "{ echo 'enable-eplb: true'; } >> engine.yaml",
        "for i in 1 2; do echo a$i: b; done >> engine.yaml",
        "sed -i s/false/true/ *.yaml",
        "sed -i s/false/true/ $F",
        'cat other > "$F"',
        "cp new/engine.yaml .",
        "yq -i --file=engine.yaml",
        'python3 -c \'open("engine.yaml", "a").write("x")\'',
        "bash -c 'cat new > engine.yaml'",
        ":",
    ],
)
def test_a_config_file_that_the_script_writes_makes_no_server_ok(
    tmp_path: Path, change: str
) -> None:
    """The script may change the file in a way that is not seen."""
    script = f"{writes(HANGS.replace('eplb: true', 'eplb: false'))}{change}\n{STARTS}"
    (finding,) = findings(tmp_path, script)
    assert finding.verdict == "unknown"
    assert plan(["bash", "-c", script], {}, vllm_version="0.16.0").environment


def test_no_comment_is_the_line_of_what_is_not_followed(tmp_path: Path) -> None:
    script = "# as vllm serve does it\n" + "( " * 200 + f"\n{SERVE}\n" + ") " * 200
    assert [finding.line for finding in findings(tmp_path, script)] == [3]


def test_a_long_library_is_followed(tmp_path: Path) -> None:
    """The functions of a library may take as much work again as reading it."""
    ask = 'case "$MODE" in a) X="$X a" ;; b) X="$X b" ;; *) X="$X c" ;; esac\n' * 2
    library = "".join(f"f{i}() {{\n{ask}}}\n" for i in range(60))
    (tmp_path / "lib.sh").write_text(library)
    calls = "".join(f"f{i}\n" for i in range(60)) * 3
    (tmp_path / "start.sh").write_text(f"source ./lib.sh\n{calls}{SERVE}\n")
    (found,) = check([str(tmp_path)], "0.16.0").findings
    assert (found.verdict, found.line) == ("exposed", 182)
