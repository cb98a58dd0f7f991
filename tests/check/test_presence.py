"""The launcher must be where a file starts it, also by the fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch.check import images
from eplb_launch.check.command import check
from eplb_launch.check.launcher import CODE, PLACE

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch.check.model import Finding

EPLB = "-dp 8 --enable-eplb --eplb-config.use_async=true --all2all-backend=deepep_low_latency"
LISTED = ", ".join(f'"{word}"' for word in ["m", *EPLB.split()])
STOCK = "vllm/vllm-openai:v0.16.0"
BARE = 'eplb-launch, "--", vllm, serve'
PYZ = f'python3, {PLACE}, "--", vllm, serve'


def pod(command: str, image: str = STOCK, more: str = "") -> str:
    return (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n"
        f"  - name: v\n    image: {image}\n    command: [{command}]\n    args: [{LISTED}]\n{more}"
    )


def mount(path: str) -> str:
    return f"    volumeMounts: [{{name: v, mountPath: {path}}}]\n"


def compose(more: str, command: str = BARE) -> str:
    return (
        f"services:\n  v:\n    image: {STOCK}\n    entrypoint: [{command}]\n"
        f"    command: [{LISTED}]\n{more}"
    )


def script(before: str) -> str:
    return pod(f'bash, -c, "{before}; exec eplb-launch -- vllm serve m {EPLB}"')


def dockerfile(*steps: str) -> str:
    words = '["eplb-launch", "--", "vllm", "serve"]'
    return "\n".join([f"FROM {STOCK}", *steps, f"ENTRYPOINT {words}", f"CMD [{LISTED}]", ""])


def unit(start: str, *more: str) -> str:
    return "\n".join(["[Service]", *more, f"ExecStart={start} serve m {EPLB}", ""])


CASES: dict[str, tuple[str, str, bool]] = {
    "a published image": ("p.yaml", pod(BARE), True),
    "an image of llm-d": ("p.yaml", pod(BARE, "ghcr.io/llm-d/llm-d-cuda:v0.4"), True),
    "an image of Dynamo": ("p.yaml", pod(BARE, "nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.8"), True),
    "models and memory are mounted": ("p.yaml", pod(BARE, more=mount("/dev/shm")), True),
    "the single file, not mounted": ("p.yaml", pod(PYZ), True),
    "a script in a pod": ("p.yaml", script("cd /models"), True),
    "a service": ("compose.yaml", compose("    volumes: ['./m:/models']\n"), True),
    "an image that only sets variables": ("Dockerfile", dockerfile("ENV A=b", "RUN ls"), True),
    "an image that only copies a script": (
        "Dockerfile",
        dockerfile("COPY start.sh /start.sh"),
        True,
    ),
    "docker run": ("a.sh", f"docker run {STOCK} eplb-launch -- vllm serve m {EPLB}\n", True),
    "systemd": ("v.service", unit("eplb-launch -- /opt/vllm/bin/vllm"), True),
    # Near misses.
    "an image that is not published": (
        "p.yaml",
        pod(BARE, "registry.example.com/vllm-openai:v0.16.0"),
        False,
    ),
    "folders of programs are mounted": ("p.yaml", pod(BARE, more=mount("/opt/tools")), False),
    "the single file, mounted": ("p.yaml", pod(PYZ, more=mount("/opt/eplb-launch")), False),
    "the single file, mounted elsewhere": (
        "p.yaml",
        pod(PYZ.replace("/opt/eplb-launch", "/srv/l"), more=mount("/srv/l/")),
        False,
    ),
    "a script installs it": ("p.yaml", script("pip install eplb-launch"), False),
    "a script may install it": ("p.yaml", script("uv pip install -r all.txt"), False),
    "a service that mounts it": (
        "compose.yaml",
        compose(f"    volumes: ['./l.pyz:{PLACE}']\n", PYZ),
        False,
    ),
    "a build that installs it": ("Dockerfile", dockerfile("RUN pip install eplb-launch"), False),
    "a build that copies more": ("Dockerfile", dockerfile("COPY . /src"), False),
    "a build that copies a stage": ("Dockerfile", dockerfile("COPY --from=b /a /b"), False),
    "docker run with a mount": (
        "a.sh",
        f"docker run -v ./bin:/usr/local/bin {STOCK} eplb-launch -- vllm serve m {EPLB}\n",
        False,
    ),
    "the launcher before docker run": (
        "a.sh",
        f"eplb-launch -- docker run -e NCCL_MAX_CTAS {STOCK} vllm serve m {EPLB}\n",
        False,
    ),
    "a unit with the whole path": (
        "v.service",
        unit("/opt/vllm/bin/eplb-launch -- /opt/vllm/bin/vllm"),
        False,
    ),
    "a unit of programs of the system": ("v.service", unit("eplb-launch -- /usr/bin/vllm"), False),
    "a unit of bare names": ("v.service", unit("eplb-launch -- vllm"), False),
    "a shell in a unit": (
        "v.service",
        unit("/bin/bash -c 'eplb-launch -- /opt/v/bin/vllm").rstrip() + "'\n",
        False,
    ),
    "a pod without the launcher": ("p.yaml", pod("vllm, serve"), False),
}


def only(path: Path) -> Finding:
    [finding] = check([str(path)], "0.16.0").findings
    return finding


@pytest.mark.parametrize(("name", "text", "absent"), CASES.values(), ids=CASES)
def test_a_missing_launcher_is_a_warning(
    tmp_path: Path, name: str, text: str, absent: bool
) -> None:
    (tmp_path / name).write_text(text)
    codes = [warning.code for warning in only(tmp_path).assessment.warnings]
    assert (CODE in codes) == absent


@pytest.mark.parametrize(
    ("image", "mounts", "bare"),
    [
        (STOCK, (), True),
        (f"docker.io/{STOCK}", ("/models", "/root/.cache/huggingface"), True),
        ("public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:1", (), False),
        ("nvcr.io/nvidia/vllm:25.09-py3", (), True),
        (STOCK, ("/",), False),
        (STOCK, ("/optional",), True),
        (STOCK, ("/srv/venv",), False),
        ("me/vllm-openai", (), False),
        ("", (), False),
    ],
)
def test_a_published_image_is_bare_without_mounts_of_programs(
    image: str, mounts: tuple[str, ...], bare: bool
) -> None:
    assert images.is_bare(image, mounts) == bare


def test_the_fixes_for_a_published_image_work_there(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(pod("vllm, serve"))
    first, second = only(tmp_path).fixes
    assert (first.how, first.text.split("\n")[0]) == ("set NCCL_MAX_CTAS in the container", "env:")
    assert second.how == "or start the command with eplb-launch, mounted from its ConfigMap"
    assert second.text == f'command: ["python3", "{PLACE}", "--", "vllm", "serve", …]'
    whole = second.text.removeprefix("command: [").removesuffix(", …]")
    (tmp_path / "p.yaml").write_text(pod(whole, more=mount("/opt/eplb-launch")))
    found = only(tmp_path)
    assert (found.verdict, found.assessment.warnings) == ("ok", ())


@pytest.mark.parametrize(
    ("program", "launcher"),
    {
        "/opt/vllm/bin/vllm": "/opt/vllm/bin/eplb-launch",
        "/usr/bin/vllm": "eplb-launch",
        "vllm": "eplb-launch",
    }.items(),
)
def test_the_fix_for_a_unit_names_the_installed_launcher(
    tmp_path: Path, program: str, launcher: str
) -> None:
    path = tmp_path / "v.service"
    path.write_text(unit(program))
    fix = only(tmp_path).fixes[0]
    assert fix.text == f"{launcher} -- {program} serve …"
    path.write_text(unit(fix.text.partition(" serve")[0]))
    found = only(tmp_path)
    assert (found.verdict, found.assessment.warnings) == ("ok", ())


def test_the_fix_of_a_unit_that_runs_a_module_has_an_absolute_path(tmp_path: Path) -> None:
    path = tmp_path / "v.service"
    module = "vllm.entrypoints.openai.api_server --model"
    path.write_text(unit(f"/opt/v/bin/python3 -m {module}").replace(" serve m", " m"))
    assert only(tmp_path).fixes[0].text == (
        "/opt/v/bin/eplb-launch -- /opt/v/bin/python3 -m vllm.entrypoints.openai.api_server …"
    )
