"""What is known on the way to the server: the environment so far, and the wrappers passed."""

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

    Option: TypeAlias = tuple[str, str]  # the column of an option in the table, and its value

DEPTH = 16  # shell strings inside shell strings
# The work for a command, besides reading it once, in characters: `A=$A$A` doubles in each round.
ROOM = 1_200_000
PARSED = 16  # the work of reading a character of a script
LIBRARY = 48  # the work of reading and following one, of a library
_LOCAL = frozenset(("", "localhost", "127.0.0.1"))
# The hosts of a cluster share a file system: they start the script that is here.
_SAME_FILES = ("srun", "sbatch", "salloc", "mpirun", "mpiexec", "orterun")


class Environ:
    """An environment: the changes to another environment."""

    __slots__ = ("base", "changes", "looked_at", "opaque")

    def __init__(
        self,
        base: Mapping[str, str] | Environ,
        *,
        opaque: bool = False,
        looked_at: set[str] | None = None,
    ) -> None:
        self.base = base
        # By name: the value, None if it is unset, or the environment that the value is taken from.
        self.changes: dict[str, str | Environ | None] = {}
        self.opaque = opaque  # further variables may be set, and cannot be seen
        self.looked_at = looked_at  # the names that a wrapper or a shell has asked for

    def get(self, name: str, *, look: bool = True) -> str | None:
        """Return the value of `name`, which may be UNKNOWN, or None if it is not set.

        Without `look`, the name does not count as asked for.
        """
        at: Mapping[str, str] | Environ = self
        while isinstance(at, Environ):
            value = at.changes.get(name)
            if isinstance(value, Environ):
                at = value
                continue
            if look and at.looked_at is not None:
                at.looked_at.add(name)
            if name in at.changes:
                return value
            if at.opaque:
                return UNKNOWN
            at = at.base
        return at.get(name)

    def put(self, assignment: str, before: Environ) -> None:
        """Set NAME=VALUE, or take the NAME from the environment `before`."""
        name, equals, value = assignment.partition("=")
        self.changes[name] = value if equals else before

    def hands_on(self, name: str, start: Environ) -> bool:
        """Whether `name` has the value that it has in the environment `start`."""
        at: Mapping[str, str] | Environ = self
        while isinstance(at, Environ) and at is not start:
            value = at.changes.get(name)
            if name in at.changes and not isinstance(value, Environ):
                return False
            at = value if isinstance(value, Environ) else at.base
        return at is start

    def whole(self) -> Mapping[str, str]:
        """Return all variables that are known to be set. A value may hold UNKNOWN."""
        layers = []
        at: Mapping[str, str] | Environ = self
        while isinstance(at, Environ):
            layers.append(at.changes)
            at = at.base
        if not any(layers):
            return at
        found: dict[str, str | Environ | None] = dict(at)
        for changes in reversed(layers):
            found.update(changes)
        values = (
            (name, value.get(name, look=False) if isinstance(value, Environ) else value)
            for name, value in found.items()
        )
        return {name: value for name, value in values if value is not None}


class Shared:
    """What all contexts of one command share."""

    def __init__(self, files: Files | None, directory: str | None, *, strings: bool) -> None:
        """Scripts are read through `files`, if there are any. The command runs in `directory`."""
        self.files = files
        self.directory = directory
        self.strings = strings  # whether shell strings are followed
        self.room = ROOM  # the work that is left
        self.work = 0  # the work that was done
        self.idle = False  # the last program looked at is vLLM that starts no engine
        self.looked_at: set[str] = set()  # names that something asks for as the launcher sets them
        self.scripts: Scripts | None = None


class Context:
    """What is known where a program starts."""

    def __init__(self, environ: Mapping[str, str], shared: Shared) -> None:
        self.shared = shared
        self.environ = self.start = Environ(environ, looked_at=shared.looked_at)
        self.wrappers: list[Wrapper] = []  # passed so far, the outermost first
        self.directory: str | None = None  # where a wrapper changes to
        self.remote = ""  # the wrapper that leaves this host or container
        self.same_files = True  # scripts of this host are there, too
        self.reads_first: tuple[str, ...] = ()  # what shells read first
        self.args_known = True  # False: an expansion that is not known may add arguments
        self.depth = 0  # shell strings, one in another
        self.gap = -1  # more words may stand before the word at this index; -1: nowhere
        self.level = 0  # scripts, one in another
        self.script = ""  # the innermost script
        self.release = ""  # the vLLM release that the command asks for

    def branch(self) -> Context:
        """Return a context that starts as a copy of this one."""
        new = object.__new__(Context)
        new.__dict__.update(self.__dict__)
        new.environ = Environ(self.environ)
        new.wrappers = [*self.wrappers]
        return new

    def spend(self, work: int) -> bool:
        """Take this much work from the room, and return False if there is not enough."""
        self.shared.room -= work
        self.shared.work += work
        return self.shared.room >= 0

    def make_room(self, length: int) -> None:
        """Add the work of reading a file of this length, and in `check` of following it."""
        waits = self.shared.files is not None and self.shared.files.all_there
        self.shared.room += (PARSED if waits else LIBRARY) * length

    def enter(self, at: int) -> None:
        """Go on inside the word at `at`. Words that may stand before a later one add arguments."""
        self.depth += 1
        self.args_known = self.args_known and self.gap <= at
        self.gap = -1

    def scripts(self) -> Scripts | None:
        """Return the reader of scripts, or None if none may be read.

        In `check` a file is the one of its name, wherever it runs.
        """
        shared = self.shared
        if shared.files is None or (shared.files.all_there and not self.same_files):
            return None
        if shared.scripts is None:
            from eplb_launch.command.scripts import Scripts

            shared.scripts = Scripts(shared.files, shared.directory)
        return shared.scripts

    def set_by_shell(self, changes: Mapping[str, str | None]) -> None:
        """Change the environment as the shell does that the last wrapper has started."""
        self.environ.changes.update(changes)
        if VARIABLE in changes and self.wrappers:
            sets = changes[VARIABLE] is not None
            self.wrappers[-1] = self.wrappers[-1].replace(drops=not sets, sets=sets)

    def step_over(self, wrapper: Wrapper, options: Sequence[Option], row: Row) -> None:
        """Pass a wrapper, and apply what its row and its options say."""
        before = self.environ
        self._apply(options, row)
        sets = self.environ is not before and isinstance(self.environ.changes.get(VARIABLE), str)
        arrives = _is_kept(wrapper.words, options, row, before) or (
            self.environ.hands_on(VARIABLE, before) and not _resets(options, row, before)
        )
        if "remote" in row:
            self.remote = self.remote or wrapper.name
            self.same_files = self.same_files and wrapper.name in _SAME_FILES
        if "appends" in row:
            self.args_known = False
        self.wrappers.append(
            wrapper.replace(
                drops=not arrives and not sets,
                sets=sets,
                user="user" in row,
                python=row.get("python", ""),
                option=row.get("option", ""),
            )
        )

    def _apply(self, options: Sequence[Option], row: Row) -> None:
        before = self.environ
        columns = {column for column, _ in options}
        if options:
            self.environ = Environ(before)
        if "own" in row and "keeps" not in columns:
            self.environ = Environ({}, opaque=True)
        if "clears" in columns:
            self.environ = Environ({}, opaque="remote" in row)
        for column, value in options:
            if column in ("exports", "passes"):
                names = value.split(",")
                if column == "exports" and "ALL" not in names:
                    self.environ = Environ({}, opaque=True)
                for name in names:
                    if name not in ("ALL", "NONE", "NIL"):
                        self.environ.put(name, before)
            elif column in ("sets", "assigns"):
                self.environ.put(value, before)
            elif column == "unsets":
                self.environ.changes[value] = None
            elif column == "chdir":
                self.change_directory(value)
            elif column == "requires":
                self.require(value)

    def change_directory(self, directory: str) -> None:
        if self.directory is None or directory.startswith("/"):
            self.directory = directory
        else:
            self.directory = f"{self.directory.rstrip('/')}/{directory}"

    def require(self, text: str) -> None:
        """Note the release, if the text is a requirement of vLLM."""
        name, version = requirement(text)
        if name == "vllm" and version:
            self.release = version

    def server(
        self, words: Sequence[str], positions: Sequence[int], found: tuple[str, int], program: str
    ) -> Server:
        """Return the server that this context leads to."""
        entry, start = found
        at = max(start - 1, 0)
        if program.rpartition("/")[2] in VLLM:
            while at and words[at] != program:
                at -= 1
        # In `vllm $X` any argument may be in the word that is not known.
        vague = not entry and start > 1 and UNKNOWN in words[start - 1]
        vague = vague and words[start - 2].rpartition("/")[2] in VLLM
        return Server(
            entry,
            tuple(words[start:]),
            tuple(positions[start:]),
            self.environ.whole(),
            program,
            tuple(self.wrappers),
            self.directory,
            self.args_known and self.gap < start and not vague,
            self.remote,
            self.reads_first,
            hands_on=self._hands_on(),
            script=self.script,
            place=positions[at] if positions else 0,
            release=self.release,
        )

    def _hands_on(self) -> bool | None:
        if VARIABLE in self.shared.looked_at:
            return None
        return self.environ.hands_on(VARIABLE, self.start)


def requirement(text: str) -> tuple[str, str]:
    """Return the name of a package, and its version if that is given: `vllm@0.16.0`.

    PEP 508; docs.astral.sh/uv/guides/tools: NAME@VERSION.
    """
    at = next((i for i, char in enumerate(text) if char in "@=<>!~[; "), len(text))
    name, rest = text[:at], text[at:]
    if rest.startswith("["):
        rest = rest.partition("]")[2]
    version = rest.strip().removeprefix("==").removeprefix("@").strip()
    known = rest.lstrip()[:1] in ("@", "=") and version[:1].isdecimal() and "," not in version
    return name, version if known and not version.endswith("*") else ""


def _is_kept(words: Sequence[str], options: Sequence[Option], row: Row, environ: Environ) -> bool:
    """Whether something keeps NCCL_MAX_CTAS, though the wrapper drops other variables."""
    names = (
        name
        for column, value in options
        if column in ("sets", "passes", "exports", "keeps")
        for name in value.replace(" ", ",").split(",")
    )
    return (
        ("keeps", "") in options
        or any(
            name == VARIABLE or (name[-1:] == "*" and VARIABLE.startswith(name[:-1]))
            for name in names
        )
        or any(text in word for text in row.get("unless", "").split() for word in words)
        or any(
            environ.get(name + VARIABLE) not in (None, UNKNOWN)
            for name in row.get("own_names", "").split()
        )
    )


def _resets(options: Sequence[Option], row: Row, environ: Environ) -> bool:
    """Whether a wrapper drops most variables, unless it is configured otherwise."""
    if "spreads" in row:  # it drops them only on other hosts
        hosts = ",".join(value for column, value in options if column == "hosts").split(",")
        counts = [environ.get(name) or "" for name in row["nodes"].split()]
        return (
            not _LOCAL.issuperset(host.partition(":")[0] for host in hosts)
            or any(column == "spreads" for column, _ in options)
            or next((count for count in counts if count), "1") not in ("1", UNKNOWN)
        )
    if "default" in row and not any(column == "exports" for column, _ in options):
        default = environ.get(row["default"]) or "ALL"
        return default.partition(",")[0] not in ("ALL", UNKNOWN)
    return "resets" in row
