"""What a deployment file starts: a command, its environment and its image, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eplb_launch.check import images
from eplb_launch.check.sources import Source
from eplb_launch.check.yaml_tree import LIST, TEXT, Node
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.vllm.releases import CAP, VARIABLE

VALUES = {VARIABLE: str(CAP)}  # that a fix sets

# What decides, and what NCCL reads: taken to be unset where a file does not set it. Anything else
# that a script looks up and no file sets may come from the image or the node.
_DECIDING = frozenset(
    (
        "BASH_ENV",
        "HOME",
        "PATH",
        "PYTHONPATH",
        "PYTHONUSERBASE",
        "SLURM_EXPORT_ENV",
        "SLURM_JOB_NUM_NODES",
        "SLURM_NNODES",
        "VLLM_ALL2ALL_BACKEND",
        "VLLM_BATCH_INVARIANT",
        "VLLM_DP_SIZE",
        "VLLM_NCCL_SO_PATH",
        "VLLM_USE_RAY_V2_EXECUTOR_BACKEND",
    )
)
# Of these, what an environment that could not be read may well set.
_MAY_BE_SET = ("VLLM_ALL2ALL_BACKEND", "VLLM_DP_SIZE")
_MENTIONS = 2_000  # nodes that are looked at for a word
_MISSING: Any = object()


class TooMuch(Exception):  # noqa: N818
    """More of something than any real deployment has, and where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Environment(dict[str, str]):
    """An environment of which only a part is known: the rest is UNKNOWN to a script."""

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """Return a value; for one that is not known the default, UNKNOWN if none is given."""
        if name in self:
            return self[name]
        if default is not _MISSING:
            return default
        known = name in _DECIDING or name.startswith(("NCCL_", "RCCL_"))
        return None if known else UNKNOWN


def environment(known: Mapping[str, str], *, unread: bool) -> Environment:
    """Return an environment; `unread`: more is set, in a place that could not be read."""
    found = Environment(known)
    if unread:
        for name in _MAY_BE_SET:
            found.setdefault(name, UNKNOWN)
    return found


class Word(Record):
    """A word of a command, and where it stands."""

    text: str
    source: Source
    line: int  # of its first line; 0: it stands nowhere, the image brings it
    end: int = 0  # its last line
    block: bool = False  # each line of the text is a line of the file


class Limit(Record):
    """Where a file sets the variable that is to limit NCCL."""

    source: Source
    line: int
    text: str  # what is to stand there


class Variables:
    """The environment of a command, while it is put together."""

    def __init__(self, known: Mapping[str, str] | None = None, limit: Limit | None = None) -> None:
        self.known = dict(known or {})
        self.limit = limit
        self.unread: list[str] = []  # what sets more, and could not be read

    def set(self, name: str, value: str, source: Source, line: int, text: str) -> None:
        """Set a variable at a line of a file, where `text` would be the right one."""
        self.known[name] = value
        if name == VARIABLE:
            self.limit = Limit(source, line, text)


class Place(Record):
    """How a fix is written where a task stands."""

    where: str  # the variable is set: "in the container"
    sets: str  # what sets it there
    begins: str = ""  # how the words of a command are given; "": it is not shown how
    # How the words are given where the image's own entry point is what starts the server.
    own: tuple[str, str] = ("", "")
    line: bool = False  # the words of a command are a line, not a list
    last_wins: bool = False  # what is added there counts, whatever was set before
    fragments: bool = False  # options without a program may stand there, half of a command
    templated: bool = False  # somebody puts in something for `${NAME}` in a word
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
    environ: Mapping[str, str] = {}
    unread: tuple[str, ...] = ()  # what sets more of the environment, and could not be read
    directory: str = "/"
    image: str = ""
    files: Mapping[str, File] = {}  # by the path where the command sees them
    notes: tuple[str, ...] = ()
    unreadable: str = ""  # why there are no words, though it starts a server
    about: str = ""  # what else of the file belongs to it
    guess: str = ""  # why it is not known whether its words are what is started
    takes_away: str = ""  # what takes the variable away again, wherever else the file sets it
    own_entry: bool = False  # the image's entry point is the program: the file names none
    base: str = ""  # the image that this one is built from
    as_text: bool = False  # the command is one text, to be split
    only_arguments: bool = False  # of an entry point that is not known; it may be the first of them
    limit: Limit | None = None  # what `environ` has the variable from
    otherwise: Task | None = None  # with all UNKNOWN that whoever starts it may change
    workers_without: bool = False  # other pods, that may be its Ray workers, do not set it
    bare: bool = False  # the image is as it was published, and nothing adds a program to it
    mounts: tuple[str, ...] = ()  # what is put into it, by its paths there
    entry: str = ""  # what would set it among the variables that the file sets already

    @property
    def version(self) -> tuple[str | None, str]:
        """The release of vLLM that the image says, and why."""
        found = images.version(self.image)
        return images.version(self.base) if self.base and found[0] is None else found


class File(Record):
    """A file that a deployment puts before a command."""

    text: str
    source: Source
    line: int = 1  # where it begins in its source


def _mentions(node: Node, text: str) -> bool:
    """Whether a text stands somewhere in a tree, as far as it is looked at."""
    todo, seen = [node], {id(node)}
    while todo:
        at = todo.pop()
        if at.kind == TEXT and text in at.text:
            return True
        for below in [*at.items, *(value for _, value in at.pairs)]:
            if len(seen) < _MENTIONS and id(below) not in seen:
                seen.add(id(below))
                todo.append(below)
    return False


def misshapen(words: Mapping[str, Node | None], image: str) -> str:
    """Return why commands are none, by their keys: something in one is no text.

    "" if all is well, or if it has nothing to do with vLLM, by all that can be seen.
    """
    for key, node in words.items():
        items = node.items if node is not None and node.kind == LIST else [node]
        if any(item is not None and item.kind != TEXT for item in items) and (
            images.is_vllm(image)
            or any(n is not None and _mentions(n, "vllm") for n in words.values())
        ):
            return f"a list or a map stands in its {key}, where a text has to"
    return ""


def word(node: Node, source: Source, text: str | None = None) -> Word:
    """Return the word that a scalar is; `text` if something has been expanded in it."""
    return Word(
        node.text if text is None else text, source, node.line, max(node.end, node.line), node.block
    )
