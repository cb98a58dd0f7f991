"""`eplb-launch check` on YAML that starts vLLM from fields of its own, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch.check.command import check
from eplb_launch.check.kind import ENTRY_POINT

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch.check.model import Finding

EPLB = "--enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
SERVE = f"vllm serve m -dp 8 {EPLB}"
LISTED = ", ".join(f'"{word}"' for word in f"--data-parallel-size 8 {EPLB}".split())
IMAGE = "vllm/vllm-openai:v0.16.0"

# A file, then the verdict and the line of each of its servers.
CASES: dict[str, tuple[str, list[tuple[str, int]]]] = {
    "SkyPilot: a job": (
        f"""
resources:
  image_id: docker:{IMAGE}
envs: {{SIZE: "8"}}
setup: pip install vllm
run: |
  echo "vllm serve is next"
  {SERVE.replace("-dp 8", "-dp $SIZE")}
""",
        [("exposed", 8)],
    ),
    "SkyPilot: a job whose variables set the cap": (
        f"""
resources: {{image_id: "docker:{IMAGE}"}}
envs: {{NCCL_MAX_CTAS: 8}}
run: {SERVE}
""",
        [("ok", 4)],
    ),
    "SkyPilot: a job with one rank": (
        f"""
resources: {{image_id: "docker:{IMAGE}"}}
envs: {{SIZE: "1"}}
run: {SERVE.replace("-dp 8", "-dp $SIZE")}
""",
        [("ok", 4)],
    ),
    "GitHub: a workflow with a container, a matrix and steps": (
        f"""
on: push
env: {{BACKEND: deepep_low_latency}}
jobs:
  serve:
    container: {{image: "{IMAGE}"}}
    steps:
    - uses: actions/checkout@v5
    - name: vllm serve is started here
      run: {SERVE.replace("deepep_low_latency", "$BACKEND")}
    - env: {{NCCL_MAX_CTAS: "4"}}
      run: |
        nohup {SERVE} &
    - run: vllm serve m --port ${{{{ matrix.port }}}}
""",
        [("exposed", 10), ("ok", 13), ("ok", 14)],
    ),
    "GitLab: a script as a list of lines": (
        f"""
serve:
  image: {IMAGE}
  variables: {{SIZE: "8"}}
  before_script:
  - export BACKEND=deepep_low_latency
  script:
  - export ASYNC=true
  - vllm serve m -dp $SIZE --enable-eplb --eplb-config.use_async $ASYNC
    --all2all-backend deepep_low_latency
""",
        [("exposed", 9)],
    ),
    "a command as a list, a word a line": (
        f"""
spec:
  image: {IMAGE}
  start:
  - /opt/venv/bin/vllm
  - serve
  - m
  - {LISTED.replace(", ", chr(10) + "  - ")}
""",
        [("exposed", 5)],
    ),
    "a shell in a list": (
        f"""
image: {IMAGE}
cmd: [bash, -lc, "{SERVE}"]
""",
        [("exposed", 3)],
    ),
    "a role with its own command": (
        f"""
decode:
  vllm:
    customCommand: |
      cd /models
      exec {SERVE}
  image: {IMAGE}
prefill:
  vllm:
    customCommand: exec vllm serve m
  image: {IMAGE}
""",
        [("exposed", 6), ("ok", 10)],
    ),
    "values of a chart": (
        f"""
servingEngineSpec:
  modelSpec:
  - repository: vllm/vllm-openai
    tag: v0.16.0
    vllmConfig: {{extraArgs: [{LISTED}]}}
  - repository: vllm/vllm-openai
    tag: v0.16.0
    env: [{{name: NCCL_MAX_CTAS, value: "8"}}]
    vllmConfig: {{extraArgs: [{LISTED}]}}
  - repository: vllm/vllm-openai
    tag: v0.16.0
    vllmConfig: {{maxModelLen: 4096}}
  - repository: vllm/vllm-openai
    tag: v0.16.0
    vllmConfig: {{extraArgs: ["--no-enable-eplb"]}}
""",
        [("exposed", 6), ("ok", 10), ("unknown", 13), ("ok", 16)],
    ),
    "values of a chart in an object": (
        f"""
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {{name: a}}
spec:
  source:
    helm:
      values: |
        servingEngineSpec:
          modelSpec:
          - repository: vllm/vllm-openai
            tag: v0.16.0
            vllmConfig:
              extraArgs: [{LISTED}]
""",
        [("exposed", 14)],
    ),
    "an operator: arguments": (
        f"""
apiVersion: kubeai.org/v1
kind: Model
metadata: {{name: m, annotations: {{note: "vllm serve m"}}}}
spec:
  engine: VLLM
  image: {IMAGE}
  args: [{LISTED}]
""",
        [("exposed", 8)],
    ),
    "an operator: settings": (
        f"""
apiVersion: example.org/v1
kind: Deployed
metadata: {{name: m}}
spec:
  runtime: vllm
  image: {IMAGE}
  settings:
    dataParallelSize: 8
    enable_eplb: true
    eplb-config: {{use_async: true}}
    all2all-backend: deepep_low_latency
""",
        [("exposed", 9)],
    ),
    "an operator: settings that say no": (
        f"""
apiVersion: example.org/v1
kind: Deployed
metadata: {{name: m}}
spec:
  runtime: vllm
  image: {IMAGE}
  settings: {{data-parallel-size: 8, enable-eplb: false}}
""",
        [("ok", 8)],
    ),
    "an operator: options in a text": (
        f"""
apiVersion: example.org/v1
kind: Deployed
metadata: {{name: m}}
spec:
  engine: vllm
  image: {IMAGE}
  flags: --data-parallel-size 8 {EPLB}
""",
        [("exposed", 8)],
    ),
    "an operator: options in a text of several lines": (
        f"""
apiVersion: example.org/v1
kind: Deployed
metadata: {{name: m}}
spec:
  engine: vllm
  image: {IMAGE}
  flags: |
    --data-parallel-size 8
    {EPLB}
""",
        [("exposed", 9)],
    ),
    "an operator: only the engine is named": (
        """
apiVersion: example.org/v1
kind: Deployed
metadata: {name: m}
spec:
  backend: {type: vLLM, model: m}
""",
        [("unknown", 6)],
    ),
    "an operator of vLLM's own": (
        """
apiVersion: production-stack.vllm.ai/v1alpha1
kind: VLLMRuntime
metadata: {name: m}
spec: {model: {modelURL: m}}
""",
        [("unknown", 2)],
    ),
    "a recipe: each role has its environment": (
        f"""
model: {{container: "{IMAGE}"}}
backend:
  type: vllm
  prefill_environment: {{NCCL_MAX_CTAS: "8"}}
  vllm_config:
    prefill: {{data-parallel-size: 8, enable-eplb: true, all2all-backend: deepep_low_latency,
      eplb-config: '{{"use_async": true}}'}}
    decode: {{data-parallel-size: 8, enable-eplb: true, all2all-backend: deepep_low_latency,
      eplb-config: '{{"use_async": true}}'}}
""",
        [("ok", 7), ("exposed", 9)],
    ),
    "a container is read with its pod": (
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  containers:
  - name: v
    image: {IMAGE}
    command: [bash, -c, "{SERVE}"]
    lifecycle: {{preStop: {{exec: {{command: [pkill, -f, vllm serve]}}}}}}
""",
        [("exposed", 9)],
    ),
    # Near misses.
    "another engine has options of the same names": (
        f"""
backend: {{type: sglang, sglang_config: {{decode: {{enable-eplb: true}}}}}}
notes: instead of vllm
other: {{image: lmsysorg/sglang, flags: "{EPLB}"}}
list: {{image: lmsysorg/sglang, args: [{LISTED}]}}
""",
        [],
    ),
    "a text for people": (
        f"""
vllm: {{description: "{SERVE}", help: "{EPLB}"}}
name: vllm serve m
""",
        [],
    ),
    "what is only shown or looked for": (
        f"""
jobs:
  a:
    steps:
    - run: echo "{SERVE}"
    - run: pkill -f "vllm serve"
    - run: pip install vllm && vllm bench serve --model m
""",
        [],
    ),
    "a schema": (
        """
properties:
  vllmConfig: {type: object}
  engine: {enum: [vllm], default: vllm serve m}
""",
        [],
    ),
    "a route to vLLM": (
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: vllm}
spec: {type: vllm}
""",
        [],
    ),
    "an object that selects pods of another object": (
        """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: m}
spec: {inferenceEngine: vLLM, workloadSelector: {matchLabels: {a: b}}}
""",
        [],
    ),
    "a CustomResourceDefinition is not read": (
        """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec: {vllmConfig: {}, run: vllm serve m, broken: [}
""",
        [],
    ),
    "a router for vLLM": (
        """
apiVersion: production-stack.vllm.ai/v1alpha1
kind: VLLMRouter
metadata: {name: r}
spec: {replicas: 1}
""",
        [],
    ),
    "a --config file, which starts nothing": (
        "data-parallel-size: 8\nenable-eplb: true\n# vllm reads it\n",
        [],
    ),
    "metrics of vLLM": ("vllm: {requests: 8, data-parallel: [1, 2]}\n", []),
}


def _found(tmp_path: Path, text: str) -> list[Finding]:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    review = check([str(path)])
    assert not review.troubles
    return list(review.findings)


@pytest.mark.parametrize(("text", "servers"), CASES.values(), ids=CASES)
def test_servers_in_fields_are_found(
    tmp_path: Path, text: str, servers: list[tuple[str, int]]
) -> None:
    found = _found(tmp_path, text)
    assert [(one.verdict, one.line) for one in found] == servers


@pytest.mark.parametrize("name", ["an operator: settings", "an operator: only the engine is named"])
def test_the_fix_of_an_operator_only_sets_the_variable(tmp_path: Path, name: str) -> None:
    [finding] = _found(tmp_path, CASES[name][0])
    variable = "env:\n- name: NCCL_MAX_CTAS\n  value: '8'"
    hows = [("set NCCL_MAX_CTAS for what it starts", variable)] * (finding.verdict == "exposed")
    assert [(fix.how, fix.text) for fix in finding.fixes] == hows
    assert finding.name.startswith("Deployed/m spec")


def test_the_fix_of_a_script_wraps_its_command(tmp_path: Path) -> None:
    [finding] = _found(tmp_path, CASES["SkyPilot: a job"][0])
    assert [fix.text for fix in finding.fixes] == [
        "export NCCL_MAX_CTAS=8",
        "python3 /opt/eplb-launch/eplb-launch.pyz -- vllm serve …",  # the image has no launcher
    ]
    assert finding.name == "run"


def test_a_server_inside_many_nested_texts_is_found(tmp_path: Path) -> None:
    text = SERVE
    for depth in range(12):
        text = "v: |\n" + "".join(f"  {line}\n" for line in text.split("\n")) + f"k{depth}: vllm\n"
    assert _found(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    {
        "vllm serve m": True,
        "/opt/bin/vllm serve m": True,
        '["vllm", "serve", "m"]': True,
        "- vllm\n  - serve\n": True,
        "vllm \\\n  serve m": True,
        "python3 -m vllm.entrypoints.openai.api_server": True,
        "-m\n - dynamo.vllm": True,
        "vllm-omni serve m": True,
        "vllm run-batch": True,
        "vllm-serve": False,
        "vllm serve-it": False,
        "vllm bench serve": False,
        "my-vllm serve": False,
        "vllm.serve": False,
        "vllm: serve": False,
        "import vllm.entrypoints.openai": False,
        "vllm": False,
    }.items(),
)
def test_entry_points_are_recognized(text: str, is_one: bool) -> None:
    assert bool(ENTRY_POINT.search(text)) == is_one
