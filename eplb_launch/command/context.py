"""What is known on the way to the server: the environment so far, the programs passed."""

from __future__ import annotations

from eplb_launch.entrypoints import VLLM
from eplb_launch.model import UNKNOWN, Server, Wrapper
from eplb_launch.vllm.releases import VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from eplb_launch.command.scripts import Scripts
    from eplb_launch.command.wrappers import Row
    from eplb_launch.files import Files

    Said: TypeAlias = tuple[str, str, str]  # the table's column for an option, it, its value

DEPTH = 16  # shell strings inside shell strings
# How much work there may be beyond reading the command once, about in characters: `A=$A$A` doubles
# with every turn.
ROOM = 1_200_000
PARSED = 16  # what it takes to read a character of a script
FOLLOWED = 48  # what it may take to read and follow one: a library is all functions
_LOCAL = frozenset(("", "localhost", "127.0.0.1"))


class Environ:
    """An environment, as changes to the one that it started from."""

    __slots__ = ("base", "changes", "handed", "looked_at", "opaque")

    def __init__(
        self,
        base: Mapping[str, str] | Environ,
        *,
        opaque: bool = False,
        looked_at: set[str] | None = None,
    ) -> None:
        self.base = base
        self.changes: dict[str, str | None] = {}  # None: taken out
        self.handed: dict[str, Environ] = {}  # changes that are what another environment has
        self.opaque = opaque  # what is set besides cannot be seen
        self.looked_at = looked_at  # names asked for: of the launcher's, or of a shell's commands

    def get(self, name: str, *, look: bool = True) -> str | None:
        """Return the value of `name`, which may be UNKNOWN; None if it is not set.

        Without `look`, nothing is going to depend on what it is.
        """
        at: Mapping[str, str] | Environ = self
        while isinstance(at, Environ):
            if name in at.handed:
                at = at.handed[name]
                continue
            if look and at.looked_at is not None:
                at.looked_at.add(name)
            if name in at.changes:
                return at.changes[name]
            if at.opaque:
                return UNKNOWN
            at = at.base
        return at.get(name)

    def put(self, assignment: str, before: Environ) -> None:
        """Set NAME=VALUE, or the NAME that there is in `before`."""
        name, equals, value = assignment.partition("=")
        if equals:
            self.changes[name] = value
            self.handed.pop(name, None)
        else:
            self.changes[name] = before.get(name, look=False)
            self.handed[name] = before

    def unset(self, name: str) -> None:
        self.changes[name] = None
        self.handed.pop(name, None)

    def hands_on(self, name: str) -> bool:
        """Whether `name` is still what the launcher sets it to."""
        at: Mapping[str, str] | Environ = self
        reached = False
        while isinstance(at, Environ) and (name not in at.changes or name in at.handed):
            reached = at.looked_at is not None
            at = at.handed[name] if name in at.changes else at.base
        return reached and not isinstance(at, Environ)

    def whole(self) -> Mapping[str, str]:
        """Return all that is known to be set; values may hold UNKNOWN."""
        layers = []
        at: Mapping[str, str] | Environ = self
        while isinstance(at, Environ):
            layers.append(at.changes)
            at = at.base
        if not any(layers):
            return at
        values: dict[str, str | None] = dict(at)
        for changes in reversed(layers):
            values.update(changes)
        return {name: value for name, value in values.items() if value is not None}


class Context:
    """What the programs on the way have changed. A context may go on from another one."""

    def __init__(self, environ: Mapping[str, str] | Environ, above: Context | None = None) -> None:
        """`above`: go on from all that is known there."""
        self.looked_at: set[str] = above.looked_at if above else set()
        self.environ = Environ(environ, looked_at=None if above else self.looked_at)
        self.above = above
        self.wrappers: list[Wrapper] = []  # those after `above`
        self.directory: str | None = above.directory if above else None
        self.elsewhere: str = above.elsewhere if above else ""
        self.sourced: tuple[str, ...] = above.sourced if above else ()
        self.complete: bool = above.complete if above else True
        self.depth: int = above.depth if above else 0
        # How much work is left, and how much was done.
        self.room: list[int] = above.room if above else [ROOM, 0]
        self.strings: bool = above.strings if above else True  # those for a shell are looked into
        # Whether what was looked at last is vLLM that starts no engine.
        self.idle: list[bool] = above.idle if above else [False]
        self.gap: int = above.gap if above else -1  # the last word that more may stand before
        # Through which files scripts are read, and where the command is started; then those read.
        self.files: tuple[Files, str | None] | None = above.files if above else None
        self.reading: list[Scripts] = above.reading if above else []
        self.level: int = above.level if above else 0  # scripts, one in another
        self.script: str = above.script if above else ""  # the innermost one
        self.release: str = above.release if above else ""  # of vLLM, that the command asks for

    def branch(self) -> Context:
        """Return a context that goes on from here and leaves this one as it is."""
        return Context(self.environ, self)

    def spend(self, work: int) -> bool:
        """Take so much of the room; False if there is none left."""
        self.room[0] -= work
        self.room[1] += work
        return self.room[0] >= 0

    def make_room(self, length: int) -> None:
        """Add what it takes to read a file of this length, and in `check` to follow it."""
        waits = self.files is not None and self.files[0].all_there  # who starts a server does
        self.room[0] += (PARSED if waits else FOLLOWED) * length

    def enter(self, at: int) -> None:
        """Go on inside the word at `at`; what may stand before a later word adds arguments."""
        self.depth += 1
        self.complete = self.complete and self.gap <= at
        self.gap = -1

    def scripts(self) -> Scripts | None:
        """Return the scripts of this host; None where none is to be read."""
        if self.files is None or self.elsewhere:
            return None
        if not self.reading:
            from eplb_launch.command.scripts import Scripts

            self.reading.append(Scripts(*self.files))
        return self.reading[0]

    def passed(self) -> tuple[Wrapper, ...]:
        """Return all the programs on the way, the outermost first."""
        contexts = []
        at: Context | None = self
        while at is not None:
            contexts.append(at)
            at = at.above
        found: list[Wrapper] = []
        for context in reversed(contexts):
            # What a shell does is not in the words of a wrapper: the last one started the shell.
            if found and not context.wrappers and VARIABLE in context.environ.changes:
                sets = context.environ.changes[VARIABLE] is not None
                found[-1] = found[-1].replace(drops=not sets, sets=sets)
            found += context.wrappers
        return tuple(found)

    def step_over(
        self,
        name: str,
        words: tuple[str, ...],
        position: int,
        said: Sequence[Said] = (),
        row: Row | None = None,
    ) -> None:
        """Pass a program, and note what its row and options say; without a row: nothing."""
        drops = sets = False
        if row is not None:
            drops, sets = _effect(words, said, row, self.environ)
            self._apply(said, row)
            if "elsewhere" in row:
                self.elsewhere = self.elsewhere or name
        for kind, _, value in said:
            if kind == "requires":
                self.require(value)
        says = row or {}
        facts = "user" in says, says.get("python", ""), says.get("option", "")
        self.wrappers.append(Wrapper(name, words, position, drops, sets, *facts))

    def _apply(self, said: Sequence[Said], row: Row) -> None:
        """Change the environment and the directory as a program's options say."""
        before = self.environ
        kinds = {kind for kind, _, _ in said}
        if not kinds.isdisjoint(("sets", "passes", "exports")):
            self.environ = Environ(before)  # which may take names from the one before
        if "own" in row and "keeps" not in kinds:
            self.environ = Environ({}, opaque=True)
        if "clears" in kinds:
            self.environ = Environ({}, opaque="elsewhere" in row)
        for kind, _, value in said:
            if kind in ("exports", "passes"):
                names = value.split(",")
                if kind == "exports" and "ALL" not in names:
                    self.environ = Environ({}, opaque=True)
                for name in names:
                    if name not in ("ALL", "NONE", "NIL"):
                        self.environ.put(name, before)
            elif kind in ("sets", "assigns"):
                self.environ.put(value, before)
            elif kind == "unsets":
                self.environ.unset(value)
            elif kind == "chdir":
                self.change_directory(value)
        if "appends" in row:
            self.complete = False

    def change_directory(self, directory: str) -> None:
        """Note that the command runs in `directory`."""
        if self.directory is None or directory.startswith("/"):
            self.directory = directory
        else:
            self.directory = f"{self.directory.rstrip('/')}/{directory}"

    def require(self, text: str) -> None:
        """Note a package that the command is to have."""
        name, version = requirement(text)
        if name in VLLM[:1] and version:
            self.release = version

    def server(
        self, words: Sequence[str], positions: Sequence[int], found: tuple[str, int], program: str
    ) -> Server:
        """Return the server that was found at the end of the way."""
        entry, start = found
        at = max(start - 1, 0)
        if program.rpartition("/")[2] in VLLM:
            while at and words[at] != program:
                at -= 1
        return Server(
            entry,
            tuple(words[start:]),
            tuple(positions[start:]),
            self.environ.whole(),
            program,
            self.passed(),
            self.directory,
            self.complete and self.gap < start and not _unread(words, found),
            self.elsewhere,
            self.sourced,
            hands_on=None if VARIABLE in self.looked_at else self.environ.hands_on(VARIABLE),
            script=self.script,
            place=positions[at] if positions else 0,
            release=self.release,
        )


def requirement(text: str) -> tuple[str, str]:
    """Return the name of a package, and its version where that is said: `vllm@0.16.0`.

    PEP 508; docs.astral.sh/uv/guides/tools: NAME@VERSION.
    """
    at = next((i for i, char in enumerate(text) if char in "@=<>!~[; "), len(text))
    name, rest = text[:at], text[at:]
    if rest.startswith("["):
        rest = rest.partition("]")[2]
    version = rest.strip().removeprefix("==").removeprefix("@").strip()
    known = rest.lstrip()[:1] in ("@", "=") and version[:1].isdecimal() and "," not in version
    return name, version if known and not version.endswith("*") else ""


def _unread(words: Sequence[str], found: tuple[str, int]) -> bool:
    """Whether the sub-command cannot be known, so that any argument may stand in its word."""
    entry, start = found
    return (
        not entry
        and start > 1
        and UNKNOWN in words[start - 1]
        and words[start - 2].rpartition("/")[2] in VLLM
    )


def _effect(
    own: Sequence[str], said: Sequence[Said], row: Row, environ: Environ
) -> tuple[bool, bool]:
    """Whether a program takes NCCL_MAX_CTAS out on the way, and whether it sets it instead.

    `own` are its words, `environ` is what it gets.
    """
    kinds = {kind for kind, _, _ in said}
    names = [
        (name, sets)
        for kind, _, value in said
        if kind in ("sets", "assigns", "passes", "exports", "keeps")
        for name, sets, _ in (item.partition("=") for item in value.replace(" ", ",").split(","))
    ]
    named = [
        sets
        for name, sets in names
        if name == VARIABLE or (name[-1:] == "*" and VARIABLE.startswith(name[:-1]))
    ]
    drops = (
        "clears" in kinds
        or ("own" in row and "keeps" not in kinds)
        or ("exports" in kinds and ("ALL", "") not in names)
        or ("unsets", VARIABLE) in [(kind, value) for kind, _, value in said]
        or _resets(said, row, environ)
    )
    kept = (
        bool(named)
        or ("keeps", "") in [(kind, value) for kind, _, value in said]
        or any(text in word for text in row.get("unless", "").split() for word in own)
        or any(
            environ.get(name + VARIABLE) not in (None, UNKNOWN)
            for name in row.get("own_names", "").split()
        )
    )
    return drops and not kept, any(named)


def _resets(said: Sequence[Said], row: Row, environ: Environ) -> bool:
    """Whether a program leaves most variables out, though that may be set up otherwise."""
    if "spreads" in row:  # to other hosts
        hosts = ",".join(value for kind, _, value in said if kind == "hosts").split(",")
        counts = [environ.get(name) or "" for name in row["nodes"].split()]
        return (
            not _LOCAL.issuperset(host.partition(":")[0] for host in hosts)
            or any(kind == "spreads" for kind, _, _ in said)
            or next((count for count in counts if count), "1") not in ("1", UNKNOWN)
        )
    if "default" in row and not any(kind == "exports" for kind, _, _ in said):
        default = environ.get(row["default"]) or "ALL"
        return default.partition(",")[0] not in ("ALL", UNKNOWN)
    return "resets" in row
