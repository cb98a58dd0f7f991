"""Find the vLLM server inside a command."""

from __future__ import annotations

from eplb_launch.model import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class Server(Record):
    """The vLLM server in a command."""

    entry: str  # "vllm serve", "vllm.entrypoints.openai.api_server", "dynamo.vllm"; "" for none
    words: tuple[str, ...]  # what follows the sub-command or the module name
    positions: Sequence[int]  # where each of them stands in the command
    environ: Mapping[str, str]  # what the server will get, prefixes applied; may hold UNKNOWN
    program: str  # the word that is executed: "vllm", "/opt/venv/bin/vllm", "python3.12"
    prefixes: tuple[Wrapper, ...] = ()
    directory: str | None = None  # where a prefix changes to; None: stays where it is
    complete: bool = True  # False: an expansion that cannot be known may add arguments
    elsewhere: str = ""  # the prefix that leaves this host or container ("docker", "ssh"), if any
    sourced: tuple[str, ...] = ()  # files, "$(command)"s that a shell runs first: they may set more
    others: tuple[Server, ...] = ()  # further servers that the same shell string starts
    place: int = 0  # of the words that say what it is: a position; for a script a shell.state.Place
    unknown: tuple[str, ...] = ()  # what of the shell's its words are that cannot be known: "$ARGS"
    # Whether it gets NCCL_MAX_CTAS as that is set before the command; None: what a script does
    # depends on the value.
    hands_on: bool | None = True

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """What follows the sub-command or the module name. Not a field: there can be 100,000."""
        return tuple(map(Argument, self.words, self.positions))


# Sub-commands of `vllm` that start an engine. Read from vllm/entrypoints/cli of 0.12 to 0.33.
ENGINES = frozenset(
    (
        "serve",
        "run-batch",
        "preload",  # 0.31
        "snapshot create",  # 0.31
        "snapshot restore",  # 0.31
        "bench forward",  # 0.33
        "bench latency",
        "bench mm-processor",  # 0.14
        "bench mm_processor",
        "bench startup",  # 0.13
        "bench throughput",
    )
)
# Modules to run with `python -m`. Those with a `__main__` block in 0.12 to 0.33, except
# launchers.render.entry, which starts no engine.
MODULES = frozenset(
    (
        "vllm.entrypoints.api_server",  # up to 0.24
        "vllm.entrypoints.grpc_server",  # 0.14
        "vllm.entrypoints.launchers.api_server.entry",  # 0.29
        "vllm.entrypoints.launchers.grpc_server",  # 0.30
        "vllm.entrypoints.launchers.run_batch",  # 0.29
        "vllm.entrypoints.openai.api_server",
        "vllm.entrypoints.openai.run_batch",
        "vllm.snapshot.server",  # 0.31: engine arguments stand after its own "--"
        "dynamo.vllm",  # ai-dynamo/dynamo components/src/dynamo/vllm
        "huggingfaceserver",  # kserve/kserve python/huggingfaceserver
    )
)
# Modules that are the `vllm` command. vllm_omni: vllm-project/vllm-omni, pyproject.toml.
COMMANDS = {
    "vllm": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "vllm_omni.entrypoints.cli.main": "vllm-omni",
}
VLLM = ("vllm", "vllm-omni")
HINTS = ("vllm", "huggingfaceserver")  # without one of these in it, a command starts no engine
# Sub-commands that start none, of the same releases.
IDLE = frozenset(("bench", "chat", "collect-env", "complete", "download-kernels", "launch"))
# What an entry point is: its name, and the index of its first argument; 0: it starts no engine.
NOTHING = ("", 0)  # vLLM: `vllm bench serve`
OTHER = ("other", 0)  # a program that is known to start no vLLM: `python -m sglang.launch_server`


def find_server(command: Sequence[str], environ: Mapping[str, str]) -> Server | None:
    """Return the vLLM server that `command` starts, or None where there is none to be seen.

    `command` is an argument list as the kernel gets it; `environ` is its environment. Where
    nothing on the way changes the environment, the server's is the same object.
    """
    return look(command, environ)[0]


def look(command: Sequence[str], environ: Mapping[str, str]) -> tuple[Server | None, bool]:
    """As find_server; and whether the command is vLLM's and starts no engine: `vllm bench serve`.

    Of a script, the last program that is neither built into the shell nor known to start nothing.
    """
    if not command:
        return None, False
    found = entry_at(command, 0)
    if found is None:
        from eplb_launch.command.find import find

        return find(command, environ)
    entry, start = found
    if not start:
        return None, found == NOTHING
    positions = range(start, len(command))
    return Server(entry, tuple(command[start:]), positions, environ, command[0]), False


def entry_at(words: Sequence[str], index: int) -> tuple[str, int] | None:
    """Return the entry point that `words[index]` is and the index of its first argument.

    NOTHING or OTHER if it starts no engine; None if it is another program.
    """
    name = words[index].rpartition("/")[2]
    if name in VLLM:
        return _subcommand(words, index + 1, name)
    if is_python(name):
        module, start = python_target(words, index)
        if module:
            return module_entry(words, module, start)
        if start < len(words):
            return script_entry(words, start)
    return None


def is_python(word: str) -> bool:
    """Whether a word is a Python interpreter: `python3`, `/usr/bin/python3.12`, `python3.14t`."""
    name = word.rpartition("/")[2]
    return name.startswith("python") and not name[6:].strip("0123456789.dt")


def python_target(words: Sequence[str], index: int) -> tuple[str, int]:
    """Return the module that the interpreter at `index` runs and the index of its arguments.

    For a script the module is "" and the index is the script's; the end where it runs neither.
    """
    end = len(words)
    i = index + 1
    while i < end:
        word = words[i]
        if not word.startswith("-") or word == "-":
            return "", i
        i += 1
        if word.startswith("--"):
            i += word == "--check-hash-based-pycs"
            continue
        for at, letter in enumerate(word[1:], 2):
            rest = word[at:]
            if letter == "m":
                return (rest, i) if rest else ("".join(words[i : i + 1]), i + 1)
            if letter == "c":
                return "", end
            if letter in "XW":
                i += not rest
                break
    return "", end


def module_entry(words: Sequence[str], module: str, start: int) -> tuple[str, int] | None:
    """Return the entry point that `python -m module` is, its arguments being `words[start:]`."""
    if module in MODULES:
        if module == "vllm.snapshot.server" and "--" in words[start:]:
            start = words.index("--", start) + 1
        return module, start
    if module in COMMANDS:
        return _subcommand(words, start, COMMANDS[module])
    if module.startswith("vllm."):
        return NOTHING
    # dynamo.sglang and sglang have an --enable-eplb of their own.
    return OTHER if module.startswith(("dynamo.", "sglang")) else None


def script_entry(words: Sequence[str], index: int) -> tuple[str, int] | None:
    """As module_entry, for a file: `/opt/venv/bin/vllm`, `vllm/entrypoints/grpc_server.py`."""
    script = words[index]
    name = script.rpartition("/")[2]
    if name in VLLM:
        return _subcommand(words, index + 1, name)
    at = script.rfind("vllm/entrypoints/")
    if at >= 0 and script.endswith(".py"):
        return module_entry(words, script[at:-3].replace("/", "."), index + 1)
    return None


def _subcommand(words: Sequence[str], index: int, name: str) -> tuple[str, int] | None:
    """Return the entry point of the command `name` with its sub-command at `index`."""
    if "".join(words[index : index + 1]) == "--omni":  # hands over to vllm-omni
        index += 1
    first, second = (*words[index : index + 2], "", "")[:2]
    if first in ENGINES:
        return f"{name} {first}", index + 1
    if f"{first} {second}" in ENGINES:
        return f"{name} {first} {second}", index + 2
    if UNKNOWN in first:
        return "", index + 1
    # Takes a whole serve command as a string, which is for the table of prefixes to find.
    return None if (first, second) == ("bench", "sweep") else NOTHING
