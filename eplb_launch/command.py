"""Find the vLLM server inside a command."""

from __future__ import annotations

from eplb_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Stands inside an argument for text that cannot be known without running the command, such as
# `$((GROUP * 8))`. A real argument never holds a NUL byte.
UNKNOWN = "\0"


class Argument(Record):
    """One argument of the server, and where it stands."""

    text: str  # with UNKNOWN for each part that cannot be known
    position: int  # index in the command; for a word of a shell string, the index of that string


class Prefix(Record):
    """A program that stands between the launcher and the server, such as `numactl`."""

    name: str  # basename, or "sh" for a shell string
    words: tuple[str, ...]  # its own words: the name, its options and operands
    position: int  # index of its first word in the command


class Server(Record):
    """The vLLM server in a command."""

    entry: str  # "vllm serve", "vllm.entrypoints.openai.api_server", "dynamo.vllm"; "" for none
    arguments: tuple[Argument, ...]  # what follows the sub-command or the module name
    environ: Mapping[str, str]  # what the server will get, prefixes applied
    program: str  # the word that is executed: "vllm", "/opt/venv/bin/vllm", "python3.12"
    prefixes: tuple[Prefix, ...] = ()
    directory: str | None = None  # where a prefix changes to; None: stays where it is
    complete: bool = True  # False: an expansion that cannot be known may add arguments
    elsewhere: str = ""  # the prefix that leaves this host or container ("docker", "ssh"), if any


def find_server(command: Sequence[str], environ: Mapping[str, str]) -> Server | None:
    """Return the vLLM server that `command` starts, or None where there is none to be seen."""
    raise NotImplementedError
