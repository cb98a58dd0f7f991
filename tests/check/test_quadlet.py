"""`eplb-launch check` on the units that Podman makes containers of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch.check.command import check

if TYPE_CHECKING:
    from pathlib import Path

EPLB = "--enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
ARGS = f"Exec=--model m -dp 8 {EPLB}"
IMAGE = "Image=docker.io/vllm/vllm-openai:v0.16.0"


def unit(*lines: str) -> str:
    return "\n".join(["[Unit]", "Description=vllm serve", "[Container]", *lines, ""])


@pytest.mark.parametrize(
    ("lines", "verdict", "line"),
    [
        ([IMAGE, ARGS], "exposed", 5),
        ([ARGS, IMAGE], "exposed", 4),
        (["Image=vllm/vllm-openai:v0.15.0", ARGS.replace("true", "false")], "ok", 5),
        (["Image=vllm/vllm-openai:v0.19.0", ARGS], "ok", 5),
        (["Image=vllm.build", ARGS], "unknown", 5),
        ([IMAGE, "Environment=NCCL_MAX_CTAS=8", ARGS], "ok", 6),
        ([IMAGE, "Environment=NCCL_MAX_CTAS=64", ARGS], "exposed", 6),
        ([IMAGE, "EnvironmentFile=/etc/engine.env", ARGS], "unknown", 6),
        ([IMAGE, "PodmanArgs=--gpus all", ARGS], "exposed", 6),
        ([IMAGE, "PodmanArgs=--env-file=/etc/e", ARGS], "unknown", 6),
        ([IMAGE, "Entrypoint=vllm", ARGS.replace("--model m", "serve m")], "exposed", 6),
        ([IMAGE, 'Entrypoint=["vllm", "serve"]', ARGS], "exposed", 6),
        ([IMAGE, "Entrypoint=/start.sh", "Exec=m"], "unknown", 6),
        ([IMAGE, "Exec=--model m $MORE"], "unknown", 5),
        ([IMAGE, ARGS, "[Service]", "ExecStart=vllm serve n"], "exposed", 5),
        ([IMAGE, ARGS, "Exec=--model m"], "ok", 6),
        ([IMAGE, ARGS + " \\", "  --port 1"], "exposed", 5),
    ],
    ids=[
        "a release that hangs",
        "Image= after Exec=",
        "sync EPLB",
        "a release that is not affected",
        "an image that is built",
        "the cap",
        "too high a cap",
        "EnvironmentFile=",
        "another option of Podman",
        "variables in PodmanArgs=",
        "Entrypoint= with a word",
        "Entrypoint= with a list",
        "Entrypoint= with a script that is not here",
        "an unknown word",
        "another section",
        "the last Exec= counts",
        "two lines",
    ],
)
def test_a_unit_has_its_verdict_at_its_line(
    tmp_path: Path, lines: list[str], verdict: str, line: int
) -> None:
    path = tmp_path / "decode.container"
    path.write_text(unit(*lines))
    review = check([str(path)])
    assert [(one.verdict, one.line) for one in review.findings] == [(verdict, line)]
    assert not review.troubles


@pytest.mark.parametrize(
    "lines",
    [[IMAGE], ["Image=nginx", "Exec=nginx"], ["Image=vllm-proxy", "Exec=-dp 8"]],
    ids=["no arguments", "another program", "a proxy"],
)
def test_a_container_unit_without_a_server_gives_no_finding(
    tmp_path: Path, lines: list[str]
) -> None:
    (tmp_path / "a.container").write_text(unit(*lines))
    review = check([str(tmp_path)])
    assert not review.findings
    assert not review.troubles


def test_the_fixes_of_a_container_unit_are_the_variable_and_an_entrypoint(tmp_path: Path) -> None:
    (tmp_path / "a.container").write_text(unit(IMAGE, ARGS))
    [finding] = check([str(tmp_path)]).findings
    assert [fix.text for fix in finding.fixes] == [
        "[Container]\nEnvironment=NCCL_MAX_CTAS=8",
        'Entrypoint=["python3", "/opt/eplb-launch/eplb-launch.pyz", "--", "vllm", "serve"]',
    ]


def test_a_drop_in_of_a_container_unit_counts(tmp_path: Path) -> None:
    (tmp_path / "a.container").write_text(unit(IMAGE, ARGS))
    (tmp_path / "a.container.d").mkdir()
    drop_in = tmp_path / "a.container.d" / "10.conf"
    drop_in.write_text("[Container]\nEnvironment=NCCL_MAX_CTAS=8\n")
    assert [one.verdict for one in check([str(tmp_path)]).findings] == ["ok"]
    drop_in.write_text("[Service]\nEnvironment=NCCL_MAX_CTAS=8\n")  # of Podman, not of the server
    assert [one.verdict for one in check([str(tmp_path)]).findings] == ["exposed"]


def test_a_container_unit_without_a_suffix_is_known_by_its_section(tmp_path: Path) -> None:
    path = tmp_path / "unit"
    path.write_text(unit(IMAGE, ARGS))
    assert [one.verdict for one in check([str(path)]).findings] == ["exposed"]


@pytest.mark.parametrize("volume", ["./run.sh:/run.sh:ro,Z", "/srv/run.sh:/run.sh"])
def test_a_mounted_script_is_read(tmp_path: Path, volume: str) -> None:
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/sh\nexec vllm serve {ARGS.removeprefix('Exec=--model ')}\n")
    path = tmp_path / "a.container"
    path.write_text(unit(IMAGE, f"Volume={volume}", "Entrypoint=/run.sh"))
    [finding] = check([str(path)]).findings
    assert (finding.verdict, finding.file, finding.line) == ("exposed", str(script), 2)
    path.write_text(unit(IMAGE, f"Volume=models{volume[1:]}", "Entrypoint=/run.sh"))
    assert [one.assessment.cause for one in check([str(path)]).findings] == ["script-not-read"]
