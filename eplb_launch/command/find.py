"""Find the vLLM server behind the programs that start it: `numactl`, `env`, `sh -c`, `docker run`.

There are three ways, in this order. Step over each program that has a row in `wrappers`. Look ahead
for words that can only be a server. Take any program that is given vLLM's own options.
"""

from __future__ import annotations

from eplb_launch.command.context import DEPTH, Context, requirement
from eplb_launch.command.step import Step
from eplb_launch.command.wrappers import READERS, SHELLS, WRAPPERS
from eplb_launch.entrypoints import (
    HINTS,
    IDLE,
    MARKS,
    NO_ENGINE,
    NOT_VLLM,
    OF_EPLB,
    SWEEPS,
    VLLM,
    entry_at,
    module_entry,
    python_target,
    script_entry,
)
from eplb_launch.model import UNKNOWN, Wrapper, is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.command.context import Shared
    from eplb_launch.command.wrappers import Row
    from eplb_launch.entrypoints import Look
    from eplb_launch.model import Server

# In any program, the value of these options is a command. The value of another one may be a text.
_COMMAND_OPTIONS = frozenset(("--", "-c", "-e", "-x", "--cmd", "--command", "--exec", "--run"))
_PROGRAM = 48  # the work of a program: no real command has 25,000
_SHELL_SYNTAX = frozenset("$`()*?[]{}~;&|<>\n")  # fish and tcsh may read it differently from sh


def find(command: Sequence[str], environ: Mapping[str, str], shared: Shared) -> Look:
    """Do as `command.look`, for a command whose first word is not the server."""
    server = search(list(command), range(len(command)), Context(environ, shared))
    unread = [*shared.scripts.unread] if shared.scripts else []
    if server is None and shared.room < 0:
        unread.append("a part of the command was too much to follow")
    return server, server is None and shared.idle, unread


def search(words: Sequence[str], positions: Sequence[int], context: Context) -> Server | None:
    """Return the server that `words` start.

    `positions` says where each word stands in the command, `context` what is known before them.
    """
    context.shared.idle = False
    if context.depth > DEPTH:
        return None
    trail = Trail(words, positions, context.branch())
    if trail.follow(0):
        return trail.server
    first, words, positions, context = trail.first, trail.words, trail.positions, trail.context
    marked = any(map(_is_mark, words[first:]))
    trail.context = context.branch()
    while trail.look_ahead(marked=marked):
        if trail.follow(trail.end):
            return trail.server
    if trail.server is not None or not marked or _is_other(words[first:]):
        return trail.server
    for index in range(first, len(words)):
        if _is_mark(words[index]):
            break
        if words[index] == "--":  # `wrapper -- ./serve.sh --enable-eplb`
            first = index + 1
    # The first word can be an option: `docker run IMAGE --enable-eplb` starts the image's program.
    start = first + (not words[first].startswith("-"))
    return context.server(words, positions, ("", start), "".join(words[first:start]))


class Trail:
    """The way over programs that start each other, from left to right."""

    def __init__(self, words: Sequence[str], positions: Sequence[int], context: Context) -> None:
        self.words = words
        self.positions = positions
        self.context = context
        self.server: Server | None = None
        self.first = 0  # the last program that was looked at
        self.end = 0  # the next word to look at

    def follow(self, index: int) -> bool:
        """Go on from the word at `index`, and return whether `server` is decided."""
        self.end = index
        while self.end < len(self.words):
            self.first = self.end
            if self.first and not self.context.spend(_PROGRAM):
                self.end = len(self.words)
                return False
            decided = self._look(self.first)
            if decided is not None:
                return decided
        return False

    def look_ahead(self, *, marked: bool) -> bool:
        """Pass the last program, up to the next word that may start a server, if there is one."""
        shared = self.context.shared
        for index in range(self.end, len(self.words)):
            if self._is_plausible(index, marked=marked):
                self._pass(self.words[self.first].rpartition("/")[2], self.first, index)
                return True
            shared.idle = shared.idle or _is_idle(self.words, index)
        return False

    def _is_plausible(self, index: int, *, marked: bool) -> bool:
        """Whether a server may start at `index`, after a program that is not known."""
        words = self.words
        name = words[index].rpartition("/")[2]
        before = words[index - 1]
        if _is_command(words[index]):
            text = before.startswith("-") and before not in _COMMAND_OPTIONS
            return not text or any(mark in words[index] for mark in MARKS)
        if name in VLLM:
            found = entry_at(words, index)
            if found is None or found == NO_ENGINE:
                return False
            # After an option and with no more words it is a value: `train.py --name vllm serve`.
            option = before.startswith("-") and before != "--"
            return marked or not option or max(len(words) - 1, self.context.gap) >= found[1]
        return name in WRAPPERS or name in SHELLS or is_python(name)

    def _look(self, index: int) -> bool | None:
        """Look at the program at `index`.

        Return True if `server` is decided, False if the program is not known to start another one,
        and None to go on at `end`.
        """
        words = self.words
        name = words[index].rpartition("/")[2]
        self.end = index + 1
        found = None
        if index and _is_command(words[index]):  # `doas -- wrapper "vllm serve m"`
            self._run(words[index], index, index + 1, "sh")
            if self._has_entry():
                return True
        if name in READERS:
            found = NOT_VLLM
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
        # This is idle: `vllm bench sweep`, unless it has a --serve-cmd.
        self.context.shared.idle = name in VLLM
        if name not in WRAPPERS:
            return self._look_at_program(index)
        return self._step(name, index, index + 1)

    def _look_at_shell(self, index: int, name: str) -> bool:
        at, is_file = shell_string(self.words, index)
        if not at:
            return False
        if is_file:
            return self._look_at_script(index, at, name)
        self._pass("sh", index, at + 1)
        self.context.reads_first += _sourced(self.words[index:at], name, self.context)
        return self._run(self.words[at], at, at + 1, name)

    def _look_at_program(self, index: int) -> bool | None:
        """Look at a program without a row: it may be a shell script."""
        context, scripts = self.context, self.context.scripts()
        if scripts is None:
            return False
        path = context.environ.get("PATH")
        words = scripts.started(self.words[index], context.directory, path)
        if not words:
            return False
        self._insert(words, index, index + 1)
        self.end = index
        return None

    def _insert(self, words: Sequence[str], at: int, end: int) -> None:
        """Put words in the place of those from `at` to `end`."""
        place = self.positions[min(at, end - 1)]
        self.words = [*self.words[:at], *words, *self.words[end:]]
        self.positions = [*self.positions[:at], *[place] * len(words), *self.positions[end:]]

    def _look_at_script(self, index: int, at: int, shell: str) -> bool:
        """Look at a shell whose script is the file at `at`."""
        context = self.context
        self.first, self.end = at, at + 1
        scripts = context.scripts()
        text = scripts.text(self.words[at], context) if scripts else None
        if text is None:
            return False
        self.context = context.branch()
        self._pass(self.words[at].rpartition("/")[2], index, at + 1)
        self.context.reads_first += _sourced(self.words[index:at], shell, self.context)
        self.context.level += 1
        self.context.script = self.words[at]
        from eplb_launch.command.shell.syntax import Place

        place = Place(self.positions[at], 0, len(text), exact=True)
        self.positions = [*self.positions[:at], place, *self.positions[at + 1 :]]
        self._run(text, at, at, shell)
        # If there is none in the script, a server may be among its arguments.
        self.context = context
        return self._has_entry()

    def _has_entry(self) -> bool:
        return self.server is not None and bool(self.server.entry)

    def _look_at_python(self, index: int) -> bool | None:
        words = self.words
        module, start = python_target(words, index)
        found = None
        if module:
            self.end = start
            found = module_entry(words, module, start)
            self.context.shared.idle = module in SWEEPS
            if found is None and f"-m {module}" in WRAPPERS:
                return self._step(f"-m {module}", index, start)
        elif UNKNOWN not in words[index]:
            self.end = max(self.end, min(start, len(words)))
            found = script_entry(words, start) if start < len(words) else None
        return False if found is None else self._found(found, index)

    def _step(self, path: str, index: int, start: int) -> bool | None:
        """Step over the program at `index`, whose own words go on at `start`."""
        step = Step(self, start)
        row = step.over(path)
        if row is None or step.ends:
            return row is not None
        own = tuple(self.words[index : step.own_end])
        wrapper = Wrapper(path.removeprefix("-m "), own, self.positions[index])
        self.context.step_over(wrapper, step.options, row)
        self.end = end = step.end
        words = self.words
        if step.program is not None or step.string is not None:
            return self._start_option(step, row)
        if "appends" in row:
            if not self.context.spend(len(words)):  # every such wrapper copies all words
                return True
            # `{}` stands for an item. The items may follow after ":::".
            stop = words.index(":::", end) if ":::" in words[end:] else len(words)
            command = [word.replace("{}", UNKNOWN) for word in words[end:stop]]
            self.words = words = [*words[:end], *command]
            self.positions = self.positions[:stop]
        if end == len(words):
            return None
        if "script" in row and words[end].rpartition("/")[2] not in SHELLS:
            self._insert(("bash", words[end]), end, end + 1)
            words = self.words
        if "joins" in row:
            return self._run(" ".join(words[end:]), end, len(words), "sh")
        if "package" in row:
            name, _ = requirement(words[end])
            self.context.require(words[end])
            self.words = words = [*words[:end], name, *words[end + 1 :]]
        found = None
        if step.module:
            found = module_entry(words, words[end], end + 1)
        elif "module" in row:
            index = end
            found = script_entry(words, index)
        return None if found is None else self._found(found, index)

    def _start_option(self, step: Step, row: Row) -> bool:
        """Look at a command that starts in an option."""
        if step.program is not None:  # `docker run --entrypoint vllm IMAGE serve`
            self.context.enter(step.at)
            words = [step.program, *self.words[step.end :]]
            positions = [self.positions[step.at], *self.positions[step.end :]]
            self.server = search(words, positions, self.context)
            return True
        text = step.string or ""
        if "foreign" in row and not _SHELL_SYNTAX.isdisjoint(text):
            self.context.args_known = False
        self._run(text, step.at, step.end, "sh")
        for column, path in step.options:  # the files of parameters of `vllm bench sweep`
            if column == "params" and self.server is not None:
                from eplb_launch.command.sweep import swept

                scripts = self.context.scripts()
                parameters = scripts.text(path, self.context) if scripts else None
                self.server = swept(self.server, parameters, self.positions[step.at])
        return True

    def _found(self, found: tuple[str, int], index: int) -> bool:
        """Decide for an entry point, whose program is at `index`."""
        self.context.shared.idle = found == NO_ENGINE
        if found[1]:
            self.server = self.context.server(self.words, self.positions, found, self.words[index])
        return True

    def _pass(self, name: str, index: int, end: int) -> None:
        """Pass a program that leaves the environment as it is."""
        self.end = end
        wrapper = Wrapper(name, tuple(self.words[index:end]), self.positions[index])
        self.context.wrappers.append(wrapper)

    def _run(self, text: str, at: int, rest: int, shell: str) -> bool:
        """Follow a shell string, the word at `at`. Its `$0`, `$1` and so on start at `rest`."""
        from eplb_launch.command.shell.script import run

        context = self.context.branch()
        context.enter(at)
        if not context.shared.strings:
            return True
        if context.depth > 1:
            context.spend(64 + 2 * len(text))  # `run` looks whether that is too much
        parameters = list(zip(self.words[rest:], self.positions[rest:], strict=True))
        self.server = run(text, self.positions[at], shell, parameters, context, search=search)
        return True

    def split(self, text: str, at: int) -> None:
        """Insert the words of a text after the word at `at`, which has the text: `env -S`."""
        from eplb_launch.command.shell.lexer import split

        self.context.enter(at)
        self._insert(split(text), at + 1, at + 1)


def _is_idle(words: Sequence[str], index: int) -> bool:
    """Whether the words at `index` are vLLM that starts no engine."""
    return words[index].rpartition("/")[2] in VLLM and "".join(words[index + 1 : index + 2]) in IDLE


def _is_command(word: str) -> bool:
    """Whether a word may be a whole command."""
    return " " in word.strip() and any(hint in word for hint in HINTS)


def _is_mark(word: str) -> bool:
    """Whether a word is an option that only vLLM has."""
    return word.startswith("-") and _name(word) in MARKS


def _name(option: str) -> str:
    return option.partition("=")[0].partition(".")[0].replace("_", "-")


def _is_other(words: Sequence[str]) -> bool:
    """Whether a program with an option of vLLM is not vLLM: a proxy with --data-parallel-size.

    It has an option that vLLM does not have, and none of EPLB's.
    """
    names = [_name(word) for word in words if word.startswith("--") and UNKNOWN not in word]
    if any(name in OF_EPLB for name in names):
        return False
    from eplb_launch.vllm.options import of_any_release

    known = " " + " ".join(of_any_release())
    return any(f" {name}" not in known for name in names)


def _sourced(words: Sequence[str], shell: str, context: Context) -> tuple[str, ...]:
    """Return the files that a shell reads first. Its options are in `words`."""
    short = [word for word in words[1:] if word.startswith("-") and not word.startswith("--")]
    if "--login" in words or any("l" in word for word in short):
        return ("/etc/profile", "~/.profile")
    file = context.environ.get("BASH_ENV") if shell == "bash" else None
    return (file,) if file and file != UNKNOWN else ()


def shell_string(words: Sequence[str], index: int) -> tuple[int, bool]:
    """Return the index of the script of the shell at `index`, and whether that is a file.

    The index is 0 if the shell has no script and reads its input.
    """
    i = index + 1
    string = stdin = False
    while i < len(words):
        word = words[i]
        if len(word) < 2 or word[0] not in "-+":
            break
        i += 1
        if word == "--":
            break
        if word.startswith("--"):
            i += word in ("--rcfile", "--init-file")
        else:
            string = string or (word[0] == "-" and "c" in word)
            stdin = stdin or (word[0] == "-" and "s" in word)
            i += word.count("o") + word.count("O")  # the name of a shell option: -euo pipefail
    return (i if i < len(words) and (string or not stdin) else 0), not string
