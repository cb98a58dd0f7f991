"""`eplb-launch check`: systemd units with their drop-ins, and what comes from other places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch.check.command import check

if TYPE_CHECKING:
    from pathlib import Path

RULE = "-dp 8 --enable-eplb --eplb-config.use_async=true --all2all-backend=deepep_low_latency"
LIMIT, HIGH = "Environment=NCCL_MAX_CTAS=8", "Environment=NCCL_MAX_CTAS=64"
SYSTEM = "etc/systemd/system"
VENDOR = "usr/lib/systemd/system"


def write(root: Path, path: str, *lines: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["[Service]", *lines, ""]))


def verdicts(root: Path, path: str = ".") -> list[str]:
    review = check([str(root / path)], "0.16.0")
    assert not review.troubles
    return [finding.verdict for finding in review.findings]


@pytest.mark.parametrize(
    ("unit", "drop_in", "counts"),
    [
        (f"{SYSTEM}/v.service", f"{SYSTEM}/v.service.d/10.conf", True),
        (f"{VENDOR}/v.service", f"{SYSTEM}/v.service.d/10.conf", True),
        (f"{VENDOR}/v.service", "run/systemd/system/v.service.d/10.conf", True),
        (f"{SYSTEM}/v.service", f"{SYSTEM}/service.d/10.conf", True),
        (f"{SYSTEM}/v-prefill.service", f"{SYSTEM}/v-.service.d/10.conf", True),
        ("units/v.service", "units/v.service.d/10.conf", True),
        (f"{SYSTEM}/v.service", f"{SYSTEM}/w.service.d/10.conf", False),
        (f"{SYSTEM}/v.service", f"{SYSTEM}/v-.service.d/10.conf", False),
        (f"{SYSTEM}/v-prefill.service", f"{SYSTEM}/v.service.d/10.conf", False),
        (f"a/{SYSTEM}/v.service", f"b/{SYSTEM}/v.service.d/10.conf", False),
        ("a/v.service", "b/v.service.d/10.conf", False),
    ],
)
def test_a_drop_in_counts_for_the_units_that_systemd_gives_it_to(
    tmp_path: Path, unit: str, drop_in: str, counts: bool
) -> None:
    write(tmp_path, unit, LIMIT, f"ExecStart=vllm serve m {RULE}")
    assert verdicts(tmp_path) == ["ok"]
    write(tmp_path, drop_in, HIGH)
    assert verdicts(tmp_path) == ["exposed" if counts else "ok"]


def test_an_instance_with_drop_ins_is_another_unit(tmp_path: Path) -> None:
    write(tmp_path, f"{SYSTEM}/v@.service", LIMIT, f"ExecStart=vllm serve m {RULE}")
    write(
        tmp_path, f"{SYSTEM}/v@1.service.d/10.conf", "ExecStart=", f"ExecStart=vllm serve n {RULE}"
    )
    write(tmp_path, f"{SYSTEM}/v@1.service.d/20.conf", HIGH)
    write(tmp_path, f"{SYSTEM}/v@.service.d/10.conf", "Environment=A=b")
    assert verdicts(tmp_path) == ["ok", "exposed"]


def test_drop_ins_are_sorted_by_name_and_etc_hides_other_folders(tmp_path: Path) -> None:
    write(tmp_path, f"{VENDOR}/v.service", f"ExecStart=vllm serve m {RULE}")
    write(tmp_path, f"{VENDOR}/v.service.d/20.conf", HIGH)
    assert verdicts(tmp_path) == ["exposed"]
    write(tmp_path, f"{SYSTEM}/v.service.d/10.conf", LIMIT)
    assert verdicts(tmp_path) == ["exposed"]
    write(tmp_path, f"{SYSTEM}/v.service.d/20.conf", LIMIT)
    assert verdicts(tmp_path) == ["ok"]
    write(tmp_path, f"{VENDOR}/v.service.d/30.conf", HIGH)
    assert verdicts(tmp_path) == ["exposed"]


def test_a_drop_in_in_another_folder_can_set_options(tmp_path: Path) -> None:
    write(tmp_path, f"{VENDOR}/v.service", "Environment=ARGS=", "ExecStart=vllm serve m $ARGS")
    assert verdicts(tmp_path) == ["ok"]
    write(tmp_path, f"{SYSTEM}/v.service.d/10.conf", f'Environment="ARGS={RULE}"')
    assert verdicts(tmp_path) == ["exposed"]


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        (("EnvironmentFile=/etc/vllm.env", "ExecStart=vllm serve m $ARGS"), "unknown"),
        (("ExecStart=vllm serve m ${ARGS}",), "unknown"),
        (("ExecStart=vllm serve $MODEL",), "unknown"),
        (("ExecStart=vllm serve ${MODEL}",), "ok"),
        (("ExecStart=vllm serve m --port $PORT",), "ok"),
        (("EnvironmentFile=/x.env", f"ExecStart=vllm serve m {RULE}"), "unknown"),
        ((LIMIT, "UnsetEnvironment=NCCL_MAX_CTAS=4", f"ExecStart=vllm serve m {RULE}"), "ok"),
        ((LIMIT, "UnsetEnvironment=NCCL_MAX_CTAS=8", f"ExecStart=vllm serve m {RULE}"), "exposed"),
    ],
    ids=[
        "options from a file that is not here",
        "options from a variable that is not set",
        "a model or options from a variable",
        "a model from a variable",
        "a port from a variable",
        "the cap may be in a file that is not here",
        "another value of the cap is unset",
        "this value of the cap is unset",
    ],
)
def test_a_unit_is_unknown_if_what_it_does_not_give_could_decide(
    tmp_path: Path, lines: tuple[str, ...], verdict: str
) -> None:
    write(tmp_path, "v.service", *lines)
    assert verdicts(tmp_path) == [verdict]


@pytest.mark.parametrize("value", ["NCCL_MAX_CTAS", "NCCL_MAX_CTAS=8"])
def test_the_launcher_is_the_only_fix_if_a_unit_unsets_the_cap(tmp_path: Path, value: str) -> None:
    serve = f"ExecStart=vllm serve m {RULE}"
    write(tmp_path, "v.service", LIMIT, f"UnsetEnvironment={value}", serve)
    [finding] = check([str(tmp_path)], "0.16.0").findings
    assert [fix.text for fix in finding.fixes] == ["eplb-launch -- vllm serve …"]


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ('CONFIG={"use_async":true}', "exposed"),
        ("CONFIG='{\"use_async\":true}'", "exposed"),
        ('CONFIG={"use_async":false}', "ok"),
        ("export CONFIG={}", "unknown"),  # systemd leaves it out
    ],
)
def test_json_in_an_environment_file_keeps_its_quotes_as_systemd_does(
    tmp_path: Path, line: str, verdict: str
) -> None:
    (tmp_path / "v.env").write_text(f"# options\n{line}\n")
    rule = RULE.replace("--eplb-config.use_async=true", "--eplb-config ${CONFIG}")
    write(tmp_path, "v.service", "EnvironmentFile=/v.env", f"ExecStart=vllm serve m {rule}")
    assert verdicts(tmp_path) == [verdict]


def test_a_script_has_the_environment_of_its_unit(tmp_path: Path) -> None:
    script = tmp_path / "opt" / "run.sh"
    script.parent.mkdir()
    script.write_text(f"#!/bin/bash\nexec vllm serve m {RULE}\n")
    write(tmp_path, f"{SYSTEM}/v.service", "ExecStart=/opt/run.sh")
    assert verdicts(tmp_path) == ["exposed"]
    write(tmp_path, f"{SYSTEM}/v.service", LIMIT, "ExecStart=/bin/bash /opt/run.sh")
    assert verdicts(tmp_path) == ["ok"]
    script.write_text(f"#!/bin/bash\nexec eplb-launch -- vllm serve m {RULE}\n")
    assert verdicts(tmp_path) == ["ok"]
    write(
        tmp_path,
        f"{SYSTEM}/v.service",
        "Environment=NCCL_MIN_NCHANNELS=16",
        "ExecStart=/opt/run.sh",
    )
    assert verdicts(tmp_path) == ["exposed"]


def test_a_generated_config_map_has_the_variables_of_its_env_files(tmp_path: Path) -> None:
    pod = POD.rstrip() + "\n    envFrom: [{configMapRef: {name: e}}]\n"
    words = ", ".join(f'"{word}"' for word in RULE.split())
    (tmp_path / "pod.yaml").write_text(pod % f"m, {words}")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [pod.yaml]\nconfigMapGenerator:\n- name: e\n  envs: [e.env]\n"
    )
    assert verdicts(tmp_path) == ["unknown"]
    (tmp_path / "e.env").write_text("# a comment\nNCCL_MAX_CTAS=8\n")
    assert verdicts(tmp_path) == ["ok"]
    (tmp_path / "e.env").write_text("OTHER=8\n")
    assert verdicts(tmp_path) == ["exposed"]


def test_a_pod_gives_its_variables_to_a_script_in_a_config_map(tmp_path: Path) -> None:
    (tmp_path / "scripts.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata:\n  run.sh: |\n"
        f"    exec eplb-launch -- vllm serve m {RULE}\n"
    )
    pod = POD.replace("vllm/vllm-openai:v0.16.0", "registry.example/llm:1")
    pod = pod.replace(
        "args: [%s]", 'command: [bash, /s/run.sh]\n    env: [{name: %s, value: "32"}]'
    )
    pod += "    volumeMounts: [{name: s, mountPath: /s}]\n"
    pod += "  volumes: [{name: s, configMap: {name: s}}]\n"
    for name, expected in (("NCCL_MIN_P2P_NCHANNELS", "exposed"), ("OTHER", "ok")):
        (tmp_path / "pod.yaml").write_text(pod % name)
        assert verdicts(tmp_path) == [expected]


POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: c
    image: vllm/vllm-openai:v0.16.0
    args: [%s]
"""
COMPOSE = "services:\n  v:\n    image: vllm/vllm-openai:v0.16.0\n    command: %s\n"


@pytest.mark.parametrize(
    ("text", "words", "verdict"),
    [
        (POD, 'm, "-dp", "8", "$(EPLB)"', "unknown"),
        (POD, 'm, "-dp", "8", "{{ .EPLB }}"', "unknown"),
        (POD, 'm, "-dp", "8", "${EPLB}"', "unknown"),
        (POD, 'm, "-dp", "8", "${EPLB:=--enable-eplb}"', "unknown"),
        (POD, 'm, "-dp", "8", "${{EPLB}}"', "unknown"),
        (POD, f'm, {", ".join(RULE.split()[:-1])}, "--all2all-backend=${{BACKEND}}"', "unknown"),
        (POD, 'm, "-dp", "8", "--port", "$(PORT)"', "ok"),
        (POD, '"$(MODEL)", "-dp", "8"', "ok"),
        (POD, 'm, "-dp", "8", "$$(EPLB)"', "ok"),
        (COMPOSE, "--model m -dp 8 --enable-expert-parallel ${ARGS}", "unknown"),
        (COMPOSE, '[m, "-dp", "8", "${EPLB}"]', "unknown"),
        (COMPOSE, '["${MODEL}", "-dp", "8"]', "ok"),
        (COMPOSE, '[m, "-dp", "8", "$${EPLB}"]', "ok"),
    ],
)
def test_a_server_is_unknown_if_an_unknown_word_may_be_an_option(
    tmp_path: Path, text: str, words: str, verdict: str
) -> None:
    (tmp_path / "x.yaml").write_text(text % words)
    assert verdicts(tmp_path) == [verdict]
