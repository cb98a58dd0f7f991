"""`eplb-launch check` on hostile files: work is bounded, and nothing is executed."""

from __future__ import annotations

import errno
import importlib
import io
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import counted

from eplb_launch.check.command import check
from eplb_launch.check.reports import STYLES
from eplb_launch.check.sources import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata:\n"
VOLUME = "  volumes: [{name: s, configMap: {name: s}}]\n"
MOUNTS = "".join(f"{{name: s, mountPath: /m{i}}}, " for i in range(90))
DOUBLING = "".join(f"    - {{name: e{i + 1}, value: '$(e{i})$(e{i})'}}\n" for i in range(40))
INVALID = "not valid YAML, or nested more than 100 deep"
LAUGHS = "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)

# The name of a file, its content, and a part of the one message (None: no message).
CASES = [
    pytest.param("a.yaml", "a: &a [vllm, vllm]\n" + LAUGHS, None, id="a billion laughs"),
    pytest.param(
        "a.yaml",
        HEAD + "  - &c {image: vllm, args: [m]}\n" + "  - *c\n" * 3000,
        None,
        id="a container, many times",
    ),
    pytest.param(
        "a.yaml",
        HEAD
        + f"  - {{image: vllm, args: &a [{'x, ' * 5_000}]}}\n"
        + "  - {image: vllm, args: *a}\n" * 100,
        "it takes more work than any real file",
        id="arguments, many times",
    ),
    pytest.param("a.yaml", "vllm: " + "[" * 200_000, INVALID, id="[[[["),
    pytest.param("a.yaml", "vllm: " + "{a: " * 50_000, INVALID, id="{a: {a:"),
    pytest.param("a.yaml", "".join(" " * i + "a:\n" for i in range(2000)), INVALID, id="stairs"),
    pytest.param("a.yaml", "---\nvllm: 1\n" * 21_000, "more than 400,000 values", id="documents"),
    pytest.param(
        "a.yaml",
        "apiVersion: v1\nkind: List\nitems: &i\n- {kind: List, apiVersion: v1, items: *i}\n- *i\n"
        "- &s {kind: Pod, apiVersion: vllm, spec: *s}\n",
        None,
        id="a list in itself",
    ),
    pytest.param(
        "a.yaml",
        "x: &x0 [vllm]\n"
        + "".join(f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]\n" for i in range(1, 80))
        + "services:\n"
        + "".join(f"  s{i}: {{image: vllm, command: *x79}}\n" for i in range(900)),
        None,
        id="commands of lists of lists",
    ),
    pytest.param(
        "a.yaml",
        CONFIG_MAP
        + "".join(f"  k{i}: v\n" for i in range(100_000))
        + f"---\n{HEAD}  - {{image: vllm, args: [m], volumeMounts: [{MOUNTS * 200}]}}\n{VOLUME}",
        "more than 10,000 files in one container",
        id="a ConfigMap of many keys, mounted many times",
    ),
    pytest.param(
        "a.yaml",
        f"{CONFIG_MAP}  a: {'x' * 1_000_000}\n---\n{HEAD}"
        f"  - {{image: vllm, args: [m], volumeMounts: &m [{MOUNTS}]}}\n"
        + "  - {image: vllm, args: [/m1/a], volumeMounts: *m}\n" * 900
        + VOLUME,
        "it takes more work than any real file",
        id="a large ConfigMap, mounted many times",
    ),
    pytest.param(
        "a.yaml",
        "x: &s |\n"
        + "".join(
            f'  X{i}=$X{i - 1}y; if [ "$X{i}" = z ]; then vllm serve m $X{i} {"-tp 1 " * 22}; fi\n'
            for i in range(1_000)
        )
        + HEAD
        + "  - {image: vllm, command: [bash, -c, *s]}\n" * 30,
        None,
        id="a script, many times",
    ),
    pytest.param(
        "a.yaml",
        "vllm: 1\n"
        + "".join(
            f"a{i}: &a{i}\n  k{i}: 1\n"
            f"  <<: [{', '.join(f'*a{j}' for j in range(max(0, i - 20), i))}]\n"
            for i in range(900)
        ),
        "more than 400,000 values",
        id="merges of merges",
    ),
    pytest.param(
        "a.yaml",
        "vllm: &a {"
        + "".join(f"b{i}: {{<<: *a}}, " for i in range(500))
        + "".join(f"c{i}: 1, " for i in range(100_000))
        + "}\n",
        "more than 400,000 values",
        id="a map merged into its values",
    ),
    pytest.param(
        "a.yaml",
        "services:\n  s0: {image: vllm, command: [m]}\n"
        + "".join(f"  s{i + 1}: {{extends: s{i}}}\n" for i in range(900)),
        None,
        id="extends of extends",
    ),
    pytest.param(
        "a.yaml",
        "services:\n"
        + "".join(
            f"  s{i}: {{image: vllm, command: m, extends: s{i + 1}}}\n" for i in range(9_000)
        ),
        "it takes more work than any real file",
        id="a long chain of extends",
    ),
    pytest.param(
        "a.yaml",
        "".join(
            "---\nkind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: vllm\n    command:\n"
            f"    - bash\n    - -c\n    - x={i}; set -- a; {'set -- $@ $@; ' * 40} vllm serve $@\n"
            for i in range(200)
        ),
        "it takes more work than any real file",
        id="shell strings that double",
    ),
    pytest.param(
        "a.yaml",
        f"x: &x |\n{'  ENV A=1' + chr(10) * 90_000}\nservices:\n"
        + "".join(f"  s{i}: {{build: {{dockerfile_inline: *x}}}}\n# vllm" for i in range(900)),
        None,
        id="an inline Dockerfile, many times",
    ),
    pytest.param(
        "a.yaml",
        "".join(
            "--- {kind: Pod, apiVersion: v1, spec: {containers: "
            f"[{{image: vllm, args: [m{i}]}}]}}}}\n"
            for i in range(3_000)
        ),
        "it takes more work than any real file",
        id="documents, each with a server",
    ),
    pytest.param(
        "a.yaml",
        "".join(
            f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: s{i}}}\n"
            f"data: {{a.sh: vllm serve m{i}}}\n"
            for i in range(4_000)
        ),
        "it takes more work than any real file",
        id="ConfigMaps, each with a script",
    ),
    pytest.param(
        "a.yaml",
        "services:\n"
        + "".join(f"  s{i}: {{extends: {{file: x{i}, service: vllm}}}}\n" for i in range(900)),
        None,
        id="extends of files",
    ),
    pytest.param(
        "a.yaml",
        "".join(
            f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{A{i}: vllm}}\n"
            for i in range(4_000)
        )
        + "---\n"
        + HEAD
        + "  - image: vllm\n    args: [m]\n    envFrom: [{configMapRef: {name: c}}]\n" * 20,
        None,
        id="ConfigMaps of one name",
    ),
    pytest.param(
        "a.yaml",
        "services: &s\n  <<: [*s, *s]\n  vllm: {<<: *s}\n",
        None,
        id="a map merged into itself",
    ),
    pytest.param(
        "a.yaml",
        HEAD
        + "  - image: vllm/vllm-openai:v0.16.0\n    args: [$(e40)]\n    env:\n"
        + "    - {name: e0, value: aaaaaaaaaaaaaaaaaaaa}\n"
        + DOUBLING,
        None,
        id="variables that double",
    ),
    pytest.param("a.yaml", HEAD + "  - '" + "{{" * 100_000 + "'\n", None, id="templates, open"),
    pytest.param("a.yaml", b"\x93\xfe\xffvllm\x00" * 100, "binary, not text", id="binary"),
    pytest.param("a.yaml", b"a: \xff\n", "not text in UTF-8", id="latin"),
    pytest.param("a.yaml", "a: {{ .Values.vllm }}\nb: [\n", "a template, not YAML yet", id="helm"),
    pytest.param("a.yaml", "a: [vllm\n", INVALID, id="broken"),
    pytest.param("a.yaml", "a: *vllm\n", "an alias without an anchor", id="no anchor"),
    pytest.param("a.yaml", "", None, id="empty"),
    pytest.param("a.txt", " " * 900_000 + "$ vllm serve m", None, id="spaces"),
    pytest.param("a.txt", 'echo "vllm serve m" ' * 50_000, None, id="echo, many times on a line"),
    pytest.param("a.sh", "vllm serve m\r" * 18_000, None, id="entry points on a line"),
    pytest.param(
        "a.yaml",
        "vllm:\n" + "".join(f"  a{i}: {{extraArgs: [a]}}\n" for i in range(9_000)),
        "it takes more work than any real file",
        id="arguments beside arguments",
    ),
    pytest.param("a.sh", "vllm " + "/" * 100_000, None, id="slashes"),
    pytest.param("a.sh", "vllm serve " + '"$(' * 20_000, None, id="substitutions"),
    pytest.param("a.sh", "vllm serve " + "${A:-" * 3_000, None, id="defaults"),
    pytest.param("a.sh", "( " * 30_000 + "vllm serve", None, id="subshells"),
    pytest.param("a.sh", "A=aa\n" + "A=$A$A\n" * 60 + "vllm serve $A\n", None, id="A=$A$A"),
    pytest.param("a.sh", "vllm serve m\n" * 1500, None, id="servers"),
    pytest.param(
        "a.sh",
        "#!/bin/sh\nvllm serve\n" + "# x\n" * 80_000,
        "larger than 256 KiB",
        id="long script",
    ),
    pytest.param(
        "a.sh", f"x={'A' * 1_000_000}\nvllm serve", "larger than 256 KiB", id="one long word"
    ),
    pytest.param(
        "a.sh",
        'eval "$(eplb-launch env -- vllm serve m)"\n' * 6_000 + "vllm serve m\n",
        "it takes more work than any real file",
        id="exports, many times",
    ),
    pytest.param(
        "a.yaml",
        "".join(f"a{i}: vllm serve m\n" for i in range(5_000)),
        "it takes more work than any real file",
        id="fields beside fields",
    ),
    pytest.param(
        "a.yaml",
        "a: {env: {"
        + "".join(f"A{i}: b, " for i in range(9_000))
        + "}, b: ["
        + "{run: vllm serve m}, " * 9_000
        + "]}\n",
        "it takes more work than any real file",
        id="fields below variables",
    ),
    pytest.param(
        "a.yaml",
        f"{CONFIG_MAP}  a.sh: |\n{'    vllm serve m' + chr(10)}"
        + "    # x\n" * 60_000
        + f"---\n{HEAD}"
        + "  - {image: vllm, command: [bash, /m/a.sh], volumeMounts: [{name: s, mountPath: /m}]}\n"
        * 4_000
        + VOLUME,
        "it takes more work than any real file",
        id="a large script, mounted many times",
    ),
    pytest.param("a.sh", "vllm\n" * 300_000, "larger than 1 MB", id="longer script"),
    pytest.param("Dockerfile", "FROM x\nENV " + "A" * 200_000, None, id="a long name"),
    pytest.param(
        "Dockerfile", "FROM x\nENV A=aa\n" + "ENV A=$A$A\n" * 80 + "CMD vllm $A", None, id="ENV"
    ),
    pytest.param(
        "Dockerfile",
        "FROM x\nENV " + " ".join(f"A{i}=1" for i in range(90_000)) + "\nCMD vllm serve m\n",
        "more than 5,000 variables in a stage",
        id="variables in one ENV",
    ),
    pytest.param(
        "Dockerfile",
        "FROM x\n" + "".join(f"ENV A{i % 4_000}=1\n" for i in range(80_000)) + "CMD vllm serve m\n",
        None,
        id="ENV, many times",
    ),
    pytest.param(
        "Dockerfile",
        "FROM x AS a\nENV "
        + " ".join(f"A{i}=1" for i in range(4_000))
        + "\n"
        + "FROM a AS b\n" * 50_000,
        "more than 200 stages",
        id="stages",
    ),
    pytest.param(
        "Dockerfile", "FROM x\n" + "COPY z.sh /z\n" * 60_000 + "CMD vllm", None, id="COPY"
    ),
    pytest.param("Dockerfile", "FROM x\nRUN " + "\\\n" * 200_000, None, id="a long line"),
    pytest.param("Dockerfile", "FROM x\nRUN vllm " + "pip install " * 80_000, None, id="install"),
    pytest.param("Dockerfile", "FROM x\nCMD " + "[" * 100_000, None, id="JSON"),
    pytest.param("a.service", "[Service]\nExecStart=vllm " + "\\\n" * 200_000, None, id="unit"),
    pytest.param(
        "a.service",
        "[Service]\nExecStart=bash -c '" + "vllm serve m; " * 12_000 + "'\n",
        None,
        id="a line of entry points",
    ),
    pytest.param(
        "a.yaml",
        HEAD
        + "  - {image: vllm, args: [m], env: &e ["
        + "".join(f"{{name: A{i}, value: b}}, " for i in range(4_000))
        + "]}\n"
        + "  - {image: vllm, args: [m], env: *e}\n" * 900,
        "it takes more work than any real file",
        id="variables, many times",
    ),
    pytest.param(
        "a.service", "[Service]\nExecStart=" + "vllm serve ; " * 1_500, "more work", id=";"
    ),
    pytest.param(
        "a.yaml",
        "kind: Application\napiVersion: argoproj.io/v1\nspec:\n"
        + "".join(f'  a{n}: "b: vllm serve m\\nc: vllm serve k"\n' for n in range(20_000)),
        "more work",
        id="YAML in texts",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), CASES)
def test_work_is_bounded_and_the_message_is_clear(
    tmp_path: Path, name: str, content: str | bytes, message: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "z.sh").write_text("eplb-launch -- vllm serve m\n")
    review, work = counted(check, [str(tmp_path)])
    assert work < 13_000_000  # the largest ConfigMap takes 11 million
    assert [f.verdict for f in review.findings if f.file.endswith("z.sh")] == ["ok"]
    said = [trouble.message for trouble in review.troubles]
    if message is None:
        assert said == []
    else:
        assert len(said) == 1
        assert message in said[0]
    assert review.status == (0 if message is None else 125)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Return 3,000 nested folders with a script in each hundredth one."""
    top = tmp_path / "top"
    top.mkdir()
    before = os.getcwd()
    try:
        os.chdir(top)
        for depth in range(3_000):
            if depth % 100 == 0:
                with open("a.sh", "w") as file:
                    file.write("eplb-launch -- vllm serve m\n")
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)
    yield top
    subprocess.run(["rm", "-rf", str(top)], check=True)  # pytest's own removal calls itself


def test_a_path_that_is_too_long_for_the_kernel_is_reported(deep: Path) -> None:
    review = check([str(deep)])
    near = len(str(deep))
    readable = sum(near + 2 * depth + len("/a.sh") < 4096 for depth in range(0, 3_000, 100))
    assert [finding.verdict for finding in review.findings] == ["ok"] * readable
    # The kernel refuses longer paths.
    assert [trouble.message for trouble in review.troubles][-1:] == ["File name too long"]
    assert review.status == 125


def test_a_deep_folder_does_not_stop_the_command(deep: Path) -> None:
    inner = deep.joinpath(*["d"] * 1_000)
    done = subprocess.run(
        [sys.executable, "-m", "eplb_launch", "check", str(deep)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert str(inner / "a.sh") in done.stdout


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/z.sh", "b/a/x.sh", "c.sh", "a/b/c/d.sh", "a/b.sh", "d.sh", ".git/x.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("eplb-launch -- vllm serve m\n")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "dockerfiles").symlink_to(tmp_path / "a")  # it has the name of a Dockerfile
    review = check([str(tmp_path)])
    assert review.troubles == ()
    found = [os.path.relpath(f.file, tmp_path) for f in review.findings]
    assert found == ["c.sh", "d.sh", "a/b.sh", "a/b/c/d.sh", "b/z.sh", "b/a/x.sh"]


@pytest.mark.parametrize("depth", [60, 2_000])
def test_a_config_map_can_be_mounted_at_a_deep_path(tmp_path: Path, depth: int) -> None:
    """A deeper path than any real one is not looked at."""
    path = tmp_path / "a.yaml"
    place = "/d" * depth
    path.write_text(
        f"{CONFIG_MAP}  c.yaml: 'data-parallel-size: 1'\n---\n{HEAD}"
        "  - image: vllm/vllm-openai:v0.16.0\n"
        f"    command: [vllm, serve, m, --config, {place}/c.yaml]\n"
        f"    volumeMounts: [{{name: s, mountPath: {place}}}]\n{VOLUME}"
    )
    review = check([str(path)])
    assert review.troubles == ()
    [finding] = review.findings
    expected = ("ok", "not-needed") if depth < 64 else ("unknown", "config-not-read")
    assert (finding.verdict, finding.assessment.cause) == expected


@pytest.mark.parametrize("depth", [1, 90])
def test_a_command_of_lists_is_unknown(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        HEAD
        + "  - image: vllm/vllm-openai:v0.16.0\n    args:\n    - &x0 [m]\n"
        + "".join(f"    - &x{i} [*x{i - 1}, *x{i - 1}]\n" for i in range(1, depth))
    )
    review, work = counted(check, [str(path)])
    assert work < 100_000
    [finding] = review.findings
    assert (finding.verdict, finding.line) == ("unknown", 7)
    assert finding.assessment.reason == "a list or a map in its args must be a text"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "services:\n  vllm: {extends: {file: x.yaml, service: vllm}}\n",
            "it extends a service of x.yaml, which is not here",
            id="a missing file",
        ),
        pytest.param(
            "services:\n  vllm: {extends: other}\n",
            "it extends other, which does not exist",
            id="a missing service",
        ),
        pytest.param(
            "services:\n  vllm: {extends: vllm}\n",
            "it extends itself, or more than 49 services in a row",
            id="itself",
        ),
        pytest.param(
            "services:\n  s0: {image: vllm}\n"
            + "".join(f"  s{i + 1}: {{extends: s{i}}}\n" for i in range(50)),
            "it extends itself, or more than 49 services in a row",
            id="many",
        ),
    ],
)
def test_an_extends_that_leads_nowhere_is_reported(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    [finding] = check([str(tmp_path)]).findings
    assert (finding.verdict, finding.assessment.reason) == ("unknown", reason)


def test_an_include_that_leads_nowhere_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {web: {image: nginx}}\ninclude:\n- compose.yaml\n- path: x.yaml\n")
    [trouble] = check([str(path)]).troubles
    assert (trouble.line, trouble.message) == (
        4,
        "it includes a file that is not here or is not YAML",
    )


@pytest.mark.parametrize("path", ["''", ".", "sub", '"a\\0b"', "x" * 300, "fifo"])
def test_a_named_path_that_is_no_file_is_treated_as_missing(tmp_path: Path, path: str) -> None:
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "compose.yaml").write_text(
        f"include: [{path}]\nservices:\n  v: {{image: vllm, env_file: {path}, "
        f"extends: {{file: {path}, service: v}}}}\n"
    )
    review = check([str(tmp_path)])
    assert {trouble.message for trouble in review.troubles} == {
        "it includes a file that is not here or is not YAML"
    }


FAILS = ValueError("--api-key hunter2")
SERVICE = "services: {v: {image: vllm}}\n"


@pytest.mark.parametrize(
    ("target", "file", "text"),
    [
        pytest.param("yaml_tree.documents", "a.yaml", "kind: Pod\n", id="YAML"),
        pytest.param(
            "kubernetes.manifests.containers", "a.yaml", HEAD + "  - image: vllm\n", id="an object"
        ),
        pytest.param("compose.misshapen", "a.yaml", "services: {v: {image: vllm}}\n", id="compose"),
        pytest.param("compose._included", "a.yaml", "services: {v: {image: vllm}}\n", id="include"),
        pytest.param("dockerfile.instructions", "Dockerfile", "FROM vllm\n", id="a Dockerfile"),
        pytest.param("units.split", "a.service", "[Service]\nExecStart=vllm\n", id="a unit"),
        pytest.param("units._in_order", "a.service", "[Service]\nExecStart=vllm\n", id="units"),
        pytest.param("assess_task.with_script", "Dockerfile", "FROM x\nCMD vllm\n", id="a command"),
    ],
)
def test_a_bug_in_one_reader_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, file: str, text: str
) -> None:
    module, _, name = target.rpartition(".")
    works = getattr(importlib.import_module(f"eplb_launch.check.{module}"), name)
    calls = []

    def fails(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise FAILS
        return works(*arguments)

    monkeypatch.setattr(f"eplb_launch.check.{target}", fails)
    (tmp_path / file).write_text(text)
    (tmp_path / "z.sh").write_text("eplb-launch -- vllm serve m\n")
    review = check([str(tmp_path)])
    assert [(t.file, t.message) for t in review.troubles] == [
        (str(tmp_path / file), "eplb-launch failed to read it, which is a bug (ValueError)")
    ]
    assert [f.verdict for f in review.findings] == ["ok"]
    assert review.status == 125


def test_tags_construct_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    done = tmp_path / "done"
    path.write_text(
        f"kind: !!python/object/apply:os.system ['touch {done}']\napiVersion: vllm\n"
        f"spec: !vault {{containers: !x [{{image: vllm, command: ['vllm$(touch {done})']}}]}}\n"
    )
    (tmp_path / "a.sh").write_text(f"vllm serve $(touch {done}) `touch {done}` <(touch {done})\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM vllm\nRUN touch {done}\nCMD touch {done}; vllm serve"
    )
    review = check([str(tmp_path)])
    assert review.troubles == ()
    assert not done.exists()


def test_links_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.yaml").symlink_to("self.yaml")
    (tmp_path / "null.yaml").symlink_to("/dev/zero")
    (tmp_path / "null").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "a.sh").write_text("vllm serve m\n")
    (tmp_path / "again.sh").symlink_to("a.sh")
    review = check([str(tmp_path)])
    assert [os.path.basename(finding.file) for finding in review.findings] == ["a.sh"]
    assert sorted((os.path.basename(t.file), t.message) for t in review.troubles) == [
        ("fifo.yaml", "not a regular file"),
        ("null.yaml", f"it {OUTSIDE}"),
        ("self.yaml", os.strerror(errno.ELOOP)),
    ]


SERVES = "vllm serve m -dp 8 --enable-eplb --eplb-config.use_async true"
SERVICE_OF = "services: {v: {image: vllm/vllm-openai:v0.16.0, command: COMMAND, KEYS}}\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder to check. Files beside it hold a secret."""
    (tmp_path / "here").mkdir()
    (tmp_path / "x.env").write_text("VLLM_ALL2ALL_BACKEND=hunter2\nNCCL_MAX_CTAS=8\n")
    (tmp_path / "base.yaml").write_text("services: {v: {command: vllm serve hunter2}}\n")
    (tmp_path / "Dockerfile").write_text("FROM hunter2\n")
    (tmp_path / "run.sh").write_text("vllm serve hunter2\n")
    (tmp_path / "serve.yaml").write_text("all2all-backend: hunter2\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.env").write_text("A=hunter2\n")
    return tmp_path / "here"


@pytest.mark.parametrize(
    ("name", "text", "link"),
    [
        pytest.param("compose.yaml", "env_file: ../x.env", "", id="env_file"),
        pytest.param("compose.yaml", "env_file: HERE/../x.env", "", id="an absolute name"),
        pytest.param("compose.yaml", "env_file: a.env", "a.env", id="a link"),
        pytest.param("compose.yaml", "env_file: a/x.env", "a", id="a link to a folder"),
        pytest.param("compose.yaml", "env_file: b.env", "b.env", id="a link to a link"),
        pytest.param("compose.yaml", "ports: []", ".env", id=".env"),
        pytest.param("compose.yaml", "extends: {file: ../base.yaml, service: v}", "", id="extends"),
        pytest.param("compose.yaml", "build: ..", "", id="build"),
        pytest.param("compose.yaml", "volumes: ['./../run.sh:/run.sh']", "", id="volumes"),
        pytest.param("a.service", "EnvironmentFile=HERE/a.env", "a.env", id="EnvironmentFile="),
        pytest.param("kustomization.yaml", "envs: [../x.env]", "", id="envs"),
        pytest.param("kustomization.yaml", "files: [../x.env]", "", id="files"),
        pytest.param("Dockerfile", "COPY ../run.sh /run.sh", "", id="COPY"),
        pytest.param("a.yaml", "", "a.yaml", id="a manifest that is a link"),
    ],
)
def test_a_file_outside_is_not_read_and_is_reported(
    outside: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, link: str
) -> None:
    text = text.replace("HERE", str(outside))
    forms = {
        "compose.yaml": SERVICE_OF.replace("COMMAND", SERVES).replace("KEYS", text),
        "a.service": f"[Service]\n{text}\nExecStart={SERVES}\n",
        "kustomization.yaml": (
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            f"configMapGenerator: [{{name: c, {text}}}]\n"
        ),
        "Dockerfile": f"FROM vllm/vllm-openai:v0.16.0\n{text}\nCMD bash /run.sh\n",
    }
    if name in forms:
        (outside / name).write_text(forms[name])
    (outside / "a.env").symlink_to("../x.env")
    (outside / "b.env").symlink_to("a.env")
    if link not in ("", "a.env", "b.env"):
        target = {"a": "../folder", ".env": "../x.env", "a.yaml": "../base.yaml"}[link]
        (outside / link).symlink_to(target)
    opened: list[str] = []
    works = os.open

    def noted(path: str, *rest: int, **more: int) -> int:
        opened.append(os.path.realpath(path))
        return works(path, *rest, **more)

    monkeypatch.setattr(os, "open", noted)
    review = check([str(outside)])
    assert [path for path in opened if not path.startswith(str(outside))] == []
    assert [t.message for t in review.troubles if OUTSIDE in t.message]
    assert review.status == 125
    for style in STYLES.values():
        assert "hunter2" not in style(review)
    opened.clear()
    review = check([str(outside)], follow=True)
    assert [path for path in opened if not path.startswith(str(outside))]
    assert not [t.message for t in review.troubles if OUTSIDE in t.message]


def test_a_file_outside_is_read_if_it_is_named_too(outside: Path) -> None:
    compose = outside / "compose.yaml"
    text = SERVICE_OF.replace("COMMAND", SERVES).replace("KEYS", "env_file: ../x.env")
    compose.write_text(text)
    [trouble] = check([str(compose)]).troubles
    assert trouble.message == f"{outside}/../x.env {OUTSIDE}"
    review = check([str(compose), str(outside.parent / "x.env")])
    assert len(review.findings) == 1
    assert review.troubles == ()


def test_files_beside_a_file_or_below_a_folder_are_read(outside: Path) -> None:
    (outside / "sub").mkdir()
    (outside / "sub" / "a.env").write_text("NCCL_MAX_CTAS=8\n")
    (outside / "b.env").symlink_to("sub/../sub/a.env")
    (outside.parent / "link").symlink_to(outside)
    for name in ("sub/a.env", "./sub/../sub/a.env", "b.env", f"{outside}/b.env"):
        text = SERVICE_OF.replace("COMMAND", SERVES).replace("KEYS", f"env_file: {name}")
        (outside / "compose.yaml").write_text(text)
        for given in (outside, outside / "compose.yaml", outside.parent / "link"):
            review = check([str(given)])
            assert [finding.assessment.unread for finding in review.findings] == [()]
            assert review.troubles == ()


def test_standard_input_cannot_name_files_here(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outside.parent)
    text = SERVICE_OF.replace("COMMAND", SERVES).replace("KEYS", "env_file: x.env")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    review = check(["-"])
    assert [t.message for t in review.troubles] == [f"x.env {OUTSIDE}"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert check(["-"], follow=True).troubles == ()


def test_the_same_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    path.write_text("vllm serve m\n")
    assert check([str(path), str(tmp_path), str(path)]).files == 1


TOO_LARGE = "larger than 8 MB: not read"


@pytest.mark.parametrize(
    ("line", "found", "named"),
    [
        pytest.param(b"a: vllm\n", TOO_LARGE, TOO_LARGE, id="mentions vLLM"),
        pytest.param(b"a: other\n", "", TOO_LARGE, id="does not mention vLLM"),
    ],
)
def test_a_large_file_takes_little_memory(
    tmp_path: Path, line: bytes, found: str, named: str
) -> None:
    """A named file is always reported; others are if they mention vLLM."""
    path = tmp_path / "large.yaml"
    with open(path, "wb") as file:
        file.writelines(line * ((1 << 20) // len(line)) for _ in range(50))
    code = (
        "import sys; from eplb_launch.check.command import check; r = check(sys.argv[1:]);"
        "print(*[t.message for t in r.troubles], end='')"
    )
    limit = 400 << 20
    for asked, message in ((tmp_path, found), (path, named)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(asked)],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert done.stdout == message


NO_WORDS = "its command cannot be split into words"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        pytest.param("vllm serve 'm", NO_WORDS, id="an open quote"),
        pytest.param("vllm serve " + "m" * 300_000, NO_WORDS, id="too long"),
        pytest.param("vllm serve " + "\\\\'" * 100_000, NO_WORDS, id="long"),
        pytest.param("vllm serve " + "${A:-{{" * 50_000, "async EPLB", id="open braces"),
        pytest.param("vllm serve " + "${A:-m" * 50_000 + "}" * 50_000, "async EPLB", id="deep"),
    ],
)
def test_a_command_that_cannot_be_split_is_unknown(
    tmp_path: Path, command: str, reason: str
) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(
        f"services:\n  v:\n    image: vllm/vllm-openai:v0.16.0\n    command: >-\n      {command}\n"
    )
    review, work = counted(check, [str(tmp_path)])
    [finding] = review.findings
    assert finding.verdict == "unknown"
    assert finding.assessment.reason.startswith(reason)
    assert work < 3_000_000


SERVICE_WITH = "services:\n  v:\n    image: vllm/vllm-openai:v0.16.0\n    env_file: a.env\n"
SECRET = "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData:\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(
            "a.yaml", f"{SECRET}  run.sh: {SERVES} --all2all-backend hunter2\n", id="a Secret"
        ),
        pytest.param(
            "a.yaml",
            SECRET + '  a.sh: \'vllm serve --eplb-config {"use_async":false,"x":"hunter2"} '
            "-dp 8 --enable-eplb'\n",
            id="JSON in a Secret",
        ),
        *(
            pytest.param(
                "compose.yaml",
                f"{SERVICE_WITH}    command: >-\n      {SERVES} {more}\n",
                id=more,
            )
            for more in (
                "--all2all-backend ${A}",
                "--moe-backend=${A}",
                "--all2all-backend deepep_low_latency",
                "--config ${A}",
                "-dp ${A}",
                "--eplb-config.communicator ${A} --moe-backend deep_gemm_mega_moe",
                "--eplb-config ${B}",
                "${A} --${A}",
            )
        ),
        pytest.param(
            "a.service",
            "[Service]\nEnvironmentFile=/a.env\n"
            f"ExecStart=/${{A}}/{SERVES} --all2all-backend ${{A}}\n",
            id="a unit",
        ),
    ],
)
def test_no_secret_is_printed(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    values = 'A=hunter2\nB={"communicator":"hunter2"}\nVLLM_ALL2ALL_BACKEND=hunter2\n'
    values += "NCCL_MAX_CTAS=hunter2\nNCCL_MIN_CTAS=hunter2\nNCCL_CONF_FILE=/hunter2\n"
    for file in (".env", "a.env"):
        (tmp_path / file).write_text(values)
    review = check([str(tmp_path)], "0.16.0")
    assert review.findings
    for style in STYLES.values():
        assert "hunter2" not in style(review.replace(strict=True), verbose=True)
