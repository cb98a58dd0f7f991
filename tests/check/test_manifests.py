"""`eplb-launch check` on files of every shape: each server's verdict, its cause and its line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from eplb_launch.check.command import check

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "manifests")

# The file that is checked; for each server, in order: its verdict, the cause, and a text of the
# line that is reported. Where there is a file in front of the text, the line is in that one.
CASES: dict[str, list[tuple[str, ...]]] = {
    "01-lws-wide-ep.yaml": [("unknown", "release-not-known", "exec vllm serve")],
    "02-lws-bash-env.yaml": [
        ("unknown", "environment-not-read", "exec vllm serve m"),
        ("ok", "eplb-launch", "exec eplb-launch -- vllm"),
    ],
    "03-unquoted-args.yaml": [
        ("unknown", "settings-not-known", "exec vllm serve $ARGS /models/m --data"),
        ("exposed", "no-limit", "exec vllm serve $ARGS /models/m \\"),
    ],
    "04-disaggregated-set.yaml": [
        ("ok", "not-needed", "args: [r1"),
        ("exposed", "no-limit", "                - r1"),
    ],
    "05-mega-moe.yaml": [
        ("ok", "vllm", "exec vllm serve v4 --data"),
        ("unknown", "settings-not-known", "exec vllm serve v4 --nnodes"),
    ],
    "06-amd.yaml": [("ok", "not-needed", 'command: ["vllm"')],
    "07-dynamo-graph.yaml": [
        ("unknown", "release-not-known", "exec python3 -m dynamo.vllm"),
        ("ok", "not-needed", "          - python3"),
    ],
    "08-kserve-llm.yaml": [
        ("unknown", "release-not-known", '"--enable-eplb --all2all'),
        ("ok", "not-needed", '"--all2all-backend deepep_high'),
    ],
    "09-kserve-preset.yaml": [("unknown", "settings-not-known", 'eval "exec vllm serve')],
    "10-kserve-isvc.yaml": [
        ("unknown", "release-not-known", "- --model_name=llama"),
        ("ok", "not-needed", 'args: ["--model", "m"'),
    ],
    "11-lws-leader-script.yaml": [("ok", "not-needed", "python3 -m vllm.entrypoints")],
    "12-configmap-entrypoint.yaml": [("exposed", "no-limit", 'exec vllm serve "$MODEL"')],
    "13-configmap-alone.yaml": [("unknown", "release-not-known", "exec vllm serve m")],
    "14-helm-output.yaml": [("unknown", "release-not-known", '- "/opt/venv/bin/vllm"')],
    "15-list.yaml": [
        ("ok", "not-needed", "{name: v, image"),
        ("ok", "environment", "args: &exposed"),
        ("exposed", "value-not-a-limit", "args: *exposed"),
    ],
    "16-ray.yaml": [
        ("exposed", "no-limit", "vllm serve m --data-parallel-size 16"),
        ("unknown", "not-a-command", "- engine_kwargs:"),
    ],
    "17-environment.yaml": [
        ("unknown", "environment-not-read", "args: [one"),
        ("ok", "environment", "args: [two"),
        ("unknown", "value-not-known", "args: [three"),
        ("exposed", "min-p2p-nchannels", "args: [four"),
    ],
    "18-config-file.yaml": [
        ("exposed", "no-limit", "/etc/vllm/serve.yaml"),
        ("unknown", "config-not-read", "/srv/vllm.yaml"),
    ],
    "19-releases.yaml": [
        ("ok", "not-needed", "name: module"),
        ("exposed", "no-limit", "name: none"),
        ("ok", "vllm", "name: own"),
        ("ok", "not-needed", "name: gloo"),
        ("unknown", "release-not-known", "name: latest"),
        ("unknown", "release-not-known", "name: digest"),
        ("exposed", "no-limit", "name: named"),
        ("exposed", "no-limit", "name: port"),
    ],
    "20-unknown-kind.yaml": [("exposed", "no-limit", "args: [m")],
    "21-quoted-template.yaml": [("unknown", "settings-not-known", "args: [m")],
    "22-wrapped.yaml": [
        ("ok", "eplb-launch", "command: [eplb-launch, --strict"),
        ("ok", "eplb-launch", "command: [python3, -m"),
        ("ok", "eplb-launch", "command: [python3, /opt"),
        ("ok", "eplb-launch", 'command: [eplb-launch, "--", bash'),
        ("exposed", "variable-dropped", 'command: [eplb-launch, "--", sudo'),
        ("ok", "eplb-launch", "command: [sudo, -u, vllm, eplb-launch"),
        ("exposed", "no-limit", "command: [sudo, -u, vllm, vllm"),
    ],
    "23-shared-config": [
        ("exposed", "no-limit", "pod.yaml", "--config, /conf/serve.yaml"),
        ("unknown", "release-not-known", "run.sh", "vllm serve m --config serve.yaml"),
    ],
    "24-ray-job.yaml": [
        ("exposed", "no-limit", "vllm serve m"),
        ("ok", "environment", "entrypoint: vllm serve two"),
        ("exposed", "value-too-high", "entrypoint: vllm serve three"),
        ("ok", "eplb-launch", "entrypoint: eplb-launch"),
        ("unknown", "release-not-known", "entrypoint: vllm serve five"),
        ("ok", "not-needed", "entrypoint: python3"),
    ],
    "25-fragments.yaml": [
        ("exposed", "no-limit", "args: [whole"),
        ("ok", "environment", "command: [vllm, serve]"),
        ("exposed", "no-limit", "args: [added"),
        ("unknown", "release-not-known", "command: [vllm, serve, patch"),
        ("exposed", "no-limit", "command: --model m"),
    ],
    "26-not-words.yaml": [
        ("unknown", "not-a-command", "args: [[m"),
        ("unknown", "not-a-command", "command: [vllm, serve, m, {"),
        ("unknown", "not-a-command", "command: [[vllm"),
        ("ok", "not-needed", "command: [vllm, serve, m, -dp"),
    ],
    "27-around.yaml": [
        ("exposed", "no-limit", "exec vllm serve"),
        ("exposed", "no-limit", "command: [bash, -c"),
    ],
    "kustomize": [
        ("exposed", "value-not-a-limit", "deployment.yaml", "args: [m"),
        ("ok", "environment", "run.sh", "exec vllm"),
        ("ok", "eplb-launch", "serve.txt", "exec eplb-launch"),
    ],
    "compose-more": [
        ("exposed", "no-limit", "compose.yaml", "OTHER:-8"),
        ("unknown", "settings-not-known", "compose.yaml", "OTHER:-1"),
        ("exposed", "no-limit", "compose.yaml", "use_async\\"),
        ("ok", "environment", "compose.yaml", "&exposed"),
        ("exposed", "no-limit", "compose.yaml", "override:", "+extends"),
        ("exposed", "no-limit", "compose.yaml", "reset:", "+extends"),
        ("ok", "not-needed", "compose.yaml", "command: !reset"),
        ("exposed", "no-limit", "compose.yaml", "ENTRYPOINT exec"),
    ],
    "28-workflows.yaml": [
        ("exposed", "no-limit", "      vllm serve m"),
        ("ok", "eplb-launch", "script: eplb-launch"),
        ("exposed", "no-limit", "        vllm serve m"),
    ],
    "29-ray-workers.yaml": [
        ("exposed", "ray-workers", "vllm serve m --data"),
        ("exposed", "ray-workers", "vllm serve m --data"),  # by an alias, of the RayCluster
        ("ok", "environment", "vllm serve both"),
        ("ok", "environment", "vllm serve both"),
        ("ok", "environment", "args: [each"),
        ("exposed", "ray-workers", "entrypoint: vllm serve job"),
        ("ok", "environment", "entrypoint: vllm serve runtime"),
    ],
    "30-two-objects.yaml": [
        ("unknown", "settings-not-known", '"--enable-eplb --eplb-config'),
        ("ok", "not-needed", 'value: "--no-enable-eplb"'),
        ("ok", "not-needed", "args: [of-runtime"),
        ("exposed", "value-too-high", 'args: ["--enable-eplb"'),
        ("ok", "environment", "args: [--enable-eplb, --all2all"),
        ("unknown", "settings-not-known", "runtime: elsewhere", "+args"),
        ("ok", "environment", "args: [whole"),
        ("unknown", "settings-not-known", "modelCommand: vllmServe", "+args"),
        ("ok", "not-needed", "modelCommand: custom", "+command"),
    ],
    "31-no-hint": [
        ("ok", "environment", "other.sh", "exec"),
        ("exposed", "min-p2p-nchannels", "scripts.yaml", "vllm serve wrapped"),
        ("ok", "environment", "scripts.yaml", "vllm serve bare"),
        ("exposed", "min-p2p-nchannels", "service.sh", "exec"),
        ("exposed", "min-nchannels", "opt/run.sh", "exec"),
    ],
    "32-defaults": [
        ("unknown", "settings-not-known", "compose.yaml", "m -dp ${SIZE:-1}"),
        ("exposed", "no-limit", "compose.yaml", "m -dp ${SIZE:-8}"),
        ("ok", "not-needed", "compose.yaml", "m -dp ${RANKS:-8}"),
        ("ok", "not-needed", "compose.yaml", "--model ${MODEL:-m}"),
        ("unknown", "settings-not-known", "compose.yaml", '["more"'),
        ("unknown", "settings-not-known", "compose.yaml", "backend:", "+command"),
        ("ok", "environment", "compose.yaml", "limit:", "+command"),
        ("ok", "not-needed", "compose.yaml", "entrypoint: eplb-launch"),
    ],
    "33-namespaces.yaml": [
        ("unknown", "environment-not-read", "args: [elsewhere"),
        ("exposed", "value-not-a-limit", "args: [own"),
        ("ok", "environment", "args: [other"),
        ("ok", "environment", "args: [not-said"),
        ("unknown", "value-not-known", "args: [anywhere"),
    ],
    "overlays": [
        ("unknown", "value-not-known", "base/pods.yaml", "args:"),
        ("ok", "environment", "production/pods.yaml", "args:"),
    ],
    "include": [("ok", "environment", "more/services.yaml", "command:")],
    "include/compose.yaml": [("ok", "environment", "include/more/services.yaml", "command:")],
    "compose.yaml": [
        ("exposed", "no-limit", "command: --model m"),
        ("ok", "environment", 'command: ["m", "-dp", "8"'),
        ("ok", "eplb-launch", "entrypoint: eplb-launch"),
        ("exposed", "no-limit", "exec vllm serve m -dp $$DP"),
        ("unknown", "settings-not-known", "command: m -dp ${DP_SIZE}"),
        ("ok", "environment", "env_file: [compose.env]", "+command: m -dp 8"),
        ("unknown", "environment-not-read", "env_file: {path", "+command: m -dp 8"),
        ("ok", "eplb-launch", "build: {context", "+command: m -dp 8"),
        ("exposed", "no-limit", "compose-run.sh", "exec /usr/local/bin/vllm"),
    ],
    "extends": [
        ("exposed", "no-limit", "compose.yaml", "command: &exposed"),
        ("exposed", "no-limit", "compose.yaml", "same:", "+extends"),
        ("ok", "environment", "compose.yaml", "limited:", "+extends"),
        ("ok", "not-needed", "compose.yaml", "chain:", "+command"),
        ("ok", "eplb-launch", "compose.yaml", "other-entry:", "+entrypoint"),
        ("exposed", "value-not-a-limit", "compose.yaml", "file-of-variables:", "+entrypoint"),
        ("unknown", "not-a-command", "compose.yaml", "nowhere:", "+extends"),
        ("unknown", "environment-not-read", "compose.yaml", "nowhere-own:", "+command"),
        ("unknown", "not-a-command", "compose.yaml", "circle-a:", "+extends"),
        ("unknown", "not-a-command", "compose.yaml", "circle-b:", "+extends"),
        ("unknown", "not-a-command", "compose.yaml", "no-list:", "+command"),
        ("exposed", "no-limit", "compose.yaml", "release-of-build:", "+command"),
        ("ok", "vllm", "compose.yaml", "its-release:", "+command"),
        ("unknown", "script-not-read", "sub/base.yaml", "root:", "+entrypoint"),
        ("ok", "environment", "sub/docker-compose.yml", "limited-beside:", "+image"),
        ("ok", "not-needed", "sub/docker-compose.yml", "not-beside:", "+command"),
        ("exposed", "value-not-a-limit", "sub/run.sh", "exec vllm"),
        ("exposed", "value-not-a-limit", "sub/run.sh", "exec vllm"),
    ],
    "units": [
        (
            "unknown",
            "settings-not-known",
            "etc/systemd/system/vllm-elsewhere.service",
            "ExecStart=",
        ),
        ("unknown", "release-not-known", "etc/systemd/system/vllm-file.service", "ExecStart="),
        ("unknown", "release-not-known", "etc/systemd/system/vllm.service", "ExecStart=/opt"),
        (
            *("ok", "eplb-launch", "etc/systemd/system/vllm-ranks.service.d/10-launcher.conf"),
            "ExecStart=/opt",
        ),
    ],
    "Dockerfile": [
        ("exposed", "no-limit", "ENTRYPOINT exec vllm"),
        ("exposed", "no-limit", "FROM base AS exec", "+CMD"),
        ("ok", "eplb-launch", 'ENTRYPOINT ["eplb-launch"'),
        ("ok", "environment", "ENV NCCL_MAX_CTAS 8", "+CMD"),
    ],
    "Dockerfile.stages": [
        ("exposed", "no-limit", "CMD"),
        ("exposed", "no-limit", "CMD"),
        ("ok", "environment", "CMD"),
        ("exposed", "min-p2p-nchannels", "CMD"),
        ("unknown", "settings-not-known", "ENTRYPOINT"),
        ("exposed", "no-limit", "ENTRYPOINT"),
        ("ok", "not-needed", "ENTRYPOINT"),
    ],
    "scripts/two-nodes.sh": [
        ("unknown", "release-not-known", "vllm serve deepseek-ai"),
        ("ok", "not-needed", "vllm serve cut"),
        ("unknown", "release-not-known", "vllm serve prefixed"),
    ],
    "scripts/arrays.sh": [
        ("unknown", "release-not-known", "python3 -m dynamo.vllm"),
        ("unknown", "settings-not-known", 'vllm serve m --data-parallel-size 8 "${EXTRA'),
        ("unknown", "release-not-known", 'vllm "${args[@]}"'),
    ],
    "scripts/eval.sh": [
        ("unknown", "release-not-known", "eval $CMD"),
        ("ok", "not-needed", '"$VLLM_BIN" serve'),
    ],
    "scripts/functions.sh": [("ok", "environment", "nsys profile")],
    "scripts/run.sbatch": [
        ("unknown", "release-not-known", "    vllm serve $MODEL"),
        ("ok", "not-needed", "srun uv run vllm serve"),
        ("unknown", "release-not-known", "vllm serve remote"),
        ("unknown", "release-not-known", "vllm serve not-run-by-this"),
    ],
    "scripts/positional.sh": [
        ("unknown", "settings-not-known", "vllm serve m --data-parallel-address $1"),
        ("exposed", "no-limit", "docker run"),
        ("ok", "not-needed", "vllm serve tp-only"),
    ],
}


def line_of(folder: str, *where: str) -> tuple[str, int]:
    """Return the file and line of a text; "+text" is the next one with it after the text before."""
    file, rest = "", list(where)
    if os.path.isfile(os.path.join(DATA, folder, where[0])):
        file = rest.pop(0)
    elif os.path.isfile(os.path.join(DATA, where[0])):
        folder, rest = where[0], rest[1:]
    path = os.path.normpath(os.path.join(DATA, folder, file))
    with open(path, encoding="utf-8") as opened:
        lines = opened.read().split("\n")
    at = 0
    for text in rest:
        at = next(i for i, line in enumerate(lines) if i >= at and text.lstrip("+") in line)
    return path, at + 1


@pytest.mark.parametrize("name", CASES)
def test_every_server_of_a_file_has_its_verdict_at_its_line(name: str) -> None:
    review = check([os.path.join(DATA, name)])
    found = [(f.verdict, f.assessment.cause, f.file, f.line) for f in review.findings]
    assert found == [
        (verdict, cause, *line_of(name, *where)) for verdict, cause, *where in CASES[name]
    ]
    assert review.troubles == ()


def test_every_data_file_is_in_a_case() -> None:
    covered = [os.path.join(DATA, name) for name in CASES]
    beside = {"compose.env", "Dockerfile.compose", "compose-run.sh"}
    for parent, _, files in os.walk(DATA):
        for file in set(files) - beside:
            path = os.path.join(parent, file)
            assert any(path == case or path.startswith(case + "/") for case in covered), path


def test_a_given_release_overrides_every_image() -> None:
    path = os.path.join(DATA, "19-releases.yaml")
    assert {f.verdict for f in check([path], "0.24.0").findings} == {"ok"}
    assert {f.verdict for f in check([path], "0.16.0").findings} == {"exposed"}


def test_a_folder_has_the_findings_of_its_files() -> None:
    whole = check([DATA])
    found = {(f.file, f.line, f.verdict) for f in whole.findings}
    for name in CASES:
        for finding in check([os.path.join(DATA, name)]).findings:
            assert (finding.file, finding.line, finding.verdict) in found


def test_check_does_not_look_at_what_is_installed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lib" / "python3.12" / "site-packages" / "vllm-0.30.0.dist-info"
    folder.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.12").touch(0o755)
    vllm = tmp_path / "bin" / "vllm"
    vllm.write_text(f"#!{tmp_path}/bin/python3.12\n")
    vllm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("NCCL_MAX_CTAS", "8")
    script = tmp_path / "a.sh"
    script.write_text(
        f"{vllm} serve m -dp 8 --enable-eplb --eplb-config.use_async 1 "
        "--all2all-backend deepep_low_latency\n"
    )
    [finding] = check([str(script)]).findings
    assert (finding.verdict, finding.version) == ("unknown", None)
    assert finding.assessment.cause == "release-not-known"


UNITS = os.path.join(DATA, "units")


@pytest.mark.parametrize(
    ("folder", "path", "inside"),
    [
        (UNITS, ".", True),
        (UNITS, "etc", True),
        (UNITS, "etc/systemd", False),
        (UNITS, "etc/systemd/system/vllm-file.service", False),
        (os.path.join(UNITS, "etc/systemd/system"), ".", False),
        (os.path.join(UNITS, "etc/systemd/system"), "vllm-file.service", False),
        ("/", UNITS, True),
    ],
    ids=[
        "the root of the system",
        "a folder of it",
        "a deeper folder",
        "the unit",
        "from its folder",
        "the unit, from its folder",
        "an absolute path",
    ],
)
def test_an_environment_file_is_found_by_any_path_of_its_unit(
    monkeypatch: pytest.MonkeyPatch, folder: str, path: str, *, inside: bool
) -> None:
    monkeypatch.chdir(folder)
    if not inside:
        review = check([path], "0.16.0")
        told = [t.message for t in review.troubles if t.file.endswith("vllm-file.service")]
        assert len(told) == 1
        assert "etc/default/vllm is outside of the checked paths" in told[0]
    review = check([path], "0.16.0", follow=not inside)
    assert [t for t in review.troubles if t.file.endswith("vllm-file.service")] == []
    found = {os.path.basename(f.file): f for f in review.findings}
    # Only with DP=8 of the file it is sure.
    of_file = found["vllm-file.service"].assessment
    assert (of_file.state, of_file.cause) == ("exposed", "no-limit")
    if "vllm-elsewhere.service" in found:
        unread = found["vllm-elsewhere.service"].assessment.unread
        assert unread[-1] == "/srv/secrets/vllm.env (EnvironmentFile=)"


def test_a_variable_that_a_unit_unsets_cannot_be_set_as_a_fix(tmp_path: Path) -> None:
    serve = "vllm serve m -dp 4 --enable-eplb --eplb-config.use_async=true"
    serve += " --all2all-backend deepep_low_latency"
    unit = tmp_path / "vllm.service"
    unit.write_text(f"[Service]\nUnsetEnvironment=A NCCL_MAX_CTAS\nExecStart={serve}\n")
    [finding] = check([str(unit)], "0.16.0").findings
    assert (finding.verdict, len(finding.fixes)) == ("exposed", 1)
    assert finding.notes == ("UnsetEnvironment= unsets NCCL_MAX_CTAS: setting it has no effect",)
    text = finding.fixes[0].text.removesuffix("…")
    unit.write_text(unit.read_text().replace("vllm serve ", text))
    [mended] = check([str(unit)], "0.16.0").findings
    assert (mended.verdict, mended.notes) == ("ok", ())
    unit.write_text(f"[Service]\nUnsetEnvironment=A\nExecStart={serve}\n")
    [other] = check([str(unit)], "0.16.0").findings
    assert (other.verdict, len(other.fixes), other.notes) == ("exposed", 2, ())


GPU_OF = """kind: Pod
apiVersion: v1
metadata: {{name: p}}
spec:
  nodeSelector: {{{selector}}}
  containers:
  - name: v
    image: vllm/vllm-openai:v0.16.0
    command: [{before}vllm, serve, m, -dp, "8", --enable-expert-parallel, --enable-eplb,
      --all2all-backend, deepep_low_latency, --eplb-config.use_async, "true"]
"""
NOTE = "8 fits beside DeepEP on H100 only while NCCL uses half of it; `eplb-launch --max-ctas fit`"


@pytest.mark.parametrize(
    ("selector", "noted"),
    [
        ("nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3", True),
        ("cloud.google.com/gke-accelerator: nvidia-h100-80gb", True),
        ("nvidia.com/gpu.product: NVIDIA-GB200", False),
        ("nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", False),
        ("kubernetes.io/os: linux", False),
        ("nvidia.com/gpu.product: [1]", False),
        ("", False),
    ],
)
def test_the_gpu_in_a_node_selector_gives_a_note(
    tmp_path: Path, selector: str, noted: bool
) -> None:
    for before, verdict in (("", "exposed"), ("eplb-launch, --, ", "ok")):
        path = tmp_path / "pod.yaml"
        path.write_text(GPU_OF.format(selector=selector, before=before))
        (finding,) = check([str(path)]).findings
        assert finding.verdict == verdict
        assert finding.notes == ((NOTE,) if noted else ())
