"""The readers of `eplb-launch check`: the quoting and the variables of each format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_launch.check import dockerfile as dockerfiles
from eplb_launch.check import images, templating, units, yaml_tree
from eplb_launch.check.kubernetes import containers, pods
from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import Node, Problem
from eplb_launch.model import UNKNOWN
from eplb_launch.render.env import FORMATS


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.16.0", "0.16.0"),
        ("vllm/vllm-openai:v0.17.1-cu129", "0.17.1"),
        ("docker.io/vllm/vllm-openai:v0.18.0rc1@sha256:00", "0.18.0rc1"),
        ("host:5000/vllm-openai:0.12.0", "0.12.0"),
        ("registry.example.com/vllm-openai:v0.16.0-eplb", "0.16.0"),
        ("rocm/vllm:rocm7.0.0_vllm_0.11.2_20251210", "0.11.2"),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:nightly-0123abc", None),
        ("vllm/vllm-openai", None),
        ("host:5000/vllm-openai", None),
        ("vllm/vllm-openai@sha256:0123", None),
        ("nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.8.1", None),
        ("ghcr.io/llm-d/llm-d-cuda:v0.3.0", None),
        ("nvcr.io/nvidia/vllm:25.11-py3", None),
        ("mycorp/vllm:1.2.3", None),
        ("opea/vllm:1.3", None),
        ("mycorp/vllm:0.16.0", "0.16.0"),
        ("", None),
    ],
)
def test_the_tag_of_an_image_gives_the_release(image: str, version: str | None) -> None:
    assert images.version(image)[0] == version


@pytest.mark.parametrize(
    ("text", "environ", "line"),
    [
        pytest.param("ENV\nENV NCCL_MAX_CTAS=8\n", {"NCCL_MAX_CTAS": "8"}, 3, id="empty"),
        pytest.param("ENV \nENV NCCL_MAX_CTAS 8\n", {"NCCL_MAX_CTAS": "8"}, 3, id="blank"),
        pytest.param(
            "ENV A=1 \\\n  B=NCCL_MAX_CTAS \\\n  NCCL_MAX_CTAS=8 \\\n  C=NCCL_MAX_CTAS\n",
            {"A": "1", "B": "NCCL_MAX_CTAS", "NCCL_MAX_CTAS": "8", "C": "NCCL_MAX_CTAS"},
            4,
            id="lines",
        ),
        pytest.param(
            "ENV A=1\nENV A=2 NCCL_MAX_CTAS=$A\n", {"A": "2", "NCCL_MAX_CTAS": "1"}, 3, id="before"
        ),
    ],
)
def test_env_in_a_dockerfile_sets_the_variables_and_the_line_of_the_cap(
    text: str, environ: dict[str, str], line: int
) -> None:
    built = dockerfiles.final(Source("Dockerfile", text=f"FROM x\n{text}"))
    assert built is not None
    assert built.variables.cap_line is not None
    assert (built.variables.known, built.variables.cap_line.line) == (environ, line)


MODULE = ("python3", "-m", "vllm.entrypoints.openai.api_server")
SERVE = ("vllm", "serve")


@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("vllm/vllm-openai:v0.11.0", MODULE),
        ("vllm/vllm-openai:v0.9.2", MODULE),
        ("vllm/vllm-openai:v0.11.1", SERVE),
        ("vllm/vllm-openai:v0.33.0", SERVE),
        ("vllm/vllm-openai:latest", SERVE),
        ("vllm/vllm-openai-rocm:v0.13.0", ()),
        ("vllm/vllm-openai-rocm:v0.16.0", SERVE),
        ("rocm/vllm:latest", ()),
        ("example/own:v0.16.0", ()),
    ],
)
def test_an_image_has_the_entry_point_of_its_repository(
    image: str, program: tuple[str, ...]
) -> None:
    assert images.entry_point(image) == program


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-two words"),
        ("$$(A) $(A)", "$(A) 1"),
        ("$A ${A}", "$A ${A}"),
        ("$(NOT_THERE)", UNKNOWN),
        ("$(", "$("),
    ],
)
def test_kubernetes_expands_variables_in_round_brackets(text: str, expected: str) -> None:
    assert (
        pods.expand(text, lambda name: {"A": "1", "B": "two words"}.get(name, UNKNOWN)) == expected
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A ${A} $$A", "1 1 $A"),
        ("${A:-2} ${B:-2} ${B-3}", "1 2 3"),
        ("${E:-2}|${E-2}", "2|"),
        ("${A:+2}", "2"),
        ("$B", UNKNOWN),
        ("${B:?needed}", UNKNOWN),
        ("100$", "100" + UNKNOWN),
        ("${B:-${C:-${A}}} ${B:-{2}}", "1 {2}"),
        ("${A:-${C}}", "1"),
        ("${B:-${C}}", UNKNOWN),
    ],
)
def test_compose_expands_variables_with_their_defaults(text: str, expected: str) -> None:
    assert templating.expand(text, {"A": "1", "E": ""}, templating.COMPOSE) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        (r'\"c a\x20b "d\u00e4"', ['"c', "a" + UNKNOWN, "d" + UNKNOWN]),
        (r'"a\tb" a\\\n', ["a\tb", "a\\\n"]),
        ("""'{"use_async": true}'""", ['{"use_async": true}']),
        ('""', [""]),
        (r"a\s\101b c", ["a " + UNKNOWN, "c"]),
    ],
)
def test_systemd_words_split_at_blanks_outside_quotes(text: str, expected: list[str]) -> None:
    assert units.split(text) == expected


def test_an_environment_file_is_read_as_systemd_reads_it() -> None:
    text = (
        "# comment\n; another\nA=1\n B = two words \nC='it''s'\nD=\"a\\\"b\"\n"
        "E=x\\\n  y\nexport F=1\nG=\n"
    )
    assert list(templating.env_lines(Source("a.env", text=text))) == [
        ("A", "1", 3),
        ("B", "two words", 4),
        ("C", "its", 5),
        ("D", 'a"b', 6),
        ("E", "xy", 7),
        ("G", "", 10),
    ]


def words_of(text: str) -> list[list[str]]:
    """Return the commands that a unit starts."""
    source = Source("/u/a.service", "unit", text)
    return [[word.text for word in task.words] for task in units.Systemd.of_unit([source])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ExecStart=-/bin/a b", [["/bin/a", "b"]]),
        ("ExecStart=@/bin/a name b", [["/bin/a", "b"]]),
        ("ExecStart=/bin/a ; /bin/b", [["/bin/a"], ["/bin/b"]]),
        ("ExecStart=/bin/a %% %i", [["/bin/a", "%", UNKNOWN]]),
        ("ExecStart=/bin/a $$A ${A} $L x$A", [["/bin/a", "$A", "1", "p", "q r", "x1"]]),
        ("ExecStart=:/bin/a $A", [["/bin/a", "$A"]]),
        ("ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b", [["/bin/b"]]),
        ("ExecStart=/bin/a \\\n# no\n  b", [["/bin/a", "b"]]),
    ],
)
def test_exec_start_gives_the_words_of_its_command(line: str, expected: list[list[str]]) -> None:
    assert words_of(f"[Service]\nEnvironment=A=1 \"L=p 'q r'\"\n{line}\n") == expected


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=20))
def test_the_quoting_of_our_own_drop_in_is_read_back(value: str) -> None:
    source = Source(
        "/u/a.service", "unit", FORMATS["systemd"]({"A": value}) + "ExecStart=/bin/a ${A}\n"
    )
    [task] = units.Systemd.of_unit([source])
    assert [word.text for word in task.words] == ["/bin/a", value]


def stages(text: str) -> list[tuple[list[str], dict[str, str]]]:
    """Return the command that a Dockerfile starts."""
    found = dockerfiles.tasks(Source("/d/Dockerfile", "Dockerfile", text))
    return [([word.text for word in task.words], dict(task.variables.known)) for task in found]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('FROM x\nCMD ["a", "b c"]', ["a", "b c"]),
        ("FROM x\nCMD a b", ["/bin/sh", "-c", "a b"]),
        ('FROM x\nSHELL ["bash", "-lc"]\nCMD a', ["bash", "-lc", "a"]),
        ('FROM x AS y\nSHELL ["bash", "-lc"]\nFROM y\nCMD a', ["bash", "-lc", "a"]),
        ('FROM x\nENTRYPOINT ["a"]\nCMD ["b"]', ["a", "b"]),
        ('FROM x AS y\nCMD ["b"]\nFROM y\nENTRYPOINT ["a"]', ["a"]),
        ('FROM x\nCMD ["b"]\nENTRYPOINT ["a"]', ["a", "b"]),
        ('FROM vllm/vllm-openai:v0.16.0\nCMD ["m"]', ["vllm", "serve", "m"]),
        ('# escape=`\nFROM x\nCMD ["a", `\n "b"]', ["a", "b"]),
        ("FROM x\nRUN <<E cat\nCMD no\nE\nCMD yes", ["/bin/sh", "-c", "yes"]),
    ],
    ids=[
        "exec form",
        "shell form",
        "SHELL",
        "SHELL of the base",
        "ENTRYPOINT and CMD",
        "ENTRYPOINT removes the CMD of the base",
        "CMD before ENTRYPOINT",
        "the entry point of the image",
        "another escape character",
        "a here document",
    ],
)
def test_a_dockerfile_starts_its_last_entrypoint_and_cmd(text: str, words: list[str]) -> None:
    assert stages(text)[-1][0] == words


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('ENV A=1 B="x y" C=x\\ y', {"A": "1", "B": "x y", "C": "x y"}),
        ("ENV A x y", {"A": "x y"}),
        ("ARG V=1\nENV A=$V B=${W:-2}", {"A": "1", "B": "2"}),
        ("ENV A='$A' B=\\$A", {"A": "$A", "B": "$A"}),
        ("ENV A=$NOT_THERE", {"A": UNKNOWN}),
    ],
)
def test_env_and_arg_set_the_variables_of_a_stage(text: str, environ: dict[str, str]) -> None:
    assert stages(f"FROM x\n{text}\nCMD a")[0][1] == environ


def tree(text: str) -> list[Node | Problem]:
    """Return the documents of a YAML text."""
    return [document for _, document in yaml_tree.documents(text)]


def test_nodes_have_their_lines() -> None:
    [first, second] = tree("# c\na: 1\n---\nb: |\n  x\n\n  y\nc: >-\n  z\n")
    assert isinstance(first, Node)
    assert isinstance(second, Node)
    b, c = second.at("b"), second.at("c")
    assert b is not None
    assert c is not None
    assert (first.line, b.line, b.text, b.block) == (2, 5, "x\n\ny\n", True)
    assert (c.line, c.block) == (9, False)


def test_a_broken_document_leaves_the_others_readable() -> None:
    found = tree("a: 1\n---\nb: [\n---\nc: 3\n")
    assert [isinstance(document, Problem) for document in found] == [False, True, False]
    problem = found[1]
    assert isinstance(problem, Problem)
    assert problem.line == 4


def test_merged_keys_are_found_and_own_keys_win() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\n"
    [document] = tree(text)
    assert isinstance(document, Node)
    z = document.at("z")
    assert z is not None
    assert [z.string(name) for name in "abc"] == ["1", "1", "3"]
    assert {name: node.text for name, node in z.entries().items()} == {"a": "1", "b": "1", "c": "3"}


@given(st.text(alphabet="abc:-[]{}&*!|>'\"#%@` \n\t{}<", max_size=60))
def test_odd_yaml_gives_a_tree_or_a_problem(text: str) -> None:
    for document in tree(text):
        if isinstance(document, Node):
            list(containers.containers(document, Source("a.yaml")))
