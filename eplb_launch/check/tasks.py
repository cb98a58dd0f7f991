"""The command that a deployment file starts, with its variables and its image: a Task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eplb_launch.check import images
from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import LIST, TEXT, Node
from eplb_launch.command.shell.lexer import split
from eplb_launch.model import ONE_WORD, UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE, minor_release

VALUES = {VARIABLE: str(CAP)}  # of a fix

SECRET = "Secret"  # noqa: S105 - a kind of object
# Variables that decide. Like those of NCCL, they are taken as unset unless a file sets them. Other
# variables may come from the image or the node.
_NAMES = """
    BASH_ENV HOME PATH PYTHONPATH PYTHONUSERBASE SLURM_EXPORT_ENV SLURM_JOB_NUM_NODES SLURM_NNODES
    VLLM_ALL2ALL_BACKEND VLLM_BATCH_INVARIANT VLLM_DP_SIZE VLLM_NCCL_SO_PATH
    VLLM_USE_RAY_V2_EXECUTOR_BACKEND
"""
_DECIDING = frozenset(_NAMES.split())
# A place that could not be read may well set these.
_MAY_BE_SET = ("VLLM_ALL2ALL_BACKEND", "VLLM_DP_SIZE")
_MISSING: Any = object()
MAX_WORDS = 2_000  # of one list


class TooMuch(Exception):  # noqa: N818
    """A file holds more than any real deployment does."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Environment(dict[str, str]):
    """An environment that is known in part: a script gets UNKNOWN for any other variable."""

    def __init__(self, known: Mapping[str, str], *, unread: bool) -> None:
        """Take the variables that are known. `unread`: a place that was not read may set more."""
        super().__init__({**dict.fromkeys(_MAY_BE_SET if unread else (), UNKNOWN), **known})

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """Return a value. Without a default, it is UNKNOWN where any place could set it."""
        if name in self or default is not _MISSING:
            return super().get(name, default)
        return None if name in _DECIDING or name.startswith(("NCCL_", "RCCL_")) else UNKNOWN


class Word(Record):
    """A word of a command and its place in a file."""

    text: str
    source: Source
    line: int  # its first line; 0: it is in no file, but in the image
    end: int = 0  # its last line
    block: bool = False  # each line of the text is a line of the file


class File(Record):
    """A file that a command finds where it runs."""

    text: str
    source: Source
    line: int = 1  # its first line in the source


class CapLine(Record):
    """The line of a file that sets the cap."""

    source: Source
    line: int
    text: str  # the right text for this line


class Variables:
    """The variables of a command."""

    def __init__(self, base: Variables | None = None) -> None:
        """Copy the variables of `base`."""
        self.known: dict[str, str] = dict(base.known) if base else {}
        self.cap_line: CapLine | None = base.cap_line if base else None
        self.unread: list[str] = []  # places that set variables, and could not be read
        self.missing: dict[str, None] = {}  # `$NAME` of the command that are not known; ordered

    def set(self, name: str, value: str, source: Source, line: int, text: str) -> None:
        """Set a variable that a line of a file sets. `text` on that line would set the cap."""
        self.known[name] = value
        if name == VARIABLE:
            self.cap_line = CapLine(source, line, text)

    def set_from_file(self, name: str, file: File | None, text: str) -> None:
        """Set a variable to the text of a file; None: that file is not known."""
        if file is None:
            self.known[name] = UNKNOWN
        else:
            self.set(name, file.text, file.source, file.line, text)

    def value(self, name: str) -> str:
        """Return the value for a word of the command; note a variable that is not known."""
        found = self.known.get(name, UNKNOWN).replace(ONE_WORD, UNKNOWN)
        if UNKNOWN in found:
            self.missing[f"${name}"] = None
        return found


class Style(Record):
    """How a fix is written in a kind of file."""

    where: str  # "in the container": a fix sets the variable there
    sets: str  # the text that sets the variable
    begins: str = ""  # how a command is written, "command: {}"; "": not shown
    # What to do, and the text, if the entry point of the image starts the server.
    own: tuple[str, str] = ("", "")
    line: bool = False  # a command is a line, not a list of words
    last_wins: bool = False  # a later setting replaces an earlier one
    fragments: bool = False  # a text may be half a command: options without a program
    templated: bool = False  # another program may replace `${NAME}` in a word
    image: bool = False  # the file builds an image
    absolute: bool = False  # a program is named by its path
    wraps: bool = True  # the launcher can be put before the server


class Task(Record):
    """A command that a file starts, and what the file says about it."""

    fix_style: Style
    name: str  # "Deployment/decode container vllm", "service vllm"; "" for a script
    source: Source
    line: int  # for a finding without a better line
    words: tuple[Word, ...]
    variables: Variables = Variables()
    directory: str = "/"
    image: str = ""
    files: Mapping[str, File] = {}  # by their paths where the command runs
    notes: tuple[str, ...] = ()
    unreadable: str = ""  # why the words of a server are not known
    about: str = ""  # other text of the file about this server
    guess: str = ""  # why the words may not be what is started
    unset_by: str = ""  # the setting that unsets the variable after all others
    own_entry: bool = False  # the program is the entry point of the image
    base: str = ""  # the image that this one is built from
    as_text: bool = False  # the command is one text, which is split into words
    only_arguments: bool = False  # the program is not known, or is the first word
    without_defaults: Task | None = None  # the same task, with UNKNOWN for each default
    uncapped_peers: bool = False  # other pods of its Ray cluster do not set the cap
    mounts: tuple[str, ...] = ()  # paths where something is mounted
    adds: bool = False  # a build step may add programs to the image
    installs: str = ""  # the release of vLLM that a build step installs
    entry: str = ""  # a line to add to the variables that the file sets

    @property
    def version(self) -> tuple[str | None, str]:
        """The release of vLLM, and how it is known; None if it is not."""
        if minor_release(self.installs) is not None:
            return self.installs, "a step of the Dockerfile installs it"
        found = images.version(self.image)
        return images.version(self.base) if self.base and found[0] is None else found

    @property
    def bare(self) -> bool:
        """Whether the image is as it was published, and nothing adds a program to it."""
        return not self.adds and images.is_bare(self.base or self.image, self.mounts)


def misshapen(words: Mapping[str, Node | None], image: str) -> str:
    """Return why a command cannot be read: one of its parts, by their keys, is no text.

    "" if all are texts, or if nothing there has to do with vLLM.
    """
    given = {key: node for key, node in words.items() if node is not None}
    texts = (text for node in given.values() for text in node.texts())
    for key, node in given.items():
        items = node.items if node.kind == LIST else [node]
        if any(item.kind != TEXT for item in items) and (
            images.is_vllm(image) or any("vllm" in text for text in texts)
        ):
            return f"a list or a map in its {key} must be a text"
    return ""


def may_set_cap(unread: Iterable[str]) -> bool:
    """Whether a place that could not be read may set the cap. A Secret does not."""
    return any(not place.startswith(f"{SECRET} ") for place in unread)


def words_at(texts: Iterable[str], source: Source, line: int, end: int = 0) -> tuple[Word, ...]:
    """Return words that stand at the same place."""
    return tuple(Word(text, source, line, end) for text in texts)


def word(node: Node, source: Source, text: str | None = None) -> Word:
    """Return a scalar as a word. `text`: its text after expansion."""
    text = node.text if text is None else text
    return Word(text, source, node.line, max(node.end, node.line), node.block)


def words_of(node: Node, source: Source) -> tuple[Word, ...]:
    """Return the words of a text or of a list of texts; () for another value."""
    if node.kind == TEXT:
        return words_at(split(node.text), source, node.line)
    items = node.items[:MAX_WORDS]
    is_list = all(item.kind == TEXT for item in items)
    return tuple(word(item, source) for item in items) if is_list else ()


def lines_of(items: Sequence[Node], source: Source) -> Word:
    """Return a list of lines as a script, in which each line stands where it is in the file."""
    first = items[0].line
    text = items[0].text
    for item in items[1:]:
        text += "\n" * max(item.line - first - text.count("\n"), 1) + item.text
    return Word(text, source, first, items[-1].end, block=True)
