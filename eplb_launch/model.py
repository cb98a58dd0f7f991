"""Frozen records, and what all that render a plan share.

A record is what `@dataclass(frozen=True)` gives, without what importing that costs: `dataclasses`
imports `inspect` and `re`, more than the whole launcher takes. Type checkers see records as frozen
dataclasses (PEP 681).
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
    """A value with named fields: compared, hashed and shown by them, and never changed.

    A subclass lists its fields as annotations; a class attribute of the same name is the default.
    """

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the fields in their order or by name; TypeError where one is missing or unknown."""
        name = type(self).__name__
        if len(args) > len(self._fields):
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
        return tuple(getattr(self, field) for field in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields)
        return f"{type(self).__name__}({shown})"


# Stands inside an argument for text that cannot be known without running the command, such as
# `$((GROUP * 8))`. A real argument never holds a NUL byte.
UNKNOWN = "\0"
# The same as the value of a variable that is one word for sure, and no option: a number, a host.
ONE_WORD = "\0\1"


class Argument(Record):
    """One argument of the server, and where it stands."""

    text: str  # with UNKNOWN for each part that cannot be known
    position: int  # index in the command; for a word of a shell string, the index of that string

    def __init__(self, text: str, position: int) -> None:
        """As a Record does, but a command can have very many arguments."""
        values = self.__dict__
        values["text"] = text
        values["position"] = position


class Wrapper(Record):
    """A program that stands between the launcher and the server, such as `numactl`."""

    name: str  # basename, or "sh" for a shell string
    words: tuple[str, ...]  # its own words: the name, its options and operands
    position: int  # index of its first word in the command
    drops: bool = False  # NCCL_MAX_CTAS does not get through it
    sets: bool = False  # it sets NCCL_MAX_CTAS itself
    user: bool = False  # it runs the command as another user
    python: str = ""  # how its Python environment is told: command.wrappers.FACTS
    option: str = ""  # of its own, that makes it hand {name} on, or sets it to {value}


class Server(Record):
    """The vLLM server in a command."""

    entry: str  # "vllm serve", "vllm.entrypoints.openai.api_server", "dynamo.vllm"; "" for none
    words: tuple[str, ...]  # what follows the sub-command or the module name
    positions: Sequence[int]  # where each of them stands in the command
    environ: Mapping[str, str]  # what the server will get, wrappers applied; may hold UNKNOWN
    program: str  # the word that is executed: "vllm", "/opt/venv/bin/vllm", "python3.12"
    wrappers: tuple[Wrapper, ...] = ()
    directory: str | None = None  # where a wrapper changes to; None: stays where it is
    complete: bool = True  # False: an expansion that cannot be known may add arguments
    elsewhere: str = ""  # the wrapper that leaves this host or container ("docker", "ssh"), if any
    sourced: tuple[str, ...] = ()  # files, "$(command)"s that a shell runs first: they may set more
    others: tuple[Server, ...] = ()  # further servers that the same shell string starts
    place: int = 0  # of the words that say what it is: a position; for a script a shell.state.Place
    unknown: tuple[str, ...] = ()  # what of the shell's its words are that cannot be known: "$ARGS"
    # Whether it gets NCCL_MAX_CTAS as that is set before the command; None: what a script does
    # depends on the value.
    hands_on: bool | None = True
    script: str = ""  # the file that it is in, if it is in one
    release: str = ""  # of vLLM, where the command asks for one: `uvx vllm@0.16.0`
    written: tuple[tuple[str, str], ...] = ()  # files that its script has written, with their texts

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """What follows the sub-command or the module name. Not a field: there can be 100,000."""
        return tuple(map(Argument, self.words, self.positions))


def is_python(word: str) -> bool:
    """Whether a word is a Python interpreter: `python3`, `/usr/bin/python3.12`, `python3.14t`."""
    name = word.rpartition("/")[2]
    return name.startswith("python") and not name[6:].strip("0123456789.dt")


MOST_SHOWN = 200  # characters of anything that a command, a process or a file says


def cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def printable(text: str) -> str:
    """Return a line with everything escaped that who shows it would act on, line ends included.

    That is a terminal, or the log of a workflow of GitHub, which reads commands in what is printed:
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


# The code of a note: on the GPUs that are there, the cap fits only while NCCL does not fill it.
DOES_NOT_FIT = "cap-does-not-fit"

# Who caps NCCL.
LAUNCHER = "eplb-launch"
ENVIRONMENT = "environment"  # NCCL_MAX_CTAS is in the environment of the server
FILE = "conf file"  # one of NCCL's
VLLM = "vLLM"  # its workers set NCCL_MAX_CTAS themselves
ANYBODY = (LAUNCHER, ENVIRONMENT, FILE, VLLM)


class PlanWarning(Record):
    """Something that a person should know about a command."""

    code: str  # stable, for programs
    message: str
    remedy: str
    source: str = ""  # where that is known from
    voids: tuple[str, ...] = ()  # whose cap does not hold
    doubts: tuple[str, ...] = ()  # whose cap may not hold
    launch_only: bool = False  # it counts only where the launcher, or one of `voids`, sets a cap
