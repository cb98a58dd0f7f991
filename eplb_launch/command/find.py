"""Find the vLLM server behind the programs that start it: `numactl`, `env`, `sh -c`, `docker run`.

Three ways, in this order: step over each program that the table in `wrappers` knows to start
another; look ahead for words that can only be a server; settle for any program that is given
vLLM's own options. On the way it is noted what each program does to the environment.
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
from eplb_launch.model import UNKNOWN, is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.command.context import Said
    from eplb_launch.files import Files
    from eplb_launch.model import Server

# Whose value is a command for sure, in whatever program; of others it may be a text.
_COMMAND_OPTIONS = frozenset(("--", "-c", "-e", "-x", "--cmd", "--command", "--exec", "--run"))
_OF_A_PROGRAM = 48  # of the room for a command: nobody has 25,000 programs in one
_LIKE_POSIX = frozenset("$`()*?[]{}~;&|<>\n")  # what fish and tcsh may not read as sh does


def find(
    command: Sequence[str],
    environ: Mapping[str, str],
    files: Files | None,
    directory: str | None,
    *,
    strings: bool = True,
    done: list[int] | None = None,
) -> tuple[Server | None, bool, Sequence[str]]:
    """As `entrypoints.look`, for a command whose first word is not the server."""
    words = list(command)
    context = Context(environ)
    context.strings = strings
    context.files = None if files is None else (files, directory)
    server = search(words, range(len(words)), context)
    if done is not None:
        done.append(context.room[1])
    unread = [*context.reading[0].unread] if context.reading else []
    if server is None and context.room[0] < 0:
        unread.append("a part of the command was too much to follow")
    return server, server is None and context.idle[0], unread


def search(words: Sequence[str], positions: Sequence[int], context: Context) -> Server | None:
    """Return the server that `words` start.

    `positions` says where each of them stands in the command, `context` what is known on arrival.
    """
    context.idle[0] = False
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
    # An option can stand first: `docker run IMAGE --enable-eplb` leaves the program to the image.
    start = first + (not words[first].startswith("-"))
    return context.server(words, positions, ("", start), "".join(words[first:start]))


class Trail:
    """A walk over programs that start each other."""

    def __init__(self, words: Sequence[str], positions: Sequence[int], context: Context) -> None:
        self.words = words
        self.positions = positions
        self.context = context
        self.server: Server | None = None
        self.first = 0  # the program at which the walk ended
        self.end = 0  # the first word that it has not looked at

    def follow(self, index: int) -> bool:
        """Walk on from the word at `index`; True if it is settled what `server` is."""
        self.end = index
        while self.end < len(self.words):
            self.first = self.end
            if self.first and not self.context.spend(_OF_A_PROGRAM):
                self.end = len(self.words)
                return False
            settled = self._look(self.first)
            if settled is not None:
                return settled
        return False

    def look_ahead(self, *, marked: bool) -> bool:
        """Pass the program at which the walk ended, up to where a server may start; or False."""
        for index in range(self.end, len(self.words)):
            if self._is_plausible(index, marked=marked):
                self._pass(self.words[self.first].rpartition("/")[2], self.first, index)
                return True
            self.context.idle[0] = self.context.idle[0] or _is_idle(self.words, index)
        return False

    def _is_plausible(self, index: int, *, marked: bool) -> bool:
        """Whether a server may start at `index`, behind a program that is not known."""
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
            # After an option, and with nothing behind, it is a value: `train.py --name vllm serve`.
            option = before.startswith("-") and before != "--"
            return marked or not option or max(len(words) - 1, self.context.gap) >= found[1]
        return name in WRAPPERS or name in SHELLS or is_python(name)

    def _look(self, index: int) -> bool | None:
        """Look at the program at `index`: settled, not to be settled, or None to walk on."""
        words = self.words
        name = words[index].rpartition("/")[2]
        self.end = index + 1
        found = None
        if index and _is_command(words[index]) and self._look_at_string(index):
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
        # Of `vllm bench sweep`, what its --serve-cmd starts is looked at next, if it has one.
        self.context.idle[0] = name in VLLM
        if name not in WRAPPERS:
            return self._look_at_program(index)
        return self._step(name, index, index + 1)

    def _look_at_shell(self, index: int, name: str) -> bool:
        """As _look, for a shell."""
        words = self.words
        at, is_file = shell_string(words, index)
        if not at:
            return False
        if is_file:
            return self._look_at_script(index, at, name)
        self._pass("sh", index, at + 1)
        self.context.sourced += _sourced(words[index:at], name, self.context)
        return self._run(words[at], at, at + 1, name)

    def _look_at_string(self, index: int) -> bool:
        """As _look, for a word that may be a whole command: `doas -- wrapper "vllm serve m"`."""
        self._run(self.words[index], index, index + 1, "sh")
        return self.server is not None and bool(self.server.entry)

    def _look_at_program(self, index: int) -> bool | None:
        """As _look, for a program that nobody knows: it may be a script of a shell."""
        scripts = self.context.scripts()
        words = scripts.interpreter(self.words[index], self.context) if scripts else ()
        if not words:
            return False
        self.words = [*self.words[:index], *words, *self.words[index + 1 :]]
        places = [self.positions[index]] * len(words)
        self.positions = [*self.positions[:index], *places, *self.positions[index + 1 :]]
        self.end = index
        return None

    def _look_at_script(self, index: int, at: int, shell: str) -> bool:
        """As _look, for a shell with a script, which is the word at `at`."""
        context = self.context
        self.first, self.end = at, at + 1
        scripts = context.scripts()
        text = scripts.text(self.words[at], context) if scripts else None
        if text is None:
            return False
        self.context = context.branch()
        self._pass(self.words[at].rpartition("/")[2], index, at + 1)
        self.context.sourced += _sourced(self.words[index:at], shell, self.context)
        self.context.level += 1
        self.context.script = self.words[at]
        from eplb_launch.command.shell.syntax import Place

        place = Place(self.positions[at], 0, len(text), exact=True)
        self.positions = [*self.positions[:at], place, *self.positions[at + 1 :]]
        self._run(text, at, at, shell)
        # Else a server may be among the words of the script.
        self.context = context
        return self.server is not None and bool(self.server.entry)

    def _look_at_python(self, index: int) -> bool | None:
        """As _look, for a Python interpreter."""
        words = self.words
        module, start = python_target(words, index)
        found = None
        if module:
            self.end = start
            found = module_entry(words, module, start)
            self.context.idle[0] = module in SWEEPS
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
        if row is None or step.settled:
            return row is not None
        own = tuple(self.words[index : step.own_end])
        name = path.removeprefix("-m ")
        self.context.step_over(name, own, self.positions[index], step.said, row)
        self.end = end = step.end
        words = self.words
        if step.program is not None:
            # The command starts in an option: `docker run --entrypoint vllm IMAGE serve`.
            self.context.enter(step.at)
            started = [step.program, *words[end:]]
            places = [self.positions[step.at], *self.positions[end:]]
            self.server = search(started, places, self.context)
            return True
        if step.string is not None:
            if "foreign" in row and not _LIKE_POSIX.isdisjoint(step.string):
                self.context.complete = False
            self._run(step.string, step.at, end, "sh")
            self._sweep(step.said, step.at)
            return True
        if end < len(words) and "appends" in row:
            if not self.context.spend(len(words)):  # one in another, and all words copied for each
                return True
            # What stands for each item, and after ":::" the items.
            stop = words.index(":::", end) if ":::" in words[end:] else len(words)
            behind = [word.replace("{}", UNKNOWN) for word in words[end:stop]]
            self.words, self.positions = [*words[:end], *behind], self.positions[:stop]
            words = self.words
        if end < len(words) and "joins" in row:
            return self._run(" ".join(words[end:]), end, len(words), "sh")
        if end < len(words) and "package" in row:
            name, _ = requirement(words[end])
            self.context.require(words[end])
            self.words = words = [*words[:end], name, *words[end + 1 :]]
        found = None
        if end < len(words) and step.module:
            found = module_entry(words, words[end], end + 1)
        elif end < len(words) and "module" in row:
            index = end
            found = script_entry(words, index)
        return None if found is None else self._found(found, index)

    def _sweep(self, said: Sequence[Said], at: int) -> None:
        """Note what files of parameters change of the server."""
        for kind, _, path in said:
            if kind == "params" and self.server is not None:
                from eplb_launch.command.sweep import swept

                scripts = self.context.scripts()
                text = scripts.text(path, self.context) if scripts else None
                self.server = swept(self.server, text, self.positions[at])

    def _found(self, found: tuple[str, int], index: int) -> bool:
        """Settle for an entry point whose program is at `index`."""
        self.context.idle[0] = found == NO_ENGINE
        if found[1]:
            self.server = self.context.server(self.words, self.positions, found, self.words[index])
        return True

    def _pass(self, name: str, index: int, end: int) -> None:
        """Note a program that leaves the environment as it is."""
        self.end = end
        self.context.step_over(name, tuple(self.words[index:end]), self.positions[index])

    def _run(self, text: str, at: int, rest: int, shell: str) -> bool:
        """Look into a command string, which stands at `at`; its `$0` and so on follow at `rest`."""
        from eplb_launch.command.shell.script import run

        context = self.context.branch()
        context.enter(at)
        if not context.strings:
            return True
        if context.depth > 1:
            context.spend(64 + 2 * len(text))  # where that is too much, `run` says so
        parameters = list(zip(self.words[rest:], self.positions[rest:], strict=True))
        self.server = run(text, self.positions[at], shell, parameters, context, search=search)
        return True

    def split(self, text: str, at: int) -> None:
        """Have the words of a text follow the word at `at`, which it comes from: `env -S`."""
        from eplb_launch.command.shell.lexer import split

        self.context.enter(at)
        inside = split(text)
        self.words = [*self.words[: at + 1], *inside, *self.words[at + 1 :]]
        place = [self.positions[at]] * len(inside)
        self.positions = [*self.positions[: at + 1], *place, *self.positions[at + 1 :]]


def _is_idle(words: Sequence[str], index: int) -> bool:
    """Whether vLLM without an engine may start at `index`, behind a program that is not known."""
    return words[index].rpartition("/")[2] in VLLM and "".join(words[index + 1 : index + 2]) in IDLE


def _is_command(word: str) -> bool:
    """Whether a word may be a whole command, for a program that has it executed."""
    return " " in word.strip() and any(hint in word for hint in HINTS)


def _is_mark(word: str) -> bool:
    """Whether a word is one of the options that only vLLM has."""
    return word.startswith("-") and _name(word) in MARKS


def _name(option: str) -> str:
    return option.partition("=")[0].partition(".")[0].replace("_", "-")


def _is_other(words: Sequence[str]) -> bool:
    """Whether a program that is not known is another one: a proxy with --data-parallel-size.

    It has an option that no vLLM has, and none of EPLB's.
    """
    names = [_name(word) for word in words if word.startswith("--") and UNKNOWN not in word]
    if any(name in OF_EPLB for name in names):
        return False
    from eplb_launch.vllm.options import of_any_release

    known = " " + " ".join(of_any_release())
    return any(f" {name}" not in known for name in names)


def _sourced(words: Sequence[str], shell: str, context: Context) -> tuple[str, ...]:
    """Return the files that a shell with such options reads before its command string."""
    short = [word for word in words[1:] if word.startswith("-") and not word.startswith("--")]
    if "--login" in words or any("l" in word for word in short):
        return ("/etc/profile", "~/.profile")
    file = context.environ.get("BASH_ENV") if shell == "bash" else None
    return (file,) if file and file != UNKNOWN else ()


def shell_string(words: Sequence[str], index: int) -> tuple[int, bool]:
    """Return where the script of the shell at `index` stands, and whether it is a file.

    0 if it is given none, and reads its input.
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
