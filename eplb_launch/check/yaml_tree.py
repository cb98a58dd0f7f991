"""YAML as trees of nodes with line numbers, within bounds. Tags construct nothing.

The trees are made from the events of the parser, so that depth and size can be limited while a text
is read. An alias becomes a reference to its node, so that a "billion laughs" text stays small.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from eplb_launch.check.templating import templates
from eplb_launch.model import Record

DEPTH = 100  # libyaml itself has a limit of 1,000 since PyYAML 6.0.4, before of 10,000 or more
NODES = 400_000  # of one file; the largest bundles of CRDs have about 100,000

_DOCUMENT_COST = 20  # nodes: the time to begin a document

MAP, LIST, TEXT = "map", "list", "text"

_MAX_TEXTS = 2_000  # nodes that `Node.texts` visits

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEFINITION = re.compile(r"^kind: CustomResourceDefinition[ \r]*$", re.MULTILINE)
_DOCUMENT = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
# One message for both: libyaml reads ahead, and may come to its own limit first.
_INVALID = f"not valid YAML, or nested more than {DEPTH} deep"
TEMPLATE = (
    "a template, not YAML yet: check its output, for instance with "
    "`helm template … | eplb-launch check -`"
)
_NULL = ("", "~", "null", "Null", "NULL")


class Problem(Record):
    """Why a document, or the rest of a file, is not read."""

    line: int
    message: str


class Node:
    """A value of a document, and its place."""

    __slots__ = (
        *("block", "end", "items", "kind", "known", "line", "pairs", "plain", "tag", "text"),
    )

    def __init__(self, kind: str, line: int) -> None:
        self.kind = kind
        self.line = line  # the first line, from 1: of a block scalar, the first line of its text
        self.end = line  # the last line
        self.text = ""
        self.plain = False  # a text without quotes, which may be a number or null
        self.block = False  # a literal block: each line of the text is a line of the file
        self.tag = ""  # as it is written, "!reset"
        self.items: list[Node] = []
        self.pairs: list[tuple[Node, Node]] = []  # those of merged maps (`<<`) are the last
        self.known: dict[str, Node] | None = None  # the result of `entries`

    def get(self, name: str) -> Node | None:
        """Return the value of a key of a map; None if there is none."""
        return self.entries().get(name) if self.kind == MAP else None

    def entries(self) -> dict[str, Node]:
        """Return the entries of a map. Of equal keys, the last one wins."""
        if self.known is None:
            self.known = {key.text: value for key, value in self.pairs if key.kind == TEXT}
        return self.known

    def place(self, line: int, *names: str) -> int:
        """Return `line` if it is a line of this map, else the line of the first of these keys."""
        if self.line <= line <= self.end:
            return line
        lines = {key.text: key.line for key, _ in reversed(self.pairs)}
        found = (lines[name] for name in names if name in lines)
        return next((line for line in found if self.line <= line <= self.end), self.line)

    def at(self, *names: str) -> Node | None:
        """Return the value at a path of keys; None if there is none."""
        node: Node | None = self
        for name in names:
            node = node.get(name) if node is not None else None
        return node

    def string(self, *names: str) -> str:
        """Return the text at a path of keys; "" if there is none."""
        node = self.at(*names)
        return node.text if node is not None and node.kind == TEXT and not node.null else ""

    def list(self, *names: str) -> list[Node]:
        """Return the items of the list at a path of keys; [] if there is none."""
        node = self.at(*names)
        return node.items if node is not None and node.kind == LIST else []

    def line_of_text(self) -> str:
        """Return the text, or the texts of a list in one line."""
        return " ".join(item.text for item in self.items or [self])

    def texts(self) -> Iterator[str]:
        """Yield the texts in this value. Only a part of a large value is visited."""
        todo, seen = [self], {id(self)}
        while todo:
            at = todo.pop()
            if at.kind == TEXT:
                yield at.text
            for below in (*at.items, *(value for _, value in at.pairs)):
                if len(seen) < _MAX_TEXTS and id(below) not in seen:
                    seen.add(id(below))
                    todo.append(below)

    @property
    def null(self) -> bool:
        """Whether this is YAML's null."""
        return self.kind == TEXT and self.plain and self.text in _NULL


def documents(text: str, line: int = 1) -> Iterator[tuple[str, Node | Problem]]:
    """Yield the documents of a YAML text: their texts, each with its tree or its Problem.

    `line` is the line of the file that the text begins at. Each document is parsed by itself, so
    that a broken one leaves the others readable.
    """
    builder = _Builder()
    starts = {match.start() for match in _DOCUMENT.finditer(text)}
    for start, end in itertools.pairwise([0, *sorted(starts), len(text)]):
        source = text[start:end]
        # A definition of a kind has thousands of values, and starts nothing.
        if not _DEFINITION.search(source) and (start in starts or not _is_comment(source)):
            try:
                for node in builder.trees(source, line):
                    yield source, node
            except yaml.YAMLError as error:
                yield source, _problem(error, source, line)
            except _NotReadError as error:
                yield source, error.problem
                if builder.left < 0:
                    return
        line += source.count("\n")


def _is_comment(source: str) -> bool:
    return all(not line.strip() or line.lstrip()[0] in "#%" for line in source.split("\n"))


class _NotReadError(Exception):
    def __init__(self, line: int, message: str) -> None:
        self.problem = Problem(line, message)


def _problem(error: yaml.YAMLError, source: str, line: int) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if "{{" in source or "{%" in source:
        message = TEMPLATE
    else:
        message = _INVALID if mark else "not valid YAML: unreadable characters in it"
    return Problem(line + _line(mark), message)


class _Builder:
    """Makes the trees of one file from the events of the parser."""

    def __init__(self) -> None:
        self.left = NODES

    def trees(self, source: str, first: int) -> Iterator[Node]:
        """Yield the trees of a text that begins at line `first` of the file."""
        self.left -= _DOCUMENT_COST
        self.first = first
        self.open: list[Node] = []  # the maps and lists around a node
        self.anchors: dict[str, Node] = {}
        self.events: Iterator[Any] = yaml.parse(source, Loader=_LOADER)
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors = {}
            elif isinstance(event, yaml.NodeEvent):
                yield self.node(event)

    def node(self, event: Any) -> Node:
        """Return the node that begins with an event."""
        line = self.first + _line(event.start_mark)
        self.take(1, line)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _NotReadError(line, "not valid YAML: an alias without an anchor")
            return self.anchors[event.anchor]
        node = Node(MAP if isinstance(event, yaml.MappingStartEvent) else LIST, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        node.tag = getattr(event, "tag", None) or ""
        if isinstance(event, yaml.ScalarEvent):
            node.kind = TEXT
            node.text = templates(event.value)
            node.plain = bool(event.implicit[0])
            node.block = event.style == "|"
            node.line += event.style in ("|", ">")
            node.end = self.first + _line(event.end_mark)
            return node
        if len(self.open) >= DEPTH:
            raise _NotReadError(line, _INVALID)
        self.open.append(node)
        while isinstance(child := next(self.events), yaml.NodeEvent):
            if node.kind == LIST:
                node.items.append(self.node(child))
            else:
                node.pairs.append((self.node(child), self.node(next(self.events))))
        node.end = self.first + _line(child.end_mark)
        self.open.pop()
        self.merge(node)
        return node

    def merge(self, node: Node) -> None:
        """Put the pairs of merged maps in the place of each key `<<`. An earlier map wins."""
        given, node.pairs = node.pairs, []
        merged: list[Node] = []
        for key, value in given:
            if key.text == "<<" and key.plain:
                merged += value.items or [value]
            else:
                node.pairs.append((key, value))
        names = {key.text for key, _ in node.pairs} if merged else set()
        for other in merged:
            self.take(2 * len(other.pairs), node.line)  # a key and a value each
            node.pairs += [pair for pair in other.pairs if pair[0].text not in names]
            names |= {key.text for key, _ in other.pairs}

    def take(self, count: int, line: int) -> None:
        """Count nodes; stop where there are too many."""
        self.left -= count
        if self.left < 0:
            raise _NotReadError(line, f"more than {NODES:,} values in it: the rest is not read")


def _line(mark: Any) -> int:
    """Return the line of a mark, from 0."""
    return int(mark.line) if mark is not None else 0
