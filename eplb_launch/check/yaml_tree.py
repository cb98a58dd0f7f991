"""YAML as a tree with line numbers, within bounds. No tag does anything, nothing is constructed.

The tree is made of the parser's events, so that a bomb is seen while it is read: its depth and its
number of nodes are limited, and an alias is a reference to a node that is there already.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from eplb_launch.check.templating import templates
from eplb_launch.model import Record

DEPTH = 100  # libyaml itself ends at 1,000 since PyYAML 6.0.4, before that at 10,000 and more
NODES = 400_000  # of one file; the largest bundles of CRDs have about 100,000

_DOCUMENT_COSTS = 20  # as many nodes as it takes time to begin one
_CIRCLE_COSTS = 50_000  # as many as a map may have that is merged into one of its own values

MAP, LIST, TEXT = "map", "list", "text"

_TEXTS = 2_000  # that are looked at for a word

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEFINITION = re.compile(r"^kind: CustomResourceDefinition[ \r]*$", re.MULTILINE)
_DOCUMENT = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
# One message for both: libyaml reads ahead, and may come to its own limit before we do to ours.
_INVALID = f"not valid YAML, or nested more than {DEPTH} deep"
TEMPLATE = (
    "a template, not YAML yet: check what it renders to, for instance with "
    "`helm template … | eplb-launch check -`"
)
_NULL = frozenset(("", "~", "null", "Null", "NULL"))


class Problem(Record):
    """What could not be read, and where."""

    line: int  # 0: no particular one
    message: str


class Node:
    """A value of a document and the line that it begins at."""

    __slots__ = (
        *("block", "end", "items", "kind", "known", "line", "merged", "pairs", "plain", "tag"),
        "text",
    )

    def __init__(self, kind: str, line: int) -> None:
        """Begin an empty one at `line`, counted from 1."""
        self.kind = kind
        self.line = line  # of the first line of text, for a block scalar
        self.end = line  # the last line
        self.text = ""
        self.plain = False  # a text without quotes: may be a number or null
        self.block = False  # a literal block: each of its lines is a line of the file
        self.tag = ""  # as it is written, "!reset"
        self.items: list[Node] = []
        self.pairs: list[tuple[Node, Node]] = []
        self.known: dict[str, Node] | None = None  # the entries, once they are asked for
        self.merged = 0  # how many pairs those have that are merged into this map, at most

    def maps(self) -> Iterator[Node]:
        """Yield this map and those merged into it (`<<`), each once; the first one wins."""
        todo, seen = [self], set()
        while todo:
            node = todo.pop()
            if node.kind != MAP or id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            for key, value in reversed(node.pairs):
                if key.merges:
                    todo += reversed(value.items if value.kind == LIST else [value])

    def get(self, name: str) -> Node | None:
        """Return the value of a key of a map; None if it has none."""
        return self.entries().get(name) if self.kind == MAP else None

    def entries(self) -> dict[str, Node]:
        """Return all keys and values of a map; of two equal ones, the last one wins."""
        if self.known is None:
            self.known = {}
            for node in self.maps():
                own = {key.text: value for key, value in node.pairs if key.kind == TEXT}
                for name, value in own.items():
                    self.known.setdefault(name, value)
            self.known.pop("<<", None)
        return self.known

    def place(self, line: int, *names: str) -> int:
        """Return a line inside this map: `line`, or that of a key if it leads elsewhere."""
        if self.line <= line <= self.end:
            return line
        lines = {key.text: key.line for key, _ in reversed(self.pairs)}
        return next((lines[name] for name in names if name in lines), self.line)

    def at(self, *names: str) -> Node | None:
        """Return what is at a path of keys; None if there is nothing."""
        node: Node | None = self
        for name in names:
            node = node.get(name) if node is not None else None
        return node

    def string(self, *names: str) -> str:
        """Return the text at a path of keys; "" if there is none."""
        node = self.at(*names)
        return node.text if node is not None and node.kind == TEXT and not node.null else ""

    def list(self, *names: str) -> list[Node]:
        """Return the elements of the list at a path of keys; none if there is none."""
        node = self.at(*names)
        return node.items if node is not None and node.kind == LIST else []

    def texts(self) -> Iterator[str]:
        """Yield the texts in it, each node once, of a large tree not all."""
        todo, seen = [self], {id(self)}
        while todo:
            at = todo.pop()
            if at.kind == TEXT:
                yield at.text
            for below in (*at.items, *(value for _, value in at.pairs)):
                if len(seen) < _TEXTS and id(below) not in seen:
                    seen.add(id(below))
                    todo.append(below)

    @property
    def merges(self) -> bool:
        """Whether it is the key that merges other maps into the one that it stands in."""
        return self.text == "<<" and self.plain

    @property
    def null(self) -> bool:
        """Whether it is no value at all."""
        return self.kind == TEXT and self.plain and self.text in _NULL


def documents(text: str, line: int = 1) -> Iterator[tuple[str, Node | Problem]]:
    """Yield the documents of a YAML text: each with its source, and as a tree or a Problem.

    `line` is the one that the text begins at in its file.

    They are parsed one by one, so that a broken one leaves the others readable.
    """
    left = [NODES]
    starts = {match.start() for match in _DOCUMENT.finditer(text)}
    edges = [0, *sorted(starts), len(text)]
    for start, end in itertools.pairwise(edges):
        source = text[start:end]
        if _DEFINITION.search(source):
            pass  # it says what objects of a kind may have, in thousands of values, and is none
        elif start in starts or not _only_comments(source):
            left[0] -= _DOCUMENT_COSTS
            try:
                for node in _compose(source, line, left):
                    yield source, node
            except yaml.YAMLError as error:
                yield source, _problem(error, source, line)
            except _TooMuch as error:
                yield source, Problem(error.line, error.message)
                if left[0] < 0:
                    return
        line += source.count("\n")


def _only_comments(source: str) -> bool:
    return all(not line.strip() or line.lstrip()[0] in "#%" for line in source.split("\n"))


class _TooMuch(Exception):  # noqa: N818
    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message


def _problem(error: yaml.YAMLError, source: str, line: int) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    at = line + mark.line if mark else line
    if "{{" in source or "{%" in source:
        return Problem(at, TEMPLATE)
    return Problem(at, _INVALID if mark else "not valid YAML: unreadable characters in it")


def _compose(source: str, first: int, left: list[int]) -> Iterator[Node]:
    """Yield the documents of a source that begins at line `first` of its file."""
    builder = _Builder(yaml.parse(source, Loader=_LOADER), first, left)
    for event in builder.events:
        if isinstance(event, yaml.DocumentStartEvent):
            builder.anchors = {}
        elif isinstance(event, yaml.NodeEvent):
            yield builder.node(event)


class _Builder:
    """Trees that are being made of the events of a parser."""

    def __init__(self, events: Iterator[yaml.Event], first: int, left: list[int]) -> None:
        self.events = events
        self.first = first
        self.left = left  # how many nodes there may be, in the whole file
        self.open: list[Node] = []
        self.anchors: dict[str, Node] = {}

    def node(self, event: Any) -> Node:
        """Return the node that begins with an event."""
        line = self.first + _line(event.start_mark)
        self.take(1, line)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _TooMuch(line, "not valid YAML: an alias that nothing stands for")
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
            raise _TooMuch(line, _INVALID)
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
        """Count what is merged into a map: it is looked through for each key."""
        for key, value in node.pairs:
            for other in (value.items or [value]) if key.merges else ():
                circle = any(other is above for above in self.open)
                node.merged += _CIRCLE_COSTS if circle else len(other.pairs) + other.merged
        self.take(node.merged, node.line)

    def take(self, count: int, line: int) -> None:
        """Take from what there may be in a file."""
        self.left[0] -= count
        if self.left[0] < 0:
            raise _TooMuch(line, f"more than {NODES:,} values in it: not read on from here")


def _line(mark: Any) -> int:
    """Return the line of a place, from 0."""
    return int(mark.line) if mark is not None else 0
