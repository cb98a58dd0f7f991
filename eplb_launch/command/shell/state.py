"""What a shell knows at a point of its script: variables, parameters, functions, directory.

Each arm of a branch (`if`, `case`, `&&`) has a state of its own, which holds only its changes.
Where arms meet, a variable that differs has alternatives. Each alternative names the arms that lead
to it, so that the right alternatives of several variables go together.
"""

from __future__ import annotations

from eplb_launch.command.shell.syntax import Place
from eplb_launch.model import ONE_WORD, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeAlias

    from eplb_launch.command.context import Context
    from eplb_launch.command.shell.syntax import Item, Node

    Field: TypeAlias = tuple[str, int]  # a word, and its position in the command
    Value: TypeAlias = str | list[Field] | None  # None: not set
    Choices: TypeAlias = dict[int, int]  # the number of the arm, by the number of the branch
    Stored: TypeAlias = "Value | Node | Alternatives"
    Changes: TypeAlias = dict[str, Stored]

# Two fields that are no words: any number of unknown words; a variable that is not set, which the
# shell drops. UNSET is also the value of A after `A=$NOT_SET`.
ANY_WORDS = "\0\0\0*"
UNSET = "\0\0\0?"
# What is stored for a variable that the script does not assign, and for one that code which was not
# read may have assigned.
INHERITED = "\0\0\0-"
MAYBE_SET = "\0\0\0!"
# These are stored among the variables, because they change in the same way.
PARAMETERS = "@"
DIRECTORY = "/"
ANY_CHANGED = "*"  # code that was not read may have changed all variables
EXPORT_ALL = "-a"  # "1" after `set -a`
EXPORTED = "+"  # before a name: "1" if it is exported, "0" if not any more, else UNKNOWN
ENVIRON = "-e"  # before a name: its value in the environment of the commands
LOCAL = "-l"  # before a name: the variable is local to the function
WRITTEN = "-w"  # before a path: the text that the script has written to that file
FUNCTION = "()"  # after the name of a function
MAX_ALTERNATIVES = 8  # of a variable, and of the ways through one command
# Variables that the shell itself sets. The first ones are numbers.
_NUMBERS = "! $ ? BASHPID EPOCHSECONDS EUID LINENO OPTIND PPID RANDOM SECONDS SHLVL SRANDOM UID"
NUMBERS = frozenset(_NUMBERS.split())
SET_BY_SHELL = NUMBERS.union(("BASH_VERSION", "EPOCHREALTIME", "OLDPWD", "PWD", "_", "-"))
# Variables with one word that is no option: numbers, host names and addresses. Slurm's sbatch(1),
# LeaderWorkerSet, mpirun(1), torchrun and Kubernetes set them.
_ONE_WORD = ("SLURM_", "SLURMD_", "LWS_", "OMPI_", "PMI_", "PMIX_", "KUBERNETES_", "SGE_", "PBS_")
_ONE_WORD_NAMES = """
    GROUP_RANK HOSTNAME LOCAL_RANK LOCAL_WORLD_SIZE LOGNAME MASTER_ADDR MASTER_PORT NODE_RANK
    POD_IP POD_NAME POD_NAMESPACE RANK USER WORLD_SIZE
"""
_ONE_WORD_NAME = frozenset(_ONE_WORD_NAMES.split())
# Variables whose alternatives are followed one by one for a server. Others become UNKNOWN.
_DECISIVE = ("NCCL_", "RCCL_", "VLLM_", "SLURM_")
_NOT_ONE_WORD = frozenset(" \t\n*?[" + UNKNOWN)


class TooMuch(Exception):  # noqa: N818
    """The script takes more work than the budget of the plan allows."""


class Alternatives:
    """The values that a name may have, each with the choices that lead to it."""

    __slots__ = ("cases",)

    def __init__(self, cases: list[tuple[Choices, Value | Node]]) -> None:
        self.cases = cases


class Shell:
    """What is the same at all points of a script, and what is noted for the current command."""

    def __init__(self, context: Context, kind: str, position: int) -> None:
        """Start the shell `kind` in a context; the script stands at `position`."""
        self.context = context
        self.kind = kind
        self.position = position
        self.splits = kind != "zsh"  # values without quotes are split into words
        self.braces = kind not in ("dash", "ash", "busybox")  # {a,b} becomes two words
        self.branches = 0  # how many there have been
        self.has_alternatives = False
        # The conditions of `if` so far: the values that they read, and the number of the branch.
        self.asked: dict[tuple[str, ...], list[tuple[Changes, int]]] = {}
        self.choices: Choices = {}  # made for the current command
        self.agenda: list[Choices] = []  # still to be followed for it
        self.room = 0  # how many more there may be
        self.unknown: list[str] = []  # what is unknown in the current command
        self.read: set[str] = set()  # the variables that the current command reads
        self.origins: dict[str, tuple[str, ...]] = {}  # why a variable is unknown
        self.written: set[str] = set()  # the paths of the files that the script writes

    def place(self, item: Item) -> int:
        """Return the place of a word of the script."""
        at = self.position
        if not isinstance(at, Place):
            return Place(at, item.at, item.end)
        return Place(at, at.offset + item.at, at.offset + item.end) if at.exact else at

    def choose(self, alternatives: Alternatives) -> Value | Node:
        """Return the alternative that fits the choices so far; put the others on the agenda."""
        fits = [case for case in alternatives.cases if _agree(case[0], self.choices)]
        if not fits or len(fits) > self.room + 1:
            values = [value for _, value in fits or alternatives.cases]
            return merged([UNKNOWN if one in (INHERITED, MAYBE_SET) else one for one in values])
        self.room -= len(fits) - 1
        self.agenda += [{**self.choices, **choices} for choices, _ in fits[1:]]
        self.choices.update(fits[0][0])
        return fits[0][1]


class State:
    """What the shell knows at one point of the script."""

    __slots__ = ("ended", "outer", "reads", "shell", "values")

    def __init__(self, shell: Shell, outer: State | None = None) -> None:
        """Begin as `outer` is."""
        self.shell = shell
        self.outer = outer
        self.values: Changes = {}
        self.ended = False  # the shell runs nothing after this point
        self.reads: set[str] | None = None  # in a function: the outer names that it reads

    def fork(self) -> State:
        """Return a state that begins here and does not change this one."""
        return State(self.shell, self)

    def spend(self, work: int) -> bool:
        """As Context.spend."""
        return self.shell.context.spend(work)

    def charge(self, work: int) -> None:
        """As Context.spend, but raise TooMuch where nothing is left."""
        if not self.shell.context.spend(work):
            raise TooMuch

    # Reading

    def stored(self, name: str) -> Stored:
        """Return what is stored for a name."""
        variable = is_variable(name)
        state: State | None = self
        while state is not None:
            if name in state.values:
                return state.values[name]
            if variable and ANY_CHANGED in state.values:
                return MAYBE_SET
            if state.reads is not None:
                state.reads.add(name)
            state = state.outer
        if name.startswith(ENVIRON):
            return self.shell.context.environ.get(name[len(ENVIRON) :], look=False)
        return INHERITED if variable else None

    def assigned(self, name: str) -> bool:
        """Whether the script has set or unset a variable."""
        return self.stored(name) not in (INHERITED, MAYBE_SET)

    def known(self, name: str) -> Value | Node:
        """Return what is stored for a name, given the choices so far."""
        found = self.stored(name)
        return self.shell.choose(found) if isinstance(found, Alternatives) else found

    def get(self, name: str) -> Value:
        """Return the value of a variable: UNKNOWN if it is not known, None if it is not set."""
        self.shell.read.add(name)
        if name == "#" or (name.isdecimal() and name != "0"):
            return self._parameter(name)
        value = self.known(name)
        if value == INHERITED or (value == MAYBE_SET and name in SET_BY_SHELL):
            return self._inherited(name)
        if value == MAYBE_SET or name == "-" or not isinstance(value, (str, list, type(None))):
            return UNKNOWN
        return value

    def _parameter(self, name: str) -> Value:
        """Return the value of `$1` and so on, or of `$#`."""
        self.shell.read.add(PARAMETERS)
        parameters = self.parameters()
        every = name == "#" or len(name) > 8
        number = len(parameters) + 1 if every else int(name)
        if any(text == ANY_WORDS for text, _ in parameters[:number]):
            return ONE_WORD if name == "#" else UNKNOWN
        if name == "#":
            return str(len(parameters))
        return parameters[number - 1][0] if number <= len(parameters) else None

    def _inherited(self, name: str) -> Value:
        """Return the value of a variable that the script does not assign."""
        if name in SET_BY_SHELL:
            return ONE_WORD if name in NUMBERS else UNKNOWN
        value = self.shell.context.environ.get(name)
        if value == UNKNOWN and (name.startswith(_ONE_WORD) or name in _ONE_WORD_NAME):
            return ONE_WORD
        return value

    def parameters(self) -> list[Field]:
        """Return the words of `$@`."""
        value = self.known(PARAMETERS)
        return value if isinstance(value, list) else []

    def directory(self) -> str | None:
        """Return the working directory; it has UNKNOWN in it if it is not known."""
        value = self.known(DIRECTORY) or self.shell.context.directory
        return value if value is None or isinstance(value, str) else UNKNOWN

    def environ(self, *, choose: bool = False) -> dict[str, str | None]:
        """Return what the shell has changed in the environment of its commands.

        A variable with alternatives is UNKNOWN. With `choose`, one that matters for a server has
        the alternative that fits the choices so far.
        """
        changes = self.changes()
        self.charge(len(changes))
        found = {}
        for key, value in changes.items():
            if not key.startswith(ENVIRON):
                continue
            name = key[len(ENVIRON) :]
            if choose and isinstance(value, Alternatives) and name.startswith(_DECISIVE):
                value = self.shell.choose(value)  # noqa: PLW2901
            found[name] = value if value is None or isinstance(value, str) else UNKNOWN
        return found

    # Writing

    def put(self, name: str, value: Value, *, export: bool = False) -> None:
        """Give a variable a value, or unset it (None)."""
        self.values[name] = value
        if not is_variable(name):
            return
        exported = self.stored(EXPORTED + name)
        if export or self.known(EXPORT_ALL) == "1":
            exported = self.values[EXPORTED + name] = "1"
        elif exported is None:
            exported = "1" if self.shell.context.environ.get(name) is not None else "0"
        elif isinstance(exported, Alternatives):
            exported = UNKNOWN
        if value is None:
            self.values[EXPORTED + name] = "0"
            if exported != "0":
                self.values[ENVIRON + name] = None
        elif exported != "0" and isinstance(value, str):
            known = exported == "1" and value != UNSET
            self.values[ENVIRON + name] = value.replace(ONE_WORD, UNKNOWN) if known else UNKNOWN

    def export(self, name: str) -> None:
        """Do `export NAME`."""
        value = self.get(name)
        if self.assigned(name) and value is not None:
            self.put(name, value, export=True)
        else:
            self.values[EXPORTED + name] = "1"

    def unexport(self, name: str) -> None:
        """Do `export -n NAME`: the variable stays in the shell only."""
        self.values[EXPORTED + name] = "0"
        self.values[ENVIRON + name] = None

    def forget(self, names: Iterable[str]) -> None:
        """Make variables unknown."""
        for name in names:
            is_list = isinstance(self.stored(name), list)
            self.put(name, [(ANY_WORDS, 0)] if is_list else UNKNOWN)

    def forget_all(self) -> None:
        """Make all variables unknown: code that was not read may have changed them."""
        self.shell.asked.clear()
        environ = self.environ()
        self.charge(4 * (len(self.values) + len(environ)))
        apply(self.values, {ANY_CHANGED: "1"})
        for name, value in environ.items():
            self.values[ENVIRON + name] = None if value is None else UNKNOWN

    # Arms

    def changes(self, since: State | None = None) -> Changes:
        """Return what has changed since an outer state, or since the shell started."""
        layers = []
        state: State | None = self
        while state is not None and state is not since:
            layers.append(state.values)
            state = state.outer
        changes: Changes = {}
        for layer in reversed(layers):
            apply(changes, layer)
        self.charge(len(changes) // 4)
        return changes

    def merge(self, arms: Sequence[Changes], choices: Sequence[Choices] = ()) -> None:
        """Go on where arms meet; `choices` lead to each arm."""
        if not arms:
            self.ended = True
            return
        if len(arms) == 1:
            apply(self.values, arms[0])
            return
        if not choices:
            self.shell.branches += 1
            choices = [{self.shell.branches: number} for number in range(len(arms))]
        names = dict.fromkeys(name for arm in arms for name in arm)
        self.charge(2 * len(names) * len(arms))
        found: Changes = {}
        for name in names:
            before = self.stored(name)
            unread = MAYBE_SET if is_variable(name) else before
            values = [arm.get(name, unread if ANY_CHANGED in arm else before) for arm in arms]
            found[name] = self._alternatives(name, values, choices)
        if ANY_CHANGED in found:
            del found[ANY_CHANGED]
            self.forget_all()
        self.values.update(found)

    def _alternatives(
        self, name: str, values: Sequence[Stored], choices: Sequence[Choices]
    ) -> Stored:
        """Return what is stored for a name that has these values in the arms that meet."""
        first = values[0]
        if all(value == first for value in values):
            return first
        cases: list[tuple[Choices, Value | Node]] = []
        for value, chosen in zip(values, choices, strict=True):
            if isinstance(value, Alternatives):
                cases += [
                    ({**chosen, **inner}, one)
                    for inner, one in value.cases
                    if _agree(chosen, inner)
                ]
            else:
                cases.append((chosen, value))
        self.shell.has_alternatives = True
        if len(cases) <= MAX_ALTERNATIVES:
            return Alternatives(cases)
        real = {INHERITED: self._inherited(name), MAYBE_SET: UNKNOWN}
        return merged([real.get(one, one) if isinstance(one, str) else one for _, one in cases])


def apply(values: Changes, changes: Changes) -> None:
    """Make changes to values."""
    if ANY_CHANGED in changes:
        for name in [name for name in values if is_variable(name)]:
            del values[name]
    values.update(changes)


def is_variable(name: str) -> bool:
    """Whether a name that something is stored for is that of a variable."""
    return name[0] not in "@/+-*" and name[-1] != ")"


def merged(values: Sequence[Value | Node]) -> Value | Node:
    """Return what several possible values have in common: how they begin."""
    first = values[0]
    if all(value == first for value in values):
        return first
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        words = [[text for text, _ in value] for value in lists]
        common = _common(words) if len(lists) == len(values) else 0
        return [*lists[0][:common], (ANY_WORDS, 0)]
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return UNKNOWN
    if all(text and text[0] != "-" and _NOT_ONE_WORD.isdisjoint(text) for text in texts):
        return ONE_WORD
    common = _common(texts)
    if any(text[common : common + 1] not in ("", " ", "\t", "\n") for text in texts):
        common = max(texts[0].rfind(" ", 0, common), texts[0].rfind("\n", 0, common)) + 1
    beginning = texts[0][:common].rstrip(" " + UNKNOWN)
    return f"{beginning} {UNKNOWN}" if beginning.strip() else UNKNOWN


def _common(values: Sequence[Any]) -> int:
    """Return the length of the beginning that several texts or lists have in common."""
    low, high = min(values), max(values)
    differ = (at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(low), len(high)))


def _agree(some: Choices, others: Choices) -> bool:
    """Whether no branch has another arm in `others`."""
    return all(others.get(branch, arm) == arm for branch, arm in some.items())
