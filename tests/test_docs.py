"""The documents: links lead somewhere, and each command prints what the document shows.

A block of ```console is run, and its output is compared. A line `…` in it leaves lines out. The
launcher, the shell and the files are real. Clusters are stand-ins. A program that cannot run here
is in ELSEWHERE. Any other program makes a test fail.
"""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml
from house import HAZARD, House

import eplb_launch
from eplb_launch.nccl import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).with_name("data") / "docs"
SCRIPT = Path(sysconfig.get_path("scripts")) / "eplb-launch"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "examples", "benchmarks/*")
    for path in ROOT.glob(f"{folder}/*.md")
    if path.name != "CHANGELOG.md"  # what it names was there then
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Programs that are not run here, with the reason or the test that runs them.
ELSEWHERE = {
    "pip": "installs",
    "make": "tests/test_pyz.py, tests/test_dist.py",
    "nvidia-smi": "needs a GPU",
    "py-spy": "needs a server that hangs",
    "cuda-gdb": "needs a GPU",
    "python3": "needs a GPU, or a cluster of Ray: tests/e2e/test_ray.py",
}
# Stand-ins for clusters, and for tools that render templates.
STAND_INS = {
    "vllm": "exit 0",
    "helm": "cat deploy/decode.yaml",
    "kustomize": "cat deploy/decode.yaml",
    # Runs its command once, as on one node.
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    # Runs a command in a container, of which SERVER is process 1; lists objects.
    "kubectl": """case $1 in
get) cat list.json ;;
exec) shift 3; exec "${@//\\/proc\\/1\\//\\/proc\\/$SERVER\\/}" ;;
esac""",
}


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def prose(document: str) -> str:
    return FENCE.sub("", text(document))


def blocks(document: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text(document)) if language in languages]


def anchors(document: str) -> set[str]:
    """Return the anchors of a document, as GitHub makes them from its headings."""
    titles = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


class Example(NamedTuple):
    """A command, and what the document shows of its output."""

    document: str
    command: str
    shown: str

    @property
    def program(self) -> str:
        return shlex.split(self.command)[0]


def examples() -> Iterator[Example]:
    for document in DOCUMENTS:
        for block in blocks(document, "console"):
            assert block.startswith("$ "), (document, block)
            for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command = re.match(r"(?:.*\\\n)*.*\n", piece)
                assert command
                # A comment of the document is not part of the command.
                line = re.sub(r"   # .*", "", command[0].rstrip())
                yield Example(document, line, piece[command.end() :])


EXAMPLES = list(examples())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(os.path.relpath(target, ROOT)), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_to_an_issue_has_the_number_that_it_shows(document: str) -> None:
    repositories = {
        "DeepEP": "deepseek-ai/DeepEP",
        "PyTorch": "pytorch/pytorch",
        "SGLang": "sgl-project/sglang",
        "UCCL": "uccl-project/uccl",
        "vLLM": "vllm-project/vllm",
    }
    links = re.findall(
        r"\[([^]]+)\]\(https://github\.com/([^)]+/(?:pull|issues)/\d+)\)", prose(document)
    )
    for name, where in links:
        found = re.fullmatch(r"(\w+) (issue|PR) (\d+)", name)
        if found is None:
            continue
        kind = {"issue": "issues", "PR": "pull"}[found[2]]
        assert where == f"{repositories[found[1]]}/{kind}/{found[3]}"


def test_the_readme_is_short() -> None:
    assert text("README.md").count("\n") <= 280


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)", text("README.md")))
    assert linked == {document for document in DOCUMENTS if document.startswith("docs/")}


def test_every_warning_is_documented() -> None:
    table = prose("docs/nccl.md").partition("## What makes the cap void")[2]
    documented = set(re.findall(r"^\|(.*?)\|", table, re.MULTILINE))
    codes = set(re.findall(r"`([\w-]+)`", " ".join(documented)))
    assert codes >= {row.code for row in checks.WARNINGS}


def test_every_cause_of_an_unknown_verdict_is_documented() -> None:
    package = ROOT / "eplb_launch"
    sources = [*package.glob("ps/*.py"), *package.glob("check/*.py"), package / "assessment.py"]
    written = re.compile(r"\b(?:unknown|Trouble)\(\s*\"([a-z]+(?:-[a-z]+)*)\"")
    causes = {cause for path in sources for cause in written.findall(path.read_text("utf-8"))}
    assert {"no-reader", "permission-denied"} <= causes
    assert causes <= set(re.findall(r"`([a-z-]+)`", prose("docs/json.md")))


# Files of vLLM, and files that a target makes.
NOT_HERE = {
    ".vllm-sources/",
    ".vllm-sources/0.34.0.log",
    "dist/",
    "dist/eplb-launch-configmap.yaml",
    "dist/eplb-launch.pyz",
    "tests/data/oracle/vllm-0.34.0.jsonl",
    "vllm/config/parallel.py",
    "vllm/distributed/eplb/eplb_utils.py",
    "vllm/entrypoints/cli/",
    "vllm/utils/argparse_utils.py",
}


def is_there(name: str, document: str) -> bool:
    """Tell whether there is such a file, folder or module, or such a name in a module."""
    module, _, inside = name.partition(".")
    if re.match("[A-Z]", inside):
        defined = re.compile(rf"^(?:class )?{inside}\b", re.MULTILINE)
        sources = [*ROOT.glob(f"eplb_launch/**/{module}.py"), *ROOT.glob(f"tests/**/{module}.py")]
        return any(defined.search(path.read_text(encoding="utf-8")) for path in sources)
    folders = [ROOT, ROOT / "eplb_launch", (ROOT / document).parent]
    return any([*folder.glob(name), *folder.glob(f"{name}.py")] for folder in folders)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "examples/README.md"])
def test_files_and_modules_that_a_document_names_are_there(document: str) -> None:
    names = set(re.findall(r"`([\w.-]+/[\w/.*-]*|\w+\.[A-Z]\w+)`", prose(document))) - NOT_HERE
    missing = {name for name in names if not is_there(name.rstrip("/"), document)}
    assert names
    assert not missing


def test_contributing_lists_all_modules_of_the_top_folder() -> None:
    chapter = prose("CONTRIBUTING.md").partition("## Where things are")[2].partition("\n## ")[0]
    cells = " ".join(re.findall(r"^\|(.*?)\|", chapter, re.MULTILINE))
    listed = set(re.findall(r"`(\w+/?)`", cells))
    package = ROOT / "eplb_launch"
    there = {path.stem for path in package.glob("*.py")} - {"__init__", "_version"}
    there |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert listed == there


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return an environment with vLLM 0.16.0 and stand-ins for servers."""
    built = House(tmp_path_factory.mktemp("house"))
    built.install("0.16.0")
    yield built
    built.end()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, house: House) -> Path:
    """Return the folder in which the examples run, with the programs in its bin/."""
    made = tmp_path_factory.mktemp("examples")
    (made / "deploy").symlink_to(DATA / "deploy")
    (made / "examples").symlink_to(ROOT / "examples")
    listed = yaml.safe_load((DATA / "deploy" / "decode.yaml").read_text(encoding="utf-8"))
    (made / "list.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [listed]})
    )
    (made / "bin").mkdir()
    for name, body in STAND_INS.items():
        # vllm's interpreter tells its release.
        shebang = f"{house.root}/bin/python" if name == "vllm" else "/bin/bash"
        program = made / "bin" / name
        program.write_text(f"#!{shebang}\n" + ("" if name == "vllm" else f"{body}\n"))
        program.chmod(0o755)
    (made / "bin" / "eplb-launch").symlink_to(SCRIPT)
    return made


def squeezed(output: str) -> str:
    """Return the output with single spaces, so that the width of a terminal does not matter."""
    return " ".join(output.split())


def compare(shown: str, seen: str) -> None:
    """Compare what a document shows with the output; `…` stands for lines that are left out."""
    rest = squeezed(seen)
    for piece in re.split(r"^…$", shown, flags=re.MULTILINE):
        expected = squeezed(piece)
        assert expected in rest
        rest = rest[rest.index(expected) + len(expected) :]
    if "…" not in shown.splitlines():
        assert squeezed(seen) == squeezed(shown)


def test_all_examples_are_run_or_listed() -> None:
    programs = {example.program for example in EXAMPLES}
    assert programs - {"eplb-launch", "kubectl", "helm", "kustomize", "srun"} == set(ELSEWHERE)


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=f"{example.document}: {example.command[:60]}")
        for example in EXAMPLES
        # The table of servers has a test of its own.
        if example.program not in ELSEWHERE and not example.shown.startswith(" PID")
    ],
)
def test_an_example_does_what_is_shown(example: Example, folder: Path, house: House) -> None:
    server = house.start(environ={"NCCL_MAX_CTAS": "8"})
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", example.command],
        cwd=folder,
        env={
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "COLUMNS": "80",
            "SERVER": str(server),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    # ps and check exit with 1 if a server is exposed.
    assert done.returncode in (
        {0, 1} if "check" in example.command or " ps" in example.command else {0}
    ), done
    assert "Traceback" not in done.stderr
    if example.shown:
        compare(example.shown, done.stdout + done.stderr)


def in_a_terminal(command: list[str], columns: int) -> str:
    """Run a command in a terminal with this number of columns; return its output."""
    parent, child = pty.openpty()
    environ = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environ):
        os.close(child)
        shown = b""
        try:
            while piece := os.read(parent, 65536):
                shown += piece
        except OSError:
            pass  # the other end is closed
        os.close(parent)
    return shown.decode()


def test_the_table_of_servers_is_what_ps_shows(house: House) -> None:
    [example] = [example for example in EXAMPLES if example.shown.startswith(" PID")]
    workers: dict[str, dict[str, str]] = {f"VLLM::Worker_DP{rank}": {} for rank in range(4)}
    hazard = f"{HAZARD} --data-parallel-size-local 4"
    pids = [
        house.start(hazard, tree=workers),
        house.start(
            hazard, tree=workers, environ={"NCCL_MAX_CTAS": "8", "NCCL_MIN_P2P_NCHANNELS": "32"}
        ),
        house.start(hazard, tree=workers, environ={"NCCL_MAX_CTAS": "8"}),
        house.start("serve m", tree={"VLLM::EngineCore_DP0": {}}),
    ]
    assert example.command == "eplb-launch ps"
    seen = in_a_terminal([str(SCRIPT), "ps", *map(str, pids)], columns=80)
    begin = re.compile(r"^ *\d+ +\S+ +\d\d:\d\d ", re.MULTILINE)
    compare(begin.sub("PID USER STARTED ", example.shown), begin.sub("PID USER STARTED ", seen))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_yaml_json_and_shell_are_well_formed(document: str) -> None:
    for block in blocks(document, "yaml", "json"):
        assert yaml.safe_load(block) is not None
    for block in blocks(document, "sh", "bash"):
        subprocess.run(["/bin/bash", "-n"], input=block, text=True, check=True)


def test_the_example_in_python_runs() -> None:
    [block] = blocks("docs/python.md", "python")
    for name in re.findall(r"\beplb_launch\.(\w+)", block):
        assert hasattr(eplb_launch, name), name
    ast.parse(block)
    first = block.partition("\neplb_launch.run")[0]
    subprocess.run([sys.executable, "-c", first], check=True)


@pytest.mark.parametrize(
    ("section", "command"),
    [
        (
            "explain",
            ["explain", "--json", "--vllm-version", "0.16.0", "--", "vllm", *HAZARD.split()],
        ),
        ("ps", ["ps", "--json"]),
        ("check", ["check", "--json", str(DATA / "deploy")]),
    ],
)
def test_the_keys_of_json_are_documented(section: str, command: list[str], house: House) -> None:
    if section == "ps":
        command = [*command, str(house.start())]
    done = subprocess.run([str(SCRIPT), *command], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    keys = set(found)
    if "servers" in keys:
        inner = {f".{key}" for key in found["servers"][0]}
        keys |= inner
    chapter = prose("docs/json.md").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = chapter.partition("\n\n| Status")[0]
    cells = " ".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE))
    # `.release.version` documents a key of `.release`, `.settings[]` the entries of a list.
    documented = {
        re.sub(r"(?<=\w)\..*|\[\]", "", name) for name in re.findall(r"`([\w.\[\]]+)`", cells)
    }
    assert documented == keys
