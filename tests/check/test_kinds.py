"""Kinds of deployment files: how they are recognized, and what a new one needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch.check import reader
from eplb_launch.check.command import check
from eplb_launch.check.kind import Kind
from eplb_launch.check.tasks import Style, Task, Word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from eplb_launch.check.sources import Source

SERVE = "vllm serve m -dp 8 --enable-eplb --all2all-backend deepep_low_latency"
SERVE += " --eplb-config.use_async true"


class Procfile(Kind):
    """A file with a process a line: `web := CMD`."""

    title = "a Procfile"
    form = "Procfile"

    @classmethod
    def is_named(cls, path: str) -> bool:
        return path.endswith("Procfile")

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        return first.startswith("web := ")

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]]]:
        place = Style("in .env", "NCCL_MAX_CTAS=8", line=True)
        for source in self.sources:
            lines = enumerate(source.text.splitlines(), 1)
            commands = [(n, *line.partition(" := ")[::2]) for n, line in lines]
            yield (
                source,
                (
                    Task(place, name, source, n, tuple(Word(w, source, n) for w in text.split()))
                    for n, name, text in commands
                ),
            )


@pytest.mark.parametrize("name", ["Procfile", "procs"])
def test_a_new_kind_needs_one_class_and_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_text(f"web := nginx\ndecode := {SERVE}\n")
    before = check([str(path)], "0.16.0")
    assert not before.findings
    monkeypatch.setattr(reader, "KINDS", (Procfile, *reader.KINDS))
    [finding] = check([str(path)], "0.16.0").findings
    assert (finding.line, finding.name, finding.verdict) == (2, "decode", "exposed")
    assert [(fix.how, fix.text) for fix in finding.fixes] == [
        ("put eplb-launch directly before the server", "eplb-launch -- vllm serve …"),
        ("or set NCCL_MAX_CTAS in .env", "NCCL_MAX_CTAS=8"),
    ]


@pytest.mark.parametrize(
    ("first", "known"),
    {
        "#!/bin/sh": True,
        "#!/usr/bin/env bash": True,
        "#!/bin/mksh -e": True,
        "#!/usr/bin/fish": False,
        "#!/usr/bin/pwsh": False,
        "#!/usr/share/bin/python3": False,
    }.items(),
)
def test_a_script_is_recognized_by_its_shell(tmp_path: Path, first: str, known: bool) -> None:
    path = tmp_path / "start"
    path.write_text(f"{first}\nNCCL_MAX_CTAS=8 {SERVE}\n")
    verdict = "ok" if known else "unknown"
    named = check([str(path)], "0.16.0")
    assert [(one.line, one.verdict) for one in named.findings] == [(2, verdict)]
    below = check([str(tmp_path)], "0.16.0")
    assert [one.verdict for one in below.findings] == [verdict] * ("python" not in first)
    assert not named.troubles + below.troubles


def test_a_script_of_another_language_without_an_entry_point_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "start"
    path.write_text("#!/usr/bin/fish\nls\n")
    [trouble] = check([str(path)]).troubles
    message = "not a file that check reads: a Dockerfile, a Quadlet unit, a systemd unit, "
    message += "a shell script, a compose file, Kubernetes YAML or YAML that starts vLLM"
    assert trouble.message == message


IMAGE = "vllm/vllm-openai:v0.16.0"
STARTS = "entrypoint: [bash, /s/run.sh]"
FOLDERS = {
    "a mounted folder": ("compose.yaml", f"volumes: ['./f:/s:ro']\n    {STARTS}", "exposed"),
    "with the cap": (
        "compose.yaml",
        f"environment: [NCCL_MAX_CTAS=8]\n    volumes: [{{source: ./f, target: /s}}]\n    {STARTS}",
        "ok",
    ),
    "the folder of the file": (
        "compose.yaml",
        "volumes: ['.:/s']\n    working_dir: /s/f\n    command: [bash, run.sh]\n    entrypoint: []",
        "exposed",
    ),
    "another folder": ("compose.yaml", f"volumes: ['./f:/t']\n    {STARTS}", "unknown"),
    "a volume with a name": ("compose.yaml", f"volumes: ['f:/s']\n    {STARTS}", "unknown"),
    "COPY of a folder": ("Dockerfile", 'COPY f /s/\nENTRYPOINT ["bash", "/s/run.sh"]', "exposed"),
    "COPY of all": (
        "Dockerfile",
        'WORKDIR /s\nCOPY . .\nENV NCCL_MAX_CTAS=8\nENTRYPOINT ["./f/run.sh"]',
        "ok",
    ),
    "the context is the folder above": (
        "docker/Dockerfile",
        'COPY f/run.sh /s/\nENTRYPOINT ["bash", "/s/run.sh"]',
        "exposed",
    ),
    "the context is the folder above, COPY of all": (
        "docker/Dockerfile",
        'COPY . /s/\nENTRYPOINT ["bash", "/s/f/run.sh"]',
        "exposed",
    ),
    "COPY of another stage": (
        "Dockerfile",
        'COPY --from=x f /s/\nENTRYPOINT ["bash", "/s/run.sh"]',
        "unknown",
    ),
}


@pytest.mark.parametrize(("name", "text", "verdict"), FOLDERS.values(), ids=FOLDERS)
def test_a_script_in_a_mounted_or_copied_folder_is_read(
    tmp_path: Path, name: str, text: str, verdict: str
) -> None:
    services = f"services:\n  v:\n    image: {IMAGE}\n    "
    begin = f"FROM {IMAGE}\n" if name.endswith("Dockerfile") else services
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{begin}{text}\n")
    script = tmp_path / "f" / "run.sh"
    script.parent.mkdir()
    script.write_text(f"#!/bin/bash\nexec {SERVE}\n")
    review = check([str(tmp_path)])
    [finding] = (one for one in review.findings if one.name)
    assert not review.troubles
    place = (str(path), finding.line) if verdict == "unknown" else (str(script), 2)
    assert (finding.verdict, finding.file, finding.line) == (verdict, *place)


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("Environment=A=b NCCL_MAX_CTAS=64", "NCCL_MAX_CTAS=64", "NCCL_MAX_CTAS=8"),
        ('Environment="NCCL_MAX_CTAS=0"', "NCCL_MAX_CTAS=0", "NCCL_MAX_CTAS=8"),
    ],
)
@pytest.mark.parametrize("name", ["v.service", "v.container"])
def test_the_fix_of_a_unit_keeps_the_other_variables_of_its_line(
    tmp_path: Path, name: str, line: str, old: str, new: str
) -> None:
    starts = f"[Service]\n{line}\nExecStart={SERVE}\n"
    if name == "v.container":
        starts = f"[Container]\n{line}\nImage={IMAGE}\nExec={SERVE.removeprefix('vllm serve ')}\n"
    path = tmp_path / name
    path.write_text(starts)
    [finding] = check([str(path)], "0.16.0").findings
    [fix] = finding.fixes
    assert (finding.verdict, fix.how.rpartition(":")[2][:1], fix.text) == ("exposed", "2", new)
    path.write_text(starts.replace(old, fix.text))
    assert [one.verdict for one in check([str(path)], "0.16.0").findings] == ["ok"]


@pytest.mark.parametrize(
    ("steps", "version"),
    {
        "RUN pip install vllm==0.16.0": "0.16.0",
        "RUN uv pip install --system 'vllm[flashinfer]==0.12.0' ray": "0.12.0",
        "ARG V=0.16.0\nRUN pip install \\\n  vllm==${V} \\\n  ray==2.50.0": "0.16.0",
        "RUN pip install vllm==0.12.0\nRUN pip install vllm==0.16.1": "0.16.1",
        "RUN pip install vllm==$(cat version)": None,
        "ARG V\nRUN pip install vllm==$V": None,
        "RUN pip install vllm>=0.16.0": None,
        "RUN pip install my-vllm==0.16.0 ray==2.50.0": None,
    }.items(),
)
def test_a_step_that_installs_vllm_tells_the_release(
    tmp_path: Path, steps: str, version: str | None
) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(f"FROM nvidia/cuda:12.8.0\n{steps}\nCMD {SERVE}\n")
    [finding] = check([str(path)]).findings
    expected = ("exposed", version) if version else ("unknown", None)
    assert (finding.verdict, finding.version) == expected
    (tmp_path / "compose.yaml").write_text("services: {v: {build: .}}\n")
    assert {one.version for one in check([str(tmp_path)]).findings} == {version}
