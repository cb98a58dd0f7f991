"""Frozen records, and what every sub-command needs to show a plan.

A record replaces `@dataclass(frozen=True)`: importing `dataclasses` (and `inspect`, `re`) would
take longer than the whole launch. Type checkers see frozen dataclasses (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """A value with named fields, which decide equality, hash and repr. It never changes.

    A subclass lists its fields as annotations. A class attribute of the same name is the default.
    """

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set the fields, by order or by name; TypeError if one is missing or unknown."""
        name = type(self).__name__
        if args[len(self._fields) :]:
            raise TypeError(f"{name} takes {len(self._fields)} fields, not {len(args)}")
        values = self.__dict__
        values.update(zip(self._fields, args, strict=False))
        for key, value in kwargs.items():
            if key not in self._fields or key in values:
                raise TypeError(f"{name} has no field {key!r}, or it is given twice")
            values[key] = value
        for field in self._fields:
            if field not in values and not hasattr(self, field):
                raise TypeError(f"{name} lacks its field {field!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"{type(self).__name__}.{name} cannot be set: a record does not change"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        if not changes.keys() <= set(self._fields):
            raise TypeError(f"{type(self).__name__} has no such field: {sorted(changes)}")
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__, **changes)
        return copied

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, field) for field in self._fields])

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields)
        return f"{type(self).__name__}({shown})"


# A mark in an argument: here is text that only running the command could tell, such as
# `$((GROUP * 8))`. A real argument cannot contain a NUL byte.
UNKNOWN = "\0"
# The unknown value of a variable that is certainly one word and no option: a number, a host name.
ONE_WORD = "\0\1"


class Wrapper(Record):
    """A program that starts the server for the launcher, such as `numactl`."""

    name: str  # basename, or "sh" for a shell string
    words: tuple[str, ...]  # its own words: its name, options and operands
    position: int  # the index of its first word in the command
    drops: bool = False  # it does not pass NCCL_MAX_CTAS on
    sets: bool = False  # it sets NCCL_MAX_CTAS itself
    user: bool = False  # it runs the command as another user
    python: str = ""  # how to find its Python environment: command.wrappers.FACTS
    option: str = ""  # its option that passes {name} on, or sets it to {value}


class Server(Record):
    """The vLLM server in a command."""

    entry: str  # "vllm serve", "vllm.entrypoints.openai.api_server", "dynamo.vllm"; "" for none
    words: tuple[str, ...]  # its arguments, after the sub-command or the module name
    positions: Sequence[int]  # the index in the command of each argument; see `place`
    environ: Mapping[str, str]  # what the server gets, after all wrappers; may contain UNKNOWN
    program: str  # the word that is executed: "vllm", "/opt/venv/bin/vllm", "python3.12"
    wrappers: tuple[Wrapper, ...] = ()
    directory: str | None = None  # a wrapper changes to it; None: no wrapper does
    args_known: bool = True  # False: an unknown expansion may add arguments
    remote: str = ""  # the wrapper that leaves this host or container: "docker", "ssh"
    reads_first: tuple[
        str, ...
    ] = ()  # files and "$(command)"s that a shell runs first: may set more
    others: tuple[Server, ...] = ()  # further servers that the same shell string or script starts
    place: int = 0  # of its entry point: an index in the command, or in a script shell.syntax.Place
    unknown: tuple[str, ...] = ()  # the parts of its words that are not known: "$ARGS"
    hands_on: bool | None = True  # it gets our NCCL_MAX_CTAS; None: a script depends on the value
    script: str = ""  # the script file that starts it, if one does
    release: str = ""  # the vLLM release that the command asks for: `uvx vllm@0.16.0`
    written: tuple[tuple[str, str], ...] = ()  # files that its script writes first, with their text


def is_python(word: str) -> bool:
    """Whether a word is a Python interpreter: `python3`, `/usr/bin/python3.12`, `python3.14t`."""
    name = word.rpartition("/")[2]
    return name.startswith("python") and not name[6:].strip("0123456789.dt")


MOST_SHOWN = 200  # characters of any text from a command, a process or a file


def cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def printable(text: str) -> str:
    """Return a line that a terminal or a log only shows: control characters are escaped.

    GitHub's runner executes commands that it finds in a log:
    https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs.
    """
    if "##[" in text:
        text = text.replace("##[", "#\\x23[")
    if text.lstrip()[:2] == "::":
        text = text.replace(":", "\\x3a", 1)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


# The code of a note: the cap fits on these GPUs only while NCCL uses less than the cap.
DOES_NOT_FIT = "cap-does-not-fit"

# Who sets the cap.
LAUNCHER = "eplb-launch"
ENVIRONMENT = "environment"  # NCCL_MAX_CTAS in the environment of the server
FILE = "conf file"  # nccl.conf, or the file in NCCL_CONF_FILE
VLLM = "vLLM"  # its workers, by vLLM's own rule
ANYBODY = (LAUNCHER, ENVIRONMENT, FILE, VLLM)


class PlanWarning(Record):
    """A warning or a note about a command."""

    code: str  # for programs; it never changes
    message: str
    remedy: str
    source: str = ""  # what says so: a document, a source file
    voids: tuple[str, ...] = ()  # a cap that one of these sets does not hold
    doubts: tuple[str, ...] = ()  # a cap that one of these sets may not hold
    launch_only: bool = False  # it counts only if the launcher, or one of `voids`, sets the cap
