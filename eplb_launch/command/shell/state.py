"""The variables of a shell, with a record of their changes so that these can be taken back."""

from __future__ import annotations

from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from eplb_launch.command.context import Context

    # A word, and where in the command it stands.
    Field: TypeAlias = tuple[str, int]
    # None: not set.
    Value: TypeAlias = str | list[Field] | None

# Two fields that stand for no word: any number of words that cannot be known; and a variable that
# nothing has set, which the shell drops. As a value, ABSENT is that of `A=$NOT_SET`.
GAP = "\0\0\0*"
ABSENT = "\0\0\0?"
# Kept among the variables, because they change and are taken back like them.
PARAMETERS = "@"
DIRECTORY = "/"
EXPORTED = "+"  # and a name: "1" if that is exported as soon as it is set
# What the shell sets itself.
OWN = frozenset(
    (
        "BASHPID",
        "BASH_VERSION",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "EUID",
        "LINENO",
        "OLDPWD",
        "OPTIND",
        "PPID",
        "PWD",
        "RANDOM",
        "SECONDS",
        "SHLVL",
        "SRANDOM",
        "UID",
        "_",
        "!",
        "$",
        "?",
        "-",
    )
)


class TooMuch(Exception):  # noqa: N818
    """There is too much to follow."""


class State:
    """Variables, parameters and directory of a shell, and the environment it hands on."""

    def __init__(self, way: Context, shell: str, zero: str, parameters: list[Field]) -> None:
        """Start a shell of the kind `shell` at the end of `way`."""
        self.way = way
        self.environ = way.environ
        self.splits = shell != "zsh"  # unquoted values are split into words
        self.braces = shell not in ("dash", "ash", "busybox")  # {a,b} makes two words
        self.exports_all = False  # set -a
        self.opaque = False  # a file that we do not see may have set any variable
        self.unsure: set[str] = set()  # names that may be exported or not
        self.locals: dict[
            str, bool
        ] = {}  # names that a function has made its own; True: were exported
        self.variables: dict[str, Value] = {"0": zero, PARAMETERS: parameters}
        # Each change: the name, what it was, and what it was in the changes to the environment.
        self.journal: list[tuple[str, tuple[Value, ...], tuple[str | None, ...]]] = []

    def get(self, name: str) -> Value:
        """Return a variable's value: UNKNOWN if it cannot be known, None if it is not set."""
        if name in self.variables:
            return self.variables[name]
        parameters = self.parameters()
        if name == "#":
            return UNKNOWN if any(text == GAP for text, _ in parameters) else str(len(parameters))
        if name.isdecimal():
            number = int(name) if len(name) < 9 else len(parameters) + 1
            if any(text == GAP for text, _ in parameters[:number]):
                return UNKNOWN
            return parameters[number - 1][0] if number <= len(parameters) else None
        if name in OWN or self.opaque:
            return UNKNOWN
        return self.environ.get(name)

    def parameters(self) -> list[Field]:
        """Return what `$@` is."""
        value = self.variables[PARAMETERS]
        return value if isinstance(value, list) else []

    def put(self, name: str, value: Value, *, export: bool = False) -> None:
        """Give a variable a value; None: unset it."""
        changes = self.environ.changes
        before = self.variables
        self.journal.append(
            (
                name,
                (before[name],) if name in before else (),
                (changes[name],) if name in changes else (),
            )
        )
        before[name] = value
        if not is_variable(name):
            return
        early = before.get(EXPORTED + name)
        export = export or self.exports_all or early == "1"
        if export or early is not None or self.environ.get(name) is not None:
            if isinstance(value, str):
                unsure = not export and (name in self.unsure or early is not None)
                changes[name] = UNKNOWN if unsure or value == ABSENT else value
            elif value is None:
                changes[name] = None
            if export or value is None:
                self.unsure.discard(name)
        if value is None and early is not None:
            self.put(EXPORTED + name, None)

    def export(self, name: str) -> None:
        """Export a variable."""
        value = self.get(name)
        if value is None:
            self.put(EXPORTED + name, "1")
        else:
            self.put(name, value, export=True)

    def directory(self) -> str | None:
        """Return where the shell is; UNKNOWN in it if that cannot be known."""
        value = self.variables.get(DIRECTORY, self.way.directory)
        return value if value is None or isinstance(value, str) else UNKNOWN

    def lose_sight(self) -> None:
        """Note that any variable may have been set or changed."""
        self.opaque = True
        names = [name for name in self.variables if is_variable(name) and name != "0"]
        self.doubt(dict.fromkeys(names, False))

    def spend(self, work: int) -> bool:
        """As Context.spend."""
        return self.way.spend(work)

    def charge(self, work: int) -> None:
        """As Context.spend; TooMuch where there is no room left."""
        if not self.way.spend(work):
            raise TooMuch

    def mark(self) -> int:
        """Return a mark of how things are now."""
        return len(self.journal)

    def changed(self, mark: int) -> dict[str, bool]:
        """Return the names of what has changed since `mark`, each with whether it is exported."""
        names: dict[str, bool] = {}
        for name, _, change in self.journal[mark:]:
            exported = bool(change) or name in self.environ.changes
            names[name] = names.get(name, False) or exported
        return names

    def restore(self, mark: int) -> None:
        """Take back all changes since `mark`."""
        journal = self.journal
        while len(journal) > mark:
            name, variable, change = journal.pop()
            self.variables.pop(name, None)
            self.variables.update((name, value) for value in variable)
            self.environ.changes.pop(name, None)
            self.environ.changes.update((name, value) for value in change)

    def doubt(self, names: Mapping[str, bool]) -> None:
        """Note that nothing is known of `names` any more, and that some may be exported."""
        self.charge(4 * len(names))
        for name, exported in names.items():
            known = self.variables.get(name)
            unknown: Value = [(GAP, 0)] if isinstance(known, list) else UNKNOWN
            self.put(name, unknown, export=exported and is_variable(name))
            if exported:
                self.unsure.add(name)

    def forget(self, mark: int) -> None:
        """Note that what has changed since `mark` may not have changed."""
        if len(self.journal) == mark:
            return
        names = self.changed(mark)
        first = {entry[0]: entry for entry in reversed(self.journal[mark:])}
        self.charge(4 * len(first))
        del self.journal[mark:]
        self.journal.extend(first.values())
        for name, exported in names.items():
            known = self.variables.get(name)
            self.variables[name] = [(GAP, 0)] if isinstance(known, list) else UNKNOWN
            if exported and is_variable(name):
                self.environ.changes[name] = UNKNOWN
                self.unsure.add(name)


def is_variable(name: str) -> bool:
    """Whether a name is that of a variable, and not of what is kept among them."""
    return name[0] not in PARAMETERS + DIRECTORY + EXPORTED
