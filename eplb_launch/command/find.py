"""Find the vLLM server behind the programs that start it: `numactl`, `env`, `sh -c`, `docker run`.

Three ways, in this order: step over each program that is known to start another; look ahead for
words that can only be a server; settle for any program that is given vLLM's own options.
"""

from __future__ import annotations

from eplb_launch.command.context import Way
from eplb_launch.command.entrypoints import (
    IDLE,
    NOTHING,
    OTHER,
    UNKNOWN,
    VLLM,
    Prefix,
    entry_at,
    is_python,
    module_entry,
    python_target,
    script_entry,
)
from eplb_launch.command.skip import shell_string, skip
from eplb_launch.command.wrappers import MODULE_PREFIXES, PREFIXES, READERS, SHELLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.command.entrypoints import Server
    from eplb_launch.command.skip import Step
    from eplb_launch.command.wrappers import Row

DEPTH = 16  # shell strings inside shell strings
# Options that no other program is likely to have. vllm/engine/arg_utils.py of 0.12 to 0.33.
MARKS = ("--enable-eplb", "--eplb-config", "--all2all-backend", "--data-parallel-size", "-dp")


def find(command: Sequence[str], environ: Mapping[str, str]) -> tuple[Server | None, bool]:
    """As `command.look`, for a command whose first word is not the server."""
    words = list(command)
    way = Way(environ)
    server = search(words, range(len(words)), way)
    return server, server is None and way.idle[0]


def search(words: Sequence[str], positions: Sequence[int], way: Way) -> Server | None:
    """Return the server that `words` start.

    `positions` says where each of them stands in the command, `way` what is known on arrival.
    """
    way.idle[0] = False
    if way.depth > DEPTH:
        return None
    trail = _Trail(words, positions, way)
    if trail.follow(0):
        return trail.server
    first = trail.first
    marked = any(map(_is_mark, words[first:]))
    i = trail.end
    while i < len(words):
        if _is_plausible(words, i, marked=marked):
            before = way.passed()
            ahead = _Trail(words, positions, way.branch())
            if ahead.follow(i):
                if ahead.server is None:
                    return None
                name = words[first].rpartition("/")[2]
                passed = Prefix(name, tuple(words[first:i]), positions[first])
                after = ahead.server.prefixes[len(before) :]
                return ahead.server.replace(prefixes=(*before, passed, *after))
            i = ahead.end
        else:
            way.idle[0] = way.idle[0] or _is_idle(words, i)
            i += 1
    if not marked:
        return None
    # An option can stand first: `docker run IMAGE --enable-eplb` leaves the program to the image.
    start = first + (not words[first].startswith("-"))
    return way.server(words, positions, ("", start), "".join(words[first:start]))


def _is_mark(word: str) -> bool:
    """Whether a word is one of the options that only vLLM has."""
    if not word.startswith("-"):
        return False
    return word.partition("=")[0].partition(".")[0].replace("_", "-") in MARKS


def _sourced(words: Sequence[str], shell: str, way: Way) -> tuple[str, ...]:
    """Return the files that a shell with such options reads before its command string."""
    short = [word for word in words[1:] if word.startswith("-") and not word.startswith("--")]
    if "--login" in words or any("l" in word for word in short):
        return ("/etc/profile", "~/.profile")
    file = way.environ.get("BASH_ENV") if shell == "bash" else None
    return (file,) if file and file != UNKNOWN else ()


def _is_idle(words: Sequence[str], index: int) -> bool:
    """Whether vLLM without an engine may start at `index`, behind a program that is not known."""
    return words[index].rpartition("/")[2] in VLLM and "".join(words[index + 1 : index + 2]) in IDLE


def _is_plausible(words: Sequence[str], index: int, *, marked: bool) -> bool:
    """Whether a server may start at `index`, behind a program that is not known."""
    name = words[index].rpartition("/")[2]
    if name in VLLM:
        found = entry_at(words, index)
        if found is None or found == NOTHING:
            return False
        # After an option, and with nothing behind, it is a value: `train.py --name vllm serve`.
        option = words[index - 1].startswith("-") and words[index - 1] != "--"
        return marked or not option or found[1] < len(words)
    return name in PREFIXES or name in SHELLS or is_python(name)


class _Trail:
    """A walk over programs that start each other."""

    def __init__(self, words: Sequence[str], positions: Sequence[int], way: Way) -> None:
        """Begin at the end of `way`."""
        self.words = words
        self.positions = positions
        self.way = way
        self.server: Server | None = None
        self.first = 0  # the program at which the walk ended
        self.end = 0  # the first word that it has not looked at

    def follow(self, index: int) -> bool:
        """Walk on from the word at `index`; True if it is settled what `server` is."""
        self.end = index
        while self.end < len(self.words):
            self.first = self.end
            settled = self._look(self.first)
            if settled is not None:
                return settled
        return False

    def _look(self, index: int) -> bool | None:
        """Look at the program at `index`: settled, not to be settled, or None to walk on."""
        words = self.words
        name = words[index].rpartition("/")[2]
        self.end = index + 1
        found = None
        if name in READERS:
            found = OTHER
        elif UNKNOWN in name and words[self.end : self.end + 1] == ["serve"]:
            found = "vllm serve", self.end + 1
        elif UNKNOWN in name or is_python(name):
            return self._look_at_python(index)
        elif name in VLLM:
            found = entry_at(words, index)
        elif name in SHELLS:
            return self._look_at_shell(index, name)
        if found is not None:
            return self._found(found, index)
        row = PREFIXES.get(name)
        # Of `vllm bench sweep`, what its --serve-cmd starts is looked at next, if it has one.
        self.way.idle[0] = name in VLLM
        return self._step(row, name, index, index + 1) if row is not None else False

    def _look_at_shell(self, index: int, name: str) -> bool:
        """As _look, for a shell."""
        words = self.words
        at = shell_string(words, index)
        if not at:
            return False
        self._pass("sh", index, at + 1)
        self.way.sourced += _sourced(words[index:at], name, self.way)
        return self._run(words[at], at, at + 1, name)

    def _look_at_python(self, index: int) -> bool | None:
        """As _look, for a Python interpreter."""
        words = self.words
        module, start = python_target(words, index)
        found = None
        if module:
            self.end = start
            found = module_entry(words, module, start)
            if found is None and module in MODULE_PREFIXES:
                return self._step(MODULE_PREFIXES[module], module, index, start)
        elif UNKNOWN not in words[index]:
            self.end = max(self.end, min(start, len(words)))
            found = script_entry(words, start) if start < len(words) else None
        return False if found is None else self._found(found, index)

    def _step(self, row: Row, name: str, index: int, start: int) -> bool | None:
        """Step over the program at `index`, whose own words go on at `start`."""
        step = skip(self.words, start, row, self.way)
        if step is None or step.settled:
            return step is not None
        self._pass(name, index, step.end)
        if "elsewhere" in step.row:
            self.way.elsewhere = self.way.elsewhere or name
        return self._go_on(step, index)

    def _go_on(self, step: Step, index: int) -> bool | None:
        """Go on after a step over the program at `index`."""
        words = self.words
        if step.split is not None or step.program is not None:
            return self._replace(step)
        if step.string is not None:
            return self._run(step.string, step.at, step.end, "sh")
        if step.end < len(words) and "joins" in step.row:
            return self._run(" ".join(words[step.end :]), step.end, len(words), "sh")
        found = None
        if step.end < len(words) and step.module:
            found = module_entry(words, words[step.end], step.end + 1)
        elif step.end < len(words) and "module" in step.row:
            index = step.end
            found = script_entry(words, index)
        return None if found is None else self._found(found, index)

    def _found(self, found: tuple[str, int], index: int) -> bool:
        """Settle for an entry point whose program is at `index`."""
        self.way.idle[0] = found == NOTHING
        if found[1]:
            self.server = self.way.server(self.words, self.positions, found, self.words[index])
        return True

    def _pass(self, name: str, index: int, end: int) -> None:
        """Note a program that is passed."""
        self.end = end
        passed = Prefix(name, tuple(self.words[index:end]), self.positions[index])
        self.way.prefixes.append(passed)

    def _run(self, text: str, at: int, rest: int, shell: str) -> bool:
        """Look into a command string, which stands at `at`; its `$0` and so on follow at `rest`."""
        from eplb_launch.command.shell.script import run

        way = self.way.branch()
        way.depth += 1
        if way.depth > 1 and not way.spend(64 + 2 * len(text)):
            return True
        way.complete = way.complete and way.gap <= at
        way.gap = -1
        parameters = list(zip(self.words[rest:], self.positions[rest:], strict=True))
        self.server = run(text, self.positions[at], shell, parameters, way)
        return True

    def _replace(self, step: Step) -> bool:
        """Go on with words of which some were inside another word: `env -S`, `--entrypoint`."""
        way = self.way
        way.depth += 1
        way.complete = way.complete and way.gap <= step.at
        way.gap = -1
        passed = len(way.passed())
        if step.program is not None:
            new = [step.program]
        else:
            from eplb_launch.command.shell.lexer import split

            # The string goes on with options and assignments of env itself.
            new = ["env", *split(step.split or "")]
        words = [*new, *self.words[step.end :]]
        positions = [self.positions[step.at]] * len(new) + list(self.positions[step.end :])
        self.server = search(words, positions, way)
        if self.server is not None and step.program is None:
            prefixes = self.server.prefixes
            self.server = self.server.replace(
                prefixes=(*prefixes[:passed], *prefixes[passed + 1 :])
            )
        return True
