"""The fixes of `eplb-launch check`: each is done to the file, and the file is checked again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from eplb_launch.cli import app

if TYPE_CHECKING:
    from pathlib import Path

ARGS = "-dp 8 --enable-eplb --eplb-config.use_async=1 --all2all-backend=deepep_low_latency"
LISTED = ", ".join(f'"{word}"' for word in ["m", *ARGS.split()])
POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  containers:
  - name: v
    image: registry.example.com/vllm-openai:v0.16.0
    args: [{LISTED}]
"""
SERVICE = f"""\
services:
  v:
    image: registry.example.com/vllm-openai:v0.16.0
    command: [{LISTED}]
"""
DOCKERFILE = f"FROM registry.example.com/vllm-openai:v0.16.0\nCMD [{LISTED}]\n"
CONFIG = "---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: c}\ndata:\n"


def servers(path: Path) -> list[dict[str, Any]]:
    """Return the servers of a file or folder."""
    result = CliRunner().invoke(app, ["check", "--json", str(path)])
    return list(json.loads(result.output)["servers"])


# The file, and what of it the fix takes the place of.
CHANGES = [
    pytest.param(
        "p.yaml",
        POD + '    env:\n    - name: NCCL_MAX_CTAS\n      value: "0"\n',
        'value: "0"',
        id="0",
    ),
    pytest.param(
        "p.yaml", POD + "    env: [{name: NCCL_MAX_CTAS, value: ''}]\n", "value: ''", id="empty"
    ),
    pytest.param(
        "p.yaml",
        POD + "    env:\n    - {name: NCCL_MAX_CTAS, value: '8'}\n"
        "    - {name: NCCL_MAX_CTAS, value: '16'}\n",
        "value: '16'",
        id="the second one counts",
    ),
    pytest.param(
        "p.yaml",
        POD + "    envFrom: [{configMapRef: {name: c}}]\n" + CONFIG + '  NCCL_MAX_CTAS: "64"\n',
        'NCCL_MAX_CTAS: "64"',
        id="ConfigMap",
    ),
    pytest.param(
        "p.yaml",
        POD
        + "    env:\n    - name: NCCL_MAX_CTAS\n"
        + "      valueFrom: {configMapKeyRef: {name: c, key: n}}\n"
        + CONFIG
        + '  n: "08"\n',
        'n: "08"',
        id="key of a ConfigMap",
    ),
    pytest.param(
        "p.yaml",
        POD + '    env: [{name: NCCL_MAX_CTAS, value: "$(OF_THE_NODE)"}]\n',
        'value: "$(OF_THE_NODE)"',
        id="not known",
    ),
    pytest.param(
        "p.yaml",
        POD.partition("    args")[0]
        + f"    command: [bash, -c]\n    args:\n    - |\n      export NCCL_MAX_CTAS=0\n"
        f"      exec vllm serve m {ARGS}\n",
        "NCCL_MAX_CTAS=0",
        id="in a script of a Pod",
    ),
    pytest.param(
        "compose.yaml",
        SERVICE + '    environment:\n      NCCL_MAX_CTAS: ""\n',
        'NCCL_MAX_CTAS: ""',
        id="map of compose",
    ),
    pytest.param(
        "compose.yaml",
        SERVICE + "    environment:\n      NCCL_MAX_CTAS:\n",
        "NCCL_MAX_CTAS:",
        id="of whoever starts compose",
    ),
    pytest.param(
        "compose.yaml",
        SERVICE + "    environment: [A=1, NCCL_MAX_CTAS=0]\n",
        "NCCL_MAX_CTAS=0",
        id="list of compose",
    ),
    pytest.param(
        "Dockerfile", DOCKERFILE + "ENV NCCL_MAX_CTAS 0\n", "NCCL_MAX_CTAS 0", id="Dockerfile"
    ),
    pytest.param(
        "Dockerfile",
        DOCKERFILE + "ENV A=1 \\\n  NCCL_MAX_CTAS=00 B=2\n",
        "NCCL_MAX_CTAS=00",
        id="second line of ENV",
    ),
    pytest.param(
        "a.sh",
        f"set -e\nexport NCCL_MAX_CTAS=0\nvllm serve m {ARGS}\n",
        "NCCL_MAX_CTAS=0",
        id="script",
    ),
]


@pytest.mark.parametrize(("name", "text", "old"), CHANGES)
def test_a_wrong_value_is_changed_in_its_line(
    tmp_path: Path, name: str, text: str, old: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    [server] = servers(path)
    assert server["verdict"] != "ok"
    fix = server["fixes"][-1]
    match = re.fullmatch(r"(?:or )?change NCCL_MAX_CTAS in (.*):(\d+)", fix["how"])
    assert match
    assert match[1] == str(path)
    lines = text.split("\n")
    at = int(match[2]) - 1
    assert old in lines[at]
    lines[at] = lines[at].replace(old, fix["text"])
    path.write_text("\n".join(lines))
    assert [(s["verdict"], s["cause"]) for s in servers(path)] == [("ok", "environment")]


@pytest.mark.parametrize("value", ["8", "1", "0x8", "' 8'", "'010'"])
def test_a_value_that_nccl_reads_as_a_cap_is_ok(tmp_path: Path, value: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(POD + f"    env: [{{name: NCCL_MAX_CTAS, value: {value}}}]\n")
    assert [(s["verdict"], s["cause"]) for s in servers(path)] == [("ok", "environment")]


# The file, and the line that is followed by what is to be added, deeper than it or not.
ADDITIONS = [
    pytest.param("p.yaml", POD + "    env:\n    - {name: A, value: b}\n", 4, id="env"),
    pytest.param("compose.yaml", SERVICE + "    environment:\n      A: b\n", 6, id="map"),
    pytest.param("compose.yaml", SERVICE + "    environment:\n    - A=b\n", 4, id="list"),
]


@pytest.mark.parametrize(("name", "text", "indent"), ADDITIONS)
def test_the_cap_is_added_to_variables_that_are_set(
    tmp_path: Path, name: str, text: str, indent: int
) -> None:
    path = tmp_path / name
    path.write_text(text)
    [server] = servers(path)
    fix = server["fixes"][-1]
    assert fix["how"] == "or add NCCL_MAX_CTAS to the variables that are set there"
    path.write_text(text + "".join(f"{' ' * indent}{line}\n" for line in fix["text"].split("\n")))
    assert [s["cause"] for s in servers(path)] == ["environment"]


RAY_JOB = f"""\
apiVersion: ray.io/v1
kind: RayJob
spec:
  entrypoint: vllm serve m --data-parallel-backend ray {ARGS}
  rayClusterSpec:
    headGroupSpec:
      template: {{spec: {{containers: [{{name: h, image: "vllm/vllm-openai:v0.16.0"}}]}}}}
"""


def test_the_fix_of_a_ray_job_sets_the_cap_for_all_workers(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(RAY_JOB)
    [server] = servers(path)
    assert (server["verdict"], server["line"]) == ("exposed", 4)
    # The launcher before it would reach the driver alone.
    [fix] = server["fixes"]
    path.write_text(RAY_JOB + "".join(f"  {line}\n" for line in fix["text"].split("\n")))
    assert servers(path)[0]["cause"] == "environment"


@pytest.mark.parametrize(
    ("text", "indent"),
    [
        pytest.param("  runtimeEnvYAML: |\n    env_vars:\n      A: b\n", 6, id="variables"),
        pytest.param("  runtimeEnvYAML: |\n    pip: [numpy]\n", 4, id="none"),
    ],
)
def test_the_fix_of_a_ray_job_is_added_to_its_runtime_environment(
    tmp_path: Path, text: str, indent: int
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(RAY_JOB + text)
    [fix] = servers(path)[0]["fixes"]
    lines = [" " * indent + line for line in fix["text"].split("\n")]
    path.write_text(RAY_JOB + text + "\n".join(lines) + "\n")
    assert servers(path)[0]["cause"] == "environment"


def test_a_wrong_value_in_a_runtime_environment_is_changed_in_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    text = RAY_JOB + "  runtimeEnvYAML: |\n    env_vars:\n      A: b\n      NCCL_MAX_CTAS: 0\n"
    path.write_text(text)
    [fix] = servers(path)[0]["fixes"]
    assert fix["how"] == f"change NCCL_MAX_CTAS in {path}:11"
    path.write_text(text.replace("NCCL_MAX_CTAS: 0", fix["text"]))
    assert servers(path)[0]["cause"] == "environment"


def test_the_fix_names_the_line_of_the_env_file(tmp_path: Path) -> None:
    (tmp_path / "x.env").write_text("# limits\nNCCL_MAX_CTAS=0\n")
    (tmp_path / "compose.yaml").write_text(SERVICE + "    env_file: x.env\n")
    [server] = servers(tmp_path)
    [fix] = server["fixes"]
    assert fix["how"] == f"change NCCL_MAX_CTAS in {tmp_path}/x.env:2"
    (tmp_path / "x.env").write_text(f"# limits\n{fix['text']}\n")
    assert servers(tmp_path)[0]["cause"] == "environment"


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        pytest.param(f"NCCL_MAX_CTAS=0 NCCL_MAX_CTAS=00 vllm serve m {ARGS}\n", 0, id="which one"),
        pytest.param(f"unset NCCL_MAX_CTAS\nvllm serve m {ARGS}\n", 1, id="unset"),
    ],
)
def test_no_line_is_named_unless_it_is_certain(tmp_path: Path, text: str, ways: int) -> None:
    (tmp_path / "a.sh").write_text(text)
    [server] = servers(tmp_path)
    assert len(server["fixes"]) == ways
    assert not [fix for fix in server["fixes"] if "change" in fix["how"]]


def test_a_value_that_the_script_unsets_is_not_changed(tmp_path: Path) -> None:
    script = f"unset NCCL_MAX_CTAS; exec vllm serve m {ARGS}"
    (tmp_path / "p.yaml").write_text(
        POD.partition("    args")[0]
        + f"    command: [bash, -c, '{script}']\n    env: [{{name: NCCL_MAX_CTAS, value: '8'}}]\n"
    )
    [server] = servers(tmp_path)
    assert [fix["text"] for fix in server["fixes"]] == ["eplb-launch -- vllm serve …"]


@pytest.mark.parametrize("name", ["compose.yaml", "p.yaml"])
def test_the_only_fix_of_an_unknown_image_is_the_variable(tmp_path: Path, name: str) -> None:
    """Nothing says what it would have to be."""
    text = (SERVICE if name == "compose.yaml" else POD).replace(
        "registry.example.com/vllm-openai:v0.16.0", "own"
    )
    (tmp_path / name).write_text(text)
    [server] = servers(tmp_path)
    assert (server["verdict"], server["cause"]) == ("unknown", "release-not-known")
    [fix] = server["fixes"]
    assert fix["how"].startswith("set NCCL_MAX_CTAS in the ")
    assert "\\u" not in json.dumps(fix, ensure_ascii=False)
