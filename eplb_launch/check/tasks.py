"""What a deployment file starts: a command, its variables and its image, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eplb_launch.check import images
from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import LIST, TEXT, Node
from eplb_launch.model import ONE_WORD, UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE, minor_release

VALUES = {VARIABLE: str(CAP)}  # what a fix sets

SECRET = "Secret"  # noqa: S105 - a kind
# These decide. Like those that NCCL reads, they are unset where no file sets them. All other
# variables that a script looks up, and no file sets, may come from the image or the node.
_NAMES = """
    BASH_ENV HOME PATH PYTHONPATH PYTHONUSERBASE SLURM_EXPORT_ENV SLURM_JOB_NUM_NODES SLURM_NNODES
    VLLM_ALL2ALL_BACKEND VLLM_BATCH_INVARIANT VLLM_DP_SIZE VLLM_NCCL_SO_PATH
    VLLM_USE_RAY_V2_EXECUTOR_BACKEND
"""
_DECIDING = frozenset(_NAMES.split())
# An environment that could not be read may well set these.
_MAY_BE_SET = ("VLLM_ALL2ALL_BACKEND", "VLLM_DP_SIZE")
_MISSING: Any = object()


class TooMuch(Exception):  # noqa: N818
    """A file has more of something than any real deployment has."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Environment(dict[str, str]):
    """An environment of which only a part is known: the rest is UNKNOWN to a script."""

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """Return a value; the default, or UNKNOWN, if the value is not known."""
        if name in self:
            return self[name]
        if default is not _MISSING:
            return default
        known = name in _DECIDING or name.startswith(("NCCL_", "RCCL_"))
        return None if known else UNKNOWN


def environment(known: Mapping[str, str], *, unread: bool) -> Environment:
    """Return an environment; `unread`: a place that could not be read sets more."""
    found = Environment(known)
    if unread:
        for name in _MAY_BE_SET:
            found.setdefault(name, UNKNOWN)
    return found


class Word(Record):
    """A word of a command, and where it stands."""

    text: str
    source: Source
    line: int  # its first line; 0: the image brings it, no file
    end: int = 0  # its last line
    block: bool = False  # each line of the text is a line of the file


class File(Record):
    """A file that a deployment puts before a command."""

    text: str
    source: Source
    line: int = 1  # where it begins in its source


class CapLine(Record):
    """Where a file sets the variable that limits NCCL."""

    source: Source
    line: int
    text: str  # what should stand there


class Variables:
    """The variables of a command: their values, and where they come from."""

    def __init__(self, base: Variables | None = None) -> None:
        """Begin with the variables of `base`."""
        self.known: dict[str, str] = dict(base.known) if base else {}
        self.cap_line: CapLine | None = base.cap_line if base else None
        self.unread: list[str] = []  # what sets more variables, and could not be read
        self.missing: dict[str, None] = {}  # the variables in its words that are not known

    def set(self, name: str, value: str, source: Source, line: int, text: str) -> None:
        """Set a variable at a line of a file, where `text` would be right for the limit."""
        self.known[name] = value
        if name == VARIABLE:
            self.cap_line = CapLine(source, line, text)

    def set_from_file(self, name: str, file: File | None, text: str) -> None:
        """Set a variable to what a file has; None: the file is not known."""
        if file is None:
            self.known[name] = UNKNOWN
        else:
            self.set(name, file.text, file.source, file.line, text)

    def value(self, name: str) -> str:
        """Return the value of a variable in a word; UNKNOWN, and noted, if it is not known."""
        found = self.known.get(name, UNKNOWN).replace(ONE_WORD, UNKNOWN)
        if UNKNOWN in found:
            self.missing[f"${name}"] = None
        return found


class Place(Record):
    """How a fix is written where a task stands."""

    where: str  # the variable is set: "in the container"
    sets: str  # what sets it there
    begins: str = ""  # how the words of a command are given; "": not shown
    # How the words are given where the image's own entry point is what starts the server.
    own: tuple[str, str] = ("", "")
    line: bool = False  # the words of a command are a line, not a list
    last_wins: bool = False  # what is added there counts, whatever was set before
    fragments: bool = False  # options without a program may stand there, half of a command
    templated: bool = False  # another program replaces `${NAME}` in a word
    image: bool = False  # it is a step of a build
    absolute: bool = False  # a program is best named by its path
    wraps: bool = True  # the launcher can be put before the server there


class Task(Record):
    """A command that a file starts, with all that the file says of it."""

    place: Place
    name: str  # "Deployment/decode container vllm", "service vllm"; "" for a script
    source: Source
    line: int  # where it begins, for what has no better line
    words: tuple[Word, ...]
    variables: Variables = Variables()
    directory: str = "/"
    image: str = ""
    files: Mapping[str, File] = {}  # by their paths in the container
    notes: tuple[str, ...] = ()
    unreadable: str = ""  # why there are no words, though it starts a server
    about: str = ""  # what else of the file belongs to it
    guess: str = ""  # why it is not known whether its words are what is started
    unset_by: str = ""  # what unsets the variable, wherever else the file sets it
    own_entry: bool = False  # the image's entry point is the program: the file names none
    base: str = ""  # the image that this one is built from
    as_text: bool = False  # the command is one text, to be split
    only_arguments: bool = False  # the entry point is not known, or is the first word
    without_defaults: Task | None = None  # the same, with UNKNOWN for each default
    uncapped_peers: bool = False  # pods that may be its Ray workers do not set the limit
    mounts: tuple[str, ...] = ()  # the paths at which something is mounted
    adds: bool = False  # a step of the build may bring programs
    installs: str = ""  # the release of vLLM that a step of the build installs
    entry: str = ""  # the line to add to the variables that the file sets

    @property
    def version(self) -> tuple[str | None, str]:
        """The release of vLLM that a step installs, or that the image says, and why."""
        if minor_release(self.installs) is not None:
            return self.installs, "a step of the Dockerfile installs it"
        found = images.version(self.image)
        return images.version(self.base) if self.base and found[0] is None else found

    @property
    def bare(self) -> bool:
        """Whether the image is as it was published, and nothing brings a program to it."""
        return not self.adds and images.is_bare(self.base or self.image, self.mounts)


def misshapen(words: Mapping[str, Node | None], image: str) -> str:
    """Return why a command cannot be read: something in it is no text. By the keys of its parts.

    "" if all is well, or if nothing in it says that it has to do with vLLM.
    """
    given = {key: node for key, node in words.items() if node is not None}
    for key, node in given.items():
        items = node.items if node.kind == LIST else [node]
        if any(item.kind != TEXT for item in items) and (
            images.is_vllm(image) or any("vllm" in t for n in given.values() for t in n.texts())
        ):
            return f"a list or a map stands in its {key}, where a text has to"
    return ""


def may_set_cap(unread: Iterable[str]) -> bool:
    """Whether what could not be read may set the limit: nobody keeps it in a Secret."""
    return any(not entry.startswith(f"{SECRET} ") for entry in unread)


def words_at(texts: Iterable[str], source: Source, line: int, end: int = 0) -> tuple[Word, ...]:
    """Return words that all stand at one place."""
    return tuple(Word(text, source, line, end) for text in texts)


def word(node: Node, source: Source, text: str | None = None) -> Word:
    """Return the word that a scalar is; `text` if something has been expanded in it."""
    return Word(
        node.text if text is None else text, source, node.line, max(node.end, node.line), node.block
    )
