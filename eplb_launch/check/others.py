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
from eplb_launch.entrypoints import HINTS

OTHER = "other"
# Names of files that deploy nothing. Their lines with an entry point are only listed.
_DOCUMENT = re.compile(
    r".+\.(?:adoc|csv|html|ipynb|jsonl|log|md|mdx|org|pot?|rst|svg|tex|txt)", re.DOTALL
)
_PROGRAM = re.compile(
    r".+\.(?:c|cc|cpp|css|cu|go|h|java|jsx?|kt|lua|patch|diff|php|pl|proto|pyi?|rb|rs|scala|swift"
    r"|tsx?)",
    re.DOTALL,
)
# Names of files that deploy something, in a language that has no reader here.
_DEPLOYED = re.compile(
    r".+\.(?:bat|bzl|cfg|cmd|conf|csh|cue|def|env|fish|groovy|hcl|ini|j2|jinja2?|jsonnet|just"
    r"|libsonnet|mk|nomad|nu|ps1|star|tcsh|tf|tmpl|toml|tpl)"
    r"|(?:gnu)?makefile|jenkinsfile|justfile|tiltfile|vagrantfile",
    re.DOTALL,
)
# These programs show their words, and start none of them. (Those left out may keep them for later.)
_SHOW = READERS - {"alias", "declare", "export", "local", "set", "test", "["}
_COMMENT = re.compile(r"\s*(?:#|//|;|--\s|/?\*|<!--|\{#|\{\{-?\s*/\*|rem\b)", re.IGNORECASE)
_MAX_LINE = 1000  # characters of a line that are searched for more than an entry point
_MAX_CONTINUED = 200  # lines of one command
_FIRST_WORD = re.compile(r"(?:[\w.-]+: ?[|>]?-? ?)?[\"'&|;( ]*([\w./-]+)")
_INTERPRETER = re.compile(r"#!.*\b(?:node|perl|python[\d.]*|ruby)\b")
_WRITES = re.compile(
    r"""\b(?:echo|printf)\s+(?:-\w+\s+)?(?P<quote>["'])(?P<text>.*)(?P=quote)\s*>>?\s*(?![&\s])(?!/dev/)"""
)
_HELP = re.compile(r"\s(?:--help(?:=\S+)?|-h|--version|-v)(?![\w-])")


class Other(Kind):
    """A file without a reader that has an entry point in it."""

    title = ""
    form = OTHER

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether its name says that no other kind may take it."""
        name = os.path.basename(path).lower()
        return any(names.fullmatch(name) for names in (_DEPLOYED, _DOCUMENT, _PROGRAM))

    def take(self, source: Source, text: str, document: Node | None) -> bool:
        """Take a file if there is an entry point in it."""
        del document
        found = ENTRY_POINT.search(text) is not None
        if found:
            self.sources.append(source)
        return found

    def leftover(self) -> Iterator[Task]:
        """Yield each line with an entry point, of documents and programs only if they are named."""
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
                for following in lines[number : number + _MAX_CONTINUED]:
                    if not text.endswith("\\"):
                        break
                    text += f"\n{following}"
                yield _guess(source, text.lstrip("@-+ \t"), number, why)


def _guess(source: Source, text: str, line: int, why: str) -> Task:
    return task(source, text, line, "").replace(guess=why, about=source.text)


def written(source: Source, number: int, line: str) -> Iterator[Task]:
    """Yield the script that a line writes to a file."""
    match = _WRITES.search(line[:_MAX_LINE])
    if match and ENTRY_POINT.search(match["text"]):
        why = "this line writes a script, and it is not known what starts the script"
        yield _guess(source, match["text"], number, why)


def not_deployed(path: str, text: str = "") -> str:
    """Return "a document" or "a program" for a file that deploys nothing; "" for other files."""
    name = os.path.basename(path).lower()
    if _DOCUMENT.fullmatch(name) and not _INTERPRETER.match(text):
        return "a document"
    return "a program" if _PROGRAM.fullmatch(name) or _INTERPRETER.match(text) else ""


def entries(text: str) -> Iterator[int]:
    """Yield the lines, counted from 1, at which an entry point begins."""
    if not any(hint in text for hint in HINTS):  # much faster than the pattern
        return
    line, at, last = 1, 0, 0
    for match in ENTRY_POINT.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        if line != last:
            yield line
        last = line


def why_no_server(line: str) -> str:
    """Return why a line with an entry point starts no server; "" where it may start one."""
    if "kubectl.kubernetes.io/last-applied-configuration" in line:
        return "an annotation with a copy of the object"
    if _COMMENT.match(line):
        return "a comment"
    match = _FIRST_WORD.match(" ".join(line[:_MAX_LINE].split()).lstrip("@- \"'("))
    first = match[1].rpartition("/")[2] if match else ""
    if first in _SHOW:
        return f"only printed or searched for: {first}"
    return "it prints help or the version" if _HELP.search(line) else ""
