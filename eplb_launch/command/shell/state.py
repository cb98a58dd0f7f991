"""What a shell knows at a place of its script: plain layers, one for each branch around it.

A branch writes to a layer of its own. Where branches meet, a variable that differs has
alternatives, each with the branches that lead to it, so that those of several variables fit.
"""

from __future__ import annotations

from eplb_launch.command.shell.syntax import Place
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.syntax import Item, Node

    Field: TypeAlias = tuple[str, int]  # a word, and where in the command it stands
    Value: TypeAlias = str | list[Field] | None  # None: not set
    Guard: TypeAlias = dict[int, int]  # the arm taken, by the number of the branch
    Stored: TypeAlias = "Value | Node | Either"
    Arm: TypeAlias = "tuple[dict[str, Stored], dict[str, Stored]]"

# Two fields that stand for no word: any number of words that cannot be known; and a variable that
# nothing has set, which the shell drops. As a value, ABSENT is that of `A=$NOT_SET`.
GAP = "\0\0\0*"
ABSENT = "\0\0\0?"
# What is stored of a variable that is not set here, and of one that may have been set unseen.
OUTSIDE = "\0\0\0-"
UNSEEN = "\0\0\0!"
# Kept among the variables, because they change like them.
PARAMETERS = "@"
DIRECTORY = "/"
EXPORTED = "+"  # and a name: "1" if that is exported, "0" if not any more, UNKNOWN if it may be
EXPORTS = "-a"  # "1": all that is set is exported
HIDDEN = "*"  # a file that we do not see may have set any variable
LOCAL = "-l"  # and a name: it is the function's own
HANDED_ON = "-e"  # and a name: its value for the commands that the shell starts
FUNCTION = "()"  # behind the name of a function
WRITTEN = "-w"  # and a path: the text of a file that the script has written
MOST = 8  # alternatives of a variable, and ways through one command
# What the shell sets itself; the first ones are numbers.
_NUMBERS = "! $ ? BASHPID EPOCHSECONDS EUID LINENO OPTIND PPID RANDOM SECONDS SHLVL SRANDOM UID"
NUMBERS = frozenset(_NUMBERS.split())
OWN = NUMBERS.union(("BASH_VERSION", "EPOCHREALTIME", "OLDPWD", "PWD", "_", "-"))
# Numbers, names of hosts and addresses, as those who start a script set them: Slurm's sbatch(1),
# LeaderWorkerSet, mpirun(1), torchrun, Kubernetes; none of them is an option.
_ONE_WORD = ("SLURM_", "SLURMD_", "LWS_", "OMPI_", "PMI_", "PMIX_", "KUBERNETES_", "SGE_", "PBS_")
_HOSTS = """
    GROUP_RANK HOSTNAME LOCAL_RANK LOCAL_WORLD_SIZE LOGNAME MASTER_ADDR MASTER_PORT NODE_RANK
    POD_IP POD_NAME POD_NAMESPACE RANK USER WORLD_SIZE
"""
_HOST = frozenset(_HOSTS.split())
# Of these, alternatives are kept apart for a server. Others are unknown where they differ.
_DECIDING = ("NCCL_", "RCCL_", "VLLM_", "SLURM_")
_SPLIT = frozenset(" \t\n*?[" + UNKNOWN)


class TooMuch(Exception):  # noqa: N818
    """There is too much to follow."""


class Either:
    """The alternatives of a variable."""

    __slots__ = ("cases",)

    def __init__(self, cases: list[tuple[Guard, Value | Node]]) -> None:
        """Take each with the branches that lead to it."""
        self.cases = cases


class Shell:
    """What is the same at all places of a script: its kind, what is above it, the way so far."""

    def __init__(self, way: Context, shell: str, position: int) -> None:
        """Start a shell of the kind `shell` at the end of `way`, for the script at `position`."""
        self.way = way
        self.kind = shell
        self.position = position
        self.splits = shell != "zsh"  # unquoted values are split into words
        self.braces = shell not in ("dash", "ash", "busybox")  # {a,b} makes two words
        self.branches = 0
        self.forked = False  # there are alternatives
        # What `if` has asked, what it has read for it, and the number of its branch.
        self.asked: dict[tuple[str, ...], list[tuple[dict[str, Stored], int]]] = {}
        self.choices: Guard = {}  # the way through the command that is being followed
        self.agenda: list[Guard] = []  # the other ways
        self.room = 0  # how many there may be
        self.blamed: list[str] = []  # what could not be known in the words of the command
        self.read: set[str] = set()  # variables that it reads
        self.origins: dict[str, tuple[str, ...]] = {}  # why a variable cannot be known
        self.written: set[str] = set()  # the paths of files that it writes

    def place(self, item: Item) -> int:
        """Return where a word of the script stands."""
        at = self.position
        if not isinstance(at, Place):
            return Place(at, item.at, item.end)
        return Place(at, at.offset + item.at, at.offset + item.end) if at.exact else at

    def choose(self, either: Either) -> Value | Node:
        """Return the alternative on this way."""
        choices = self.choices
        fits = [
            case
            for case in either.cases
            if all(choices.get(branch, arm) == arm for branch, arm in case[0].items())
        ]
        if not fits or len(fits) > self.room + 1:
            found = [found for _, found in fits or either.cases]
            return joined([UNKNOWN if one in (OUTSIDE, UNSEEN) else one for one in found])
        self.room -= len(fits) - 1
        self.agenda += [{**choices, **guard} for guard, _ in fits[1:]]
        choices.update(fits[0][0])
        return fits[0][1]


class State:
    """Variables, parameters, functions and directory of a shell, and what it hands on."""

    __slots__ = ("above", "ended", "environ", "reads", "shell", "variables")

    def __init__(self, shell: Shell, above: State | None = None) -> None:
        """Begin as `above` is."""
        self.shell = shell
        self.above = above
        self.variables: dict[str, Stored] = {}
        self.environ: dict[str, Stored] = {}  # of what the shell hands on, what has changed
        self.ended = False  # nothing after this is run
        self.reads: set[str] | None = None  # of a function: the names that it reads from above

    @property
    def splits(self) -> bool:
        """Whether values are split into words."""
        return self.shell.splits

    @property
    def braces(self) -> bool:
        """Whether `{a,b}` makes two words."""
        return self.shell.braces

    def stored(self, name: str) -> Stored:
        """Return what is known of a name; OUTSIDE and UNSEEN stand for variables that are not."""
        variable = is_variable(name)
        state: State | None = self
        while state is not None:
            if name in state.variables:
                return state.variables[name]
            if variable and HIDDEN in state.variables:
                return UNSEEN
            if state.reads is not None:
                state.reads.add(name)
            state = state.above
        return OUTSIDE if variable else None

    def read(self, names: Iterable[str]) -> dict[str, Stored]:
        """Return what is known of each name."""
        return {
            name: self.exported_value(name[2:]) if name[:2] == HANDED_ON else self.stored(name)
            for name in names
        }

    def has(self, name: str) -> bool:
        """Whether the script has set a variable."""
        return self.stored(name) not in (OUTSIDE, UNSEEN)

    def known(self, name: str) -> Value | Node:
        """Return what is known of a name on this way; UNKNOWN if it cannot be."""
        found = self.stored(name)
        if isinstance(found, Either):
            found = self.shell.choose(found)
        return found

    def get(self, name: str) -> Value:
        """Return a variable's value: UNKNOWN if it cannot be known, None if it is not set."""
        self.shell.read.add(name)
        if name == "#" or (name.isdecimal() and name != "0"):
            return self.parameter(name)
        value = self.known(name)
        if value == OUTSIDE or (value == UNSEEN and name in OWN):
            return self.outside(name)
        if name == "-" or value == UNSEEN or not (value is None or isinstance(value, (str, list))):
            return UNKNOWN
        return value

    def parameter(self, name: str) -> Value:
        """Return `$1` and so on, or `$#`."""
        self.shell.read.add(PARAMETERS)
        parameters = self.parameters()
        count = name == "#" or len(name) > 8
        number = len(parameters) + 1 if count else int(name)
        if any(text == GAP for text, _ in parameters[:number]):
            return ONE_WORD if name == "#" else UNKNOWN
        if name == "#":
            return str(len(parameters))
        return parameters[number - 1][0] if number <= len(parameters) else None

    def outside(self, name: str) -> Value:
        """Return the value of a variable that the script has not set."""
        if name in OWN:
            return ONE_WORD if name in NUMBERS else UNKNOWN
        value = self.shell.way.environ.get(name)
        if value == UNKNOWN and (name.startswith(_ONE_WORD) or name in _HOST):
            return ONE_WORD
        return value

    def parameters(self) -> list[Field]:
        """Return what `$@` is."""
        value = self.known(PARAMETERS)
        return value if isinstance(value, list) else []

    def put(self, name: str, value: Value, *, export: bool = False) -> None:
        """Give a variable a value; None: unset it."""
        self.variables[name] = value
        if not is_variable(name):
            return
        exported = self.stored(EXPORTED + name)
        if not export and self.known(EXPORTS) == "1":
            export = True
        if export:
            exported = self.variables[EXPORTED + name] = "1"
        elif exported is None:
            exported = "1" if self.shell.way.environ.get(name) is not None else "0"
        elif isinstance(exported, Either):
            exported = UNKNOWN
        if value is None:
            self.variables[EXPORTED + name] = "0"
            if exported != "0":
                self.environ[name] = None
        elif exported != "0" and isinstance(value, str):
            unsure = exported != "1" or value == ABSENT
            self.environ[name] = UNKNOWN if unsure else value.replace(ONE_WORD, UNKNOWN)

    def export(self, name: str) -> None:
        """Export a variable."""
        value = self.get(name)
        if self.has(name) and value is not None:
            self.put(name, value, export=True)
        else:
            self.variables[EXPORTED + name] = "1"

    def unexport(self, name: str) -> None:
        """Keep a variable of the shell from what it hands on."""
        self.variables[EXPORTED + name] = "0"
        self.environ[name] = None

    def directory(self) -> str | None:
        """Return where the shell is; UNKNOWN in it if that cannot be known."""
        value = self.known(DIRECTORY) or self.shell.way.directory
        return value if value is None or isinstance(value, str) else UNKNOWN

    def doubt(self, names: Iterable[str]) -> None:
        """Note that nothing is known of `names` any more."""
        for name in names:
            known = self.stored(name)
            self.put(name, [(GAP, 0)] if isinstance(known, list) else UNKNOWN)

    def lose_sight(self) -> None:
        """Note that any variable may have been set or changed."""
        self.shell.asked.clear()
        kept = {name: found for name, found in self.variables.items() if not is_variable(name)}
        exported = self.exported()
        self.charge(4 * (len(self.variables) + len(exported)))
        self.variables = {**kept, HIDDEN: "1"}
        self.environ = {name: UNKNOWN for name, found in exported.items() if found is not None}
        self.environ.update({name: None for name, found in exported.items() if found is None})

    def exported(self) -> dict[str, Stored]:
        """Return what has changed of what the shell hands on."""
        layers = []
        state: State | None = self
        while state is not None:
            if state.environ:
                layers.append(state.environ)
            state = state.above
        found: dict[str, Stored] = {}
        for layer in reversed(layers):
            found.update(layer)
        self.charge(len(found))
        return found

    def handed_on(self) -> Iterator[tuple[str, str | None]]:
        """Yield the same; alternatives are unknown."""
        for name, value in self.exported().items():
            yield name, value if value is None or isinstance(value, str) else UNKNOWN

    def chosen(self) -> dict[str, str | None]:
        """Return of alternatives that decide about a server those on this way."""
        found = {}
        for name, value in self.exported().items():
            if isinstance(value, Either) and name.startswith(_DECIDING):
                one = self.shell.choose(value)
                found[name] = one if one is None or isinstance(one, str) else UNKNOWN
        return found

    def blame(self, name: str, *, variable: bool = False) -> None:
        """Note what cannot be known in a command."""
        shown = ("$" + name,) if variable else (name,)
        self.shell.blamed += self.shell.origins.get(name, shown) if variable else shown

    def spend(self, work: int) -> bool:
        """As Context.spend."""
        return self.shell.way.spend(work)

    def charge(self, work: int) -> None:
        """As Context.spend; TooMuch where there is no room left."""
        if not self.shell.way.spend(work):
            raise TooMuch

    # Branches

    def branch(self) -> State:
        """Return a state that goes on from here and leaves this one as it is."""
        return State(self.shell, self)

    def changes(self, since: State) -> Arm:
        """Return what has changed below `since`."""
        if self.above is since:
            return self.variables, self.environ
        layers: list[State] = []
        state: State | None = self
        while state is not None and state is not since:
            layers.append(state)
            state = state.above
        variables: dict[str, Stored] = {}
        environ: dict[str, Stored] = {}
        for layer in reversed(layers):
            if HIDDEN in layer.variables:
                variables = {name: v for name, v in variables.items() if not is_variable(name)}
            variables.update(layer.variables)
            environ.update(layer.environ)
        self.charge(len(variables) + len(environ))
        return variables, environ

    def join(self, arms: Sequence[Arm], guards: Sequence[Guard] = ()) -> None:
        """Go on from where several branches meet; `guards` are the choices that lead to each."""
        if not arms:
            self.ended = True
            return
        if len(arms) == 1:
            variables, environ = arms[0]
            if HIDDEN in variables:
                self.variables = {n: v for n, v in self.variables.items() if not is_variable(n)}
            self.variables.update(variables)
            self.environ.update(environ)
            return
        if not guards:
            self.shell.branches += 1
            guards = [{self.shell.branches: number} for number in range(len(arms))]
        found: list[dict[str, Stored]] = []
        for which in (0, 1):
            names: dict[str, None] = {}
            for arm in arms:
                names.update(dict.fromkeys(arm[which]))
            self.charge(2 * len(names) * len(arms))
            after = {}
            for name in names:
                before = self.exported_value(name) if which else self.stored(name)
                unseen = UNSEEN if not which and is_variable(name) else before
                values = [
                    arm[which][name]
                    if name in arm[which]
                    else (unseen if HIDDEN in arm[0] else before)
                    for arm in arms
                ]
                after[name] = self.either(name, values, guards)
            found.append(after)
        if any(HIDDEN in variables for variables, _ in arms):
            found[0].pop(HIDDEN, None)
            self.lose_sight()
        self.variables.update(found[0])
        self.environ.update(found[1])

    def exported_value(self, name: str) -> Stored:
        """Return what the shell hands on as a name."""
        state: State | None = self
        while state is not None:
            if name in state.environ:
                return state.environ[name]
            if state.reads is not None:
                state.reads.add(HANDED_ON + name)
            state = state.above
        return self.shell.way.environ.get(name, look=False)

    def either(self, name: str, values: Sequence[Stored], guards: Sequence[Guard]) -> Stored:
        """Return what a name is where branches meet."""
        first = values[0]
        if all(found == first for found in values):
            return first
        cases: list[tuple[Guard, Value | Node]] = []
        for found, guard in zip(values, guards, strict=True):
            if isinstance(found, Either):
                cases += [
                    ({**guard, **inner}, value)
                    for inner, value in found.cases
                    if all(inner.get(branch, arm) == arm for branch, arm in guard.items())
                ]
            else:
                cases.append((guard, found))
        self.shell.forked = True
        if len(cases) > MOST:
            outside = {OUTSIDE: self.outside(name), UNSEEN: UNKNOWN}
            return joined([outside.get(v, v) if isinstance(v, str) else v for _, v in cases])
        return Either(cases)


def joined(values: Sequence[Value | Node]) -> Value | Node:
    """Return what is known of a value that may be each of these: how it begins."""
    first = values[0]
    if all(value == first for value in values):
        return first
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        return [*_beginning(lists), (GAP, 0)] if len(lists) == len(values) else [(GAP, 0)]
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return UNKNOWN
    if all(text and text[0] != "-" and _SPLIT.isdisjoint(text) for text in texts):
        return ONE_WORD
    return known_beginning(texts)


def known_beginning(texts: Sequence[str]) -> str:
    """Return the words with which all of several texts begin, and UNKNOWN."""
    low, high = min(texts), max(texts)
    at = 0
    while at < min(len(low), len(high)) and low[at] == high[at]:
        at += 1
    if len(low) > at or not high[at:].startswith((" ", "\t", "\n")):
        at = max(low.rfind(" ", 0, at), low.rfind("\n", 0, at)) + 1
    beginning = low[:at].rstrip(UNKNOWN)
    return f"{beginning} {UNKNOWN}" if beginning.strip() else UNKNOWN


def _beginning(lists: Sequence[list[Field]]) -> list[Field]:
    """Return the words with which all of several lists begin."""
    found = []
    for words in zip(*lists, strict=False):
        if any(text != words[0][0] for text, _ in words):
            break
        found.append(words[0])
    return found


def is_variable(name: str) -> bool:
    """Whether a name is that of a variable, and not of what is kept among them."""
    return name[0] not in "@/+-*" and name[-1] != ")"
