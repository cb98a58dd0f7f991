"""What starts a vLLM engine: sub-commands of `vllm`, modules, scripts."""

from __future__ import annotations

from eplb_launch.model import UNKNOWN, Server, is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    # The server; whether the command is vLLM but starts no engine; the scripts that were not read.
    Look: TypeAlias = tuple[Server | None, bool, Sequence[str]]

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
# Modules that `python -m` runs and that start an engine: vLLM's with a `__main__` block, 0.12 to
# 0.33 (launchers.render.entry starts no engine), and other projects' that wrap it.
MODULES = frozenset(
    (
        "vllm.entrypoints.api_server",  # up to 0.24
        "vllm.entrypoints.grpc_server",  # 0.14
        "vllm.entrypoints.launchers.api_server.entry",  # 0.29
        "vllm.entrypoints.launchers.grpc_server",  # 0.30
        "vllm.entrypoints.launchers.run_batch",  # 0.29
        "vllm.entrypoints.openai.api_server",
        "vllm.entrypoints.openai.run_batch",
        "vllm.snapshot.server",  # 0.31; its engine arguments follow its own "--"
        "dynamo.vllm.main",
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
# Modules of `vllm bench sweep`: they start servers from the commands in their options.
SWEEPS = tuple(
    f"vllm.benchmarks.sweep.{name}" for name in ("serve", "serve_sla", "serve_workload", "startup")
)
# Options of an entry point that `vllm serve` lacks: vllm/benchmarks of 0.12 to 0.33.
OWN_OPTIONS = {"vllm bench latency": ("--n",), "vllm bench throughput": ("--n",)}
HINTS = ("vllm", "huggingfaceserver")  # every command that starts an engine contains one of these
# Sub-commands of `vllm` that start no engine, in the same releases.
IDLE = frozenset(("bench", "chat", "collect-env", "complete", "download-kernels", "launch"))
# Options that no other program is likely to have. vllm/engine/arg_utils.py of 0.12 to 0.33.
OF_EPLB = ("--enable-eplb", "--eplb-config", "--all2all-backend")
MARKS = (*OF_EPLB, "--data-parallel-size", "-dp")
# An entry point is its name and the index of its first argument. These two start no vLLM engine:
NO_ENGINE = ("", 0)  # vLLM, as in `vllm bench serve`
NOT_VLLM = ("other", 0)  # another engine, as in `python -m sglang.launch_server`


def find_by_name(command: Sequence[str], environ: Mapping[str, str]) -> Look | None:
    """Return what a command starts, if its first word says it; None: use `command.look`."""
    if not command:
        return None, False, ()
    found = entry_at(command, 0)
    if found is None:
        return None
    entry, start = found
    if not start:
        return None, found == NO_ENGINE, ()
    positions = range(start, len(command))
    return Server(entry, tuple(command[start:]), positions, environ, command[0]), False, ()


def entry_at(words: Sequence[str], index: int) -> tuple[str, int] | None:
    """Return the entry point that `words[index]` is and the index of its first argument.

    NO_ENGINE or NOT_VLLM if it starts no engine; None if it is no known program.
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


def python_target(words: Sequence[str], index: int) -> tuple[str, int]:
    """Return the module that the interpreter at `index` runs, and the index of its arguments.

    For a script, the module is "" and the index is the script's. If it runs neither, the index is
    the end.
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
    """Return the entry point that `python -m module` is, with the arguments `words[start:]`."""
    if module in MODULES:
        if module == "vllm.snapshot.server" and "--" in words[start:]:
            start = words.index("--", start) + 1
        return module, start
    if module in COMMANDS:
        return _subcommand(words, start, COMMANDS[module])
    if module.startswith("vllm."):
        return None if module in SWEEPS else NO_ENGINE
    # dynamo.sglang and sglang have their own --enable-eplb.
    return NOT_VLLM if module.startswith(("dynamo.", "sglang")) else None


def script_entry(words: Sequence[str], index: int) -> tuple[str, int] | None:
    """Return the entry point that a Python file is: bin/vllm, vllm/entrypoints/grpc_server.py."""
    script = words[index]
    name = script.rpartition("/")[2]
    if name in VLLM:
        return _subcommand(words, index + 1, name)
    at = script.rfind("vllm/entrypoints/")
    if at >= 0 and script.endswith(".py"):
        return module_entry(words, script[at:-3].replace("/", "."), index + 1)
    return None


def _subcommand(words: Sequence[str], index: int, name: str) -> tuple[str, int] | None:
    """Return the entry point of the program `name` with its sub-command at `index`."""
    if "".join(words[index : index + 1]) == "--omni":  # starts vllm-omni
        index += 1
    first, second = (*words[index : index + 2], "", "")[:2]
    if first in ENGINES:
        return f"{name} {first}", index + 1
    if f"{first} {second}" in ENGINES:
        return f"{name} {first} {second}", index + 2
    if UNKNOWN in first:
        return "", index + 1
    # A sweep has a whole serve command in an option; the table of wrappers finds that.
    return None if (first, second) == ("bench", "sweep") else NO_ENGINE
