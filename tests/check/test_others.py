"""Files without a reader, lines that start no server, and how a review reports them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from eplb_launch.check import reader, sources
from eplb_launch.check.command import check, run
from eplb_launch.check.others import why_no_server

if TYPE_CHECKING:
    from pathlib import Path

EPLB = "-dp 8 --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
NOTHING = "nothing was checked: check found no file that it reads; give the path of a file"
SERVE = f"vllm serve m {EPLB}"

# The name of a file, its text, and the verdict and the line of each server.
CASES: dict[str, tuple[str, str, list[tuple[str, int]]]] = {
    "a Makefile": ("Makefile", f"# vllm serve\nserve:\n\t@{SERVE}\n", [("exposed", 3)]),
    "a Makefile with variables": ("Makefile", "serve:\n\tvllm serve $(ARGS)\n", [("unknown", 2)]),
    "a Makefile with a continued line": (
        "serve.mk",
        f"serve:\n\tvllm serve m \\\n\t  {EPLB}\n",
        [("exposed", 2)],
    ),
    "settings without EPLB prove nothing": ("Makefile", "a:\n\tvllm serve m\n", [("unknown", 2)]),
    "a Makefile that sets the cap": (
        "Makefile",
        f"a:\n\tNCCL_MAX_CTAS=8 {SERVE}\n",
        [("unknown", 2)],
    ),
    "supervisord": ("vllm.ini", f"[program:v]\ncommand={SERVE}\n", [("exposed", 2)]),
    "Terraform": ("a.tf", 'command = ["vllm", "serve", "m"]\n', [("unknown", 1)]),
    "a Jenkinsfile": ("Jenkinsfile", f"node {{\n  sh '{SERVE}'\n}}\n", [("unknown", 2)]),
    "a template": ("run.sh.j2", "{% if a %}\nvllm serve {{ m }}\n", [("unknown", 2)]),
    "an unknown suffix": ("start.foo", "exec vllm serve m\n", [("unknown", 1)]),
    "a line that is shown": ("Makefile", 'a:\n\t@echo "vllm serve m"\n', []),
    "a line that is searched for": ("Makefile", "a:\n\t-pkill -f 'vllm serve'\n", []),
    "a comment": ("a.tf", "// vllm serve m\n/* vllm serve m\n * vllm serve m\n*/\n", []),
    "help": ("Makefile", "a:\n\tvllm serve --help\n", []),
    "a document": ("guide.md", f"    {SERVE}\n", []),
    "a program": ("start.py", f"subprocess.run({SERVE.split()})\n", []),
    "no entry point": ("Makefile", "a:\n\tvllm bench serve\n\tpip install vllm\n", []),
}


@pytest.mark.parametrize(("name", "text", "servers"), CASES.values(), ids=CASES)
def test_an_entry_point_in_a_file_without_a_reader_is_unknown(
    tmp_path: Path, name: str, text: str, servers: list[tuple[str, int]]
) -> None:
    (tmp_path / name).write_text(text)
    review = check([str(tmp_path)], "0.16.0")
    assert [(one.verdict, one.line) for one in review.findings] == servers
    assert not review.troubles
    for finding in review.findings:
        guessed = finding.verdict == "unknown"
        assert (finding.assessment.cause == "no-reader") == guessed
        assert (name in finding.assessment.reason) == guessed
    said = {one.line for one in review.findings} | {one.line for one in review.mentions}
    number = sum("vllm serve" in line or '"vllm", "serve' in line for line in text.split("\n"))
    assert len(said) >= number - text.count("bench serve")


def test_a_named_document_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text(f"Start it:\n\n    vllm serve m\n\nor\n\n    {SERVE}\n")
    found = check([str(path)], "0.16.0").findings
    assert [(one.verdict, one.line) for one in found] == [("unknown", 3), ("exposed", 7)]


@pytest.mark.parametrize("content", [b"\0vllm serve m", b"\xff vllm serve m", b"x" * 9 + b"vllm"])
def test_binary_data_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.bin").write_bytes(content)
    review = check([str(tmp_path)])
    assert (review.findings, review.troubles, review.files) == ((), (), 0)


def test_large_files_of_no_kind_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"vllm serve m\n" * 10)
    monkeypatch.setattr(sources, "MAX_TEXT", 100)
    assert not check([str(tmp_path)]).findings


def test_too_many_files_of_no_kind_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.foo").write_text("vllm serve m\n")
    monkeypatch.setattr(reader, "MAX_FILES", 3)
    review = check([str(tmp_path)])
    assert len(review.findings) == 3
    [trouble] = review.troubles
    assert "not all are searched" in trouble.message


@pytest.mark.parametrize(
    ("line", "why"),
    {
        "# vllm serve m": "a comment",
        "   // vllm serve m": "a comment",
        "<!-- vllm serve m": "a comment",
        "{{/* vllm serve m */}}": "a comment",
        "  echo vllm serve m": "only printed or searched for: echo",
        '- run: echo "vllm serve m"': "only printed or searched for: echo",
        "/usr/bin/pgrep -f 'vllm serve'": "only printed or searched for: pgrep",
        "vllm serve --help=ParallelConfig": "it prints help or the version",
        "vllm serve -h": "it prints help or the version",
        "vllm serve m": "",
        "exec vllm serve m --host h": "",
        "local cmd='vllm serve m'": "",
        "export RUN='vllm serve m'": "",
        "echoes vllm serve m": "",
        "set -- vllm serve m": "",
    }.items(),
)
def test_a_line_that_starts_no_server_has_a_reason(line: str, why: str) -> None:
    assert why_no_server(line) == why


def test_every_line_with_an_entry_point_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.sh").write_text("# vllm serve a\necho vllm serve b\nvllm serve c\n")
    (tmp_path / "b.md").write_text("vllm serve d\n")
    (tmp_path / "c.yaml").write_text("description: vllm serve e\nspec:\n  vllm: serve\n")
    (tmp_path / "d.yaml").write_text("a: [\nb: vllm serve f\n")
    (tmp_path / "e.yaml").write_text('run: ["vllm",\n  "serve",\n  "g"]\n')
    run([str(tmp_path)], style="text", verbose=True)
    out = capsys.readouterr().out.replace(f"{tmp_path}/", "")
    assert [line for line in out.split("\n") if ": no server: " in line] == [
        "a.sh:1: no server: a comment",
        "a.sh:2: no server: only printed or searched for: echo",
        "b.md:1: no server: a document",
        "c.yaml:1: no server: no command that check can read starts it",
        "d.yaml:2: no server: a part of the file is not read",
    ]
    summary = "2 servers in 4 files: 0 exposed to the EPLB hang, 0 unknown, 2 ok; "
    summary += "5 lines with an entry point start no server (--verbose); 1 part not read"
    assert out.split("\n")[-2] == summary
    run([str(tmp_path)], style="text")
    assert ": no server: " not in capsys.readouterr().out
    run([str(tmp_path)], style="json")
    told = json.loads(capsys.readouterr().out)["mentions"]
    assert [(entry["line"], entry["why"]) for entry in told][:1] == [(1, "a comment")]
    run([str(tmp_path)], style="github", verbose=True)
    assert "no server: a document\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, NOTHING),
        ({"a.txt": "hello"}, NOTHING),
        (
            {"a.yaml": "a: b", "b.sh": "ls"},
            "0 servers in 2 files: check found no command that starts vLLM",
        ),
        (
            {"a.md": "vllm serve m"},
            f"{NOTHING}; 1 line with an entry point starts no server (--verbose)",
        ),
    ],
)
def test_a_review_without_servers_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run([str(tmp_path)], style="text") == 0
    assert capsys.readouterr().out == f"{said}\n"
