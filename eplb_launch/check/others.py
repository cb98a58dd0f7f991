"""Files without a reader, and lines with an entry point that start no server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from eplb_launch.check.kind import ENTRY_POINT, Kind
from eplb_launch.check.shell_files import task
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import Task
from eplb_launch.check.yaml_tree import Node
from eplb_launch.command.wrappers import READERS

OTHER = "other"
# Documents and programs deploy nothing: their lines are only listed.
_DOCUMENTS = frozenset(
    (
        *(".adoc", ".csv", ".html", ".ipynb", ".jsonl", ".log", ".md", ".mdx", ".org", ".po"),
        *(".pot", ".rst", ".svg", ".tex", ".txt"),
    )
)
_PROGRAMS = frozenset(
    (
        *(".c", ".cc", ".cpp", ".css", ".cu", ".go", ".h", ".java", ".js", ".jsx", ".kt", ".lua"),
        *(".patch", ".diff", ".php", ".pl", ".proto", ".py", ".pyi", ".rb", ".rs", ".scala"),
        *(".swift", ".ts", ".tsx"),
    )
)
# These files deploy something, in languages of their own.
_SUFFIXES = frozenset(
    (
        *(".bat", ".bzl", ".cfg", ".cmd", ".conf", ".csh", ".cue", ".def", ".env", ".fish"),
        *(".groovy", ".hcl", ".ini", ".j2", ".jinja", ".jinja2", ".jsonnet", ".just", ".libsonnet"),
        *(".mk", ".nomad", ".nu", ".ps1", ".star", ".tcsh", ".tf", ".tmpl", ".toml", ".tpl"),
    )
)
_NAMES = frozenset(
    ("gnumakefile", "jenkinsfile", "justfile", "makefile", "tiltfile", "vagrantfile")
)
_SHOW = READERS - {"alias", "declare", "export", "local", "set", "test", "["}  # these may keep it
_COMMENT = re.compile(r"\s*(?:#|//|;|--\s|/?\*|<!--|\{#|\{\{-?\s*/\*|rem\b)", re.IGNORECASE)
_MOST = 1000  # characters of a line that are looked at for more than its entry point
_WORD = re.compile(r"(?:[\w.-]+: ?[|>]?-? ?)?[\"'&|;( ]*([\w./-]+)")
_HINTS = ("vllm", "huggingfaceserver")
_INTERPRETER = re.compile(r"#!.*\b(?:node|perl|python[\d.]*|ruby)\b")
_WRITTEN = re.compile(
    r"""\b(?:echo|printf)\s+(?:-\w+\s+)?(?P<quote>["'])(?P<text>.*)(?P=quote)\s*>>?\s*(?![&\s])(?!/dev/)"""
)
_HELP = re.compile(r"\s(?:--help(?:=\S+)?|-h|--version|-v)(?![\w-])")


class Other(Kind):
    """A file without a reader that has an entry point in it."""

    title = ""
    form = OTHER

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether its name says that no other reader is to try it."""
        name = os.path.basename(path).lower()
        return name in _NAMES or os.path.splitext(name)[1] in _SUFFIXES or bool(not_deployed(name))

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take it, if there is an entry point in it."""
        del document
        if ENTRY_POINT.search(text):
            self.sources.append(source)
        return bool(self.sources) and self.sources[-1] is source

    def leftover(self) -> Iterator[Task]:
        """Yield each line with an entry point; those of documents and programs only if named."""
        for source in self.sources:
            if not source.named and not_deployed(source.path, source.text):
                continue
            name = os.path.basename(source.path)
            why = f"check has no reader for {name}: what this line starts is a guess"
            lines = source.text.split("\n")
            for number in entries(source.text):
                text = lines[number - 1]
                if why_no_server(text):
                    continue
                for following in lines[number : number + 200]:
                    if not text.endswith("\\"):
                        break
                    text += f"\n{following}"
                yield _guessed(source, text.lstrip("@-+ \t"), number, why)


def _guessed(source: Source, text: str, line: int, why: str) -> Task:
    return task(source, text, line, "").replace(guess=why, about=source.text)


def written(source: Source, number: int, line: str) -> Iterator[Task]:
    """Yield the script that a line writes to a file, with what it would start."""
    match = _WRITTEN.search(line[:_MOST])
    if match and ENTRY_POINT.search(match["text"]):
        why = "this line writes a script, and what starts that is not known"
        yield _guessed(source, match["text"], number, why)


def not_deployed(path: str, text: str = "") -> str:
    """Return what a file is, if it deploys nothing: by its name or its `#!`; "" for others."""
    if _INTERPRETER.match(text):
        return "a program"
    suffix = os.path.splitext(path.lower())[1]
    if suffix in _DOCUMENTS:
        return "a document"
    return "a program" if suffix in _PROGRAMS else ""


def entries(text: str) -> Iterator[int]:
    """Yield the lines, counted from 1, each once, at which an entry point begins."""
    line, at, last = 1, 0, 0
    hinted = any(hint in text for hint in _HINTS)  # much faster than the pattern
    for match in ENTRY_POINT.finditer(text) if hinted else ():
        line += text.count("\n", at, match.start())
        at = match.start()
        if line != last:
            yield line
        last = line


def why_no_server(line: str) -> str:
    """Return why a line with an entry point starts no server; "" if that is not plain."""
    if "kubectl.kubernetes.io/last-applied-configuration" in line:
        return "a copy of the object, in an annotation of it"
    if _COMMENT.match(line):
        return "a comment"
    match = _WORD.match(" ".join(line[:_MOST].split()).lstrip("@- \"'("))
    first = match[1].rpartition("/")[2] if match else ""
    if first in _SHOW:
        return f"shown or looked for: {first}"
    if _HELP.search(line):
        return "only help, or the version"
    return ""
