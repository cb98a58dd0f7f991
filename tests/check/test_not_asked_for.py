"""Unknown servers that do not ask for EPLB: they are counted and listed, but no findings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from eplb_launch.check.command import run

if TYPE_CHECKING:
    from pathlib import Path

POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  volumes: [{{name: v, configMap: {{name: c}}}}]
  containers:
  - name: v
    image: vllm/vllm-openai:v0.16.0
    command: [bash, -c, {}]
    env: [{{name: {}, value: "1"}}]
    volumeMounts: [{{name: v, mountPath: /c}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: c}}
data: {{a.yaml: "{}"}}
"""
RUN = "exec vllm serve m $MORE"

# The name of a file, its text, and whether it asks for EPLB.
CASES = {
    "a script": ("a.sh", "vllm serve m $MORE\n", False),
    "a script with --enable-eplb": ("a.sh", "vllm serve m --enable-eplb $MORE\n", True),
    "a script with --enable-eplb on another line": (
        "a.sh",
        'ARGS=(--enable-eplb)\n. ./rest.sh\nvllm serve m "$@"\n',
        True,
    ),
    "a script with a low-latency backend": (
        "a.sh",
        "vllm serve m --all2all-backend deepep_low_latency $MORE\n",
        True,
    ),
    "a pod": ("p.yaml", POD.format(f'"{RUN}"', "A", "b"), False),
    "a pod: in its command": ("p.yaml", POD.format(f'"{RUN} --enable-eplb"', "A", "b"), True),
    "a pod: in its environment": ("p.yaml", POD.format(f'"{RUN}"', "EPLB", "b"), True),
    "a pod: in a mounted file": ("p.yaml", POD.format(f'"{RUN}"', "A", "enable-eplb: true"), True),
    "EPLB of a plugin": (
        "a.sh",
        """DYNAMIC_EPLB=1 vllm serve m $MORE --additional-config '{"eplb_config": {}}'\n""",
        False,
    ),
    "EPLB of a plugin and of vLLM": (
        "a.sh",
        "vllm serve m --additional-config {} --enable-eplb $MORE\n",
        True,
    ),
    "EPLB of a plugin, in a list": (
        "o.yaml",
        'vllm:\n  args: [-dp, $N, --additional-config, \'{"eplb_config": {"a": 1}}\', $MORE]\n',
        False,
    ),
    "an operator": (
        "o.yaml",
        "apiVersion: a.org/v1\nkind: M\nspec:\n  engine: vllm\n  replicas: 1\n",
        False,
    ),
    "an operator with a field of its own": (
        "o.yaml",
        "apiVersion: a.org/v1\nkind: M\nspec:\n  engine: vllm\n  eplb: {enabled: true}\n",
        True,
    ),
    "a Makefile": ("Makefile", "a:\n\tvllm serve m $(MORE)\n", False),
    "a Makefile that sets it": (
        "Makefile",
        "MORE = --enable-eplb\na:\n\tvllm serve m $(MORE)\n",
        True,
    ),
    "a unit": ("v.service", "[Service]\nExecStart=/opt/v/bin/vllm serve $MORE\n", False),
    "a unit with --enable-eplb": (
        "v.service",
        "[Service]\nExecStart=/opt/v/bin/vllm serve $MORE --enable-eplb\n",
        True,
    ),
}


@pytest.mark.parametrize(("name", "text", "asks"), CASES.values(), ids=CASES)
def test_an_unknown_server_that_does_not_ask_for_eplb_is_no_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, asks: bool
) -> None:
    (tmp_path / name).write_text(text)

    def told(*, strict: bool = False) -> dict[str, list[dict[str, str]]]:
        assert run([str(tmp_path)], style="json", strict=strict) == strict
        found: dict[str, list[dict[str, str]]] = json.loads(capsys.readouterr().out)
        return found

    found = told()
    assert [server["verdict"] for server in found["servers"]] == ["unknown"] * asks
    causes = [server["cause"] for server in found["not_asked_for"]]
    assert causes == ["not-asked-for"] * (not asks)
    strictly = told(strict=True)
    assert [server["verdict"] for server in strictly["servers"]] == ["unknown"]
    assert strictly["not_asked_for"] == []
    for style in ("text", "github"):
        run([str(tmp_path)], style=style, verbose=True)
        listed = [line for line in capsys.readouterr().out.split("\n") if "does not ask" in line]
        assert bool(listed) == (not asks)
        if listed:
            assert listed[0].startswith(f"{tmp_path}/{name}:")
            assert "1 more server does not ask for EPLB, but what it reads" in listed[-1]
    run([str(tmp_path)], style="sarif")
    results = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert bool(results) == asks


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve m\n",  # not needed
        "NCCL_MAX_CTAS=8 vllm serve m --enable-eplb $MORE\n",  # capped
    ],
)
def test_an_ok_server_is_always_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "a.sh").write_text(text)
    run([str(tmp_path)], style="json")
    found = json.loads(capsys.readouterr().out)
    assert [server["verdict"] for server in found["servers"]] == ["ok"]
    assert found["not_asked_for"] == []
