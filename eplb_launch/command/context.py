"""What is known on the way to the server: the environment so far, the programs passed."""

from __future__ import annotations

from eplb_launch.command.entrypoints import UNKNOWN, VLLM, Prefix, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# How much work there may be beyond reading the command once, about in characters: `A=$A$A` doubles
# with every turn.
ROOM = 2_000_000


class Environ:
    """An environment, as changes to the one that it started from."""

    __slots__ = ("base", "changes", "opaque")

    def __init__(self, base: Mapping[str, str] | Environ, *, opaque: bool = False) -> None:
        """Begin with no changes to `base`."""
        self.base = base
        self.changes: dict[str, str | None] = {}  # None: taken out
        self.opaque = opaque  # what is set besides cannot be seen

    def get(self, name: str) -> str | None:
        """Return the value of `name`, which may be UNKNOWN; None if it is not set."""
        at: Mapping[str, str] | Environ = self
        while isinstance(at, Environ):
            if name in at.changes:
                return at.changes[name]
            if at.opaque:
                return UNKNOWN
            at = at.base
        return at.get(name)

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


class Way:
    """What the programs on the way have changed. A way may go on from another one."""

    def __init__(self, environ: Mapping[str, str] | Environ, above: Way | None = None) -> None:
        """Begin with an environment; `above`: and with all that is known there."""
        self.environ = Environ(environ)
        self.above = above
        self.prefixes: list[Prefix] = []  # those after `above`
        self.directory: str | None = above.directory if above else None
        self.elsewhere: str = above.elsewhere if above else ""
        self.sourced: tuple[str, ...] = above.sourced if above else ()
        self.complete: bool = above.complete if above else True
        self.depth: int = above.depth if above else 0
        self.room: list[int] = above.room if above else [ROOM]
        # Whether what was looked at last is vLLM that starts no engine.
        self.idle: list[bool] = above.idle if above else [False]
        self.gap: int = above.gap if above else -1  # the last word that more may stand before

    def branch(self) -> Way:
        """Return a way that goes on from here and leaves this one as it is."""
        return Way(self.environ, self)

    def spend(self, work: int) -> bool:
        """Take so much of the room; False if there is none left."""
        self.room[0] -= work
        return self.room[0] >= 0

    def passed(self) -> tuple[Prefix, ...]:
        """Return all the programs on the way, the outermost first."""
        parts = []
        at: Way | None = self
        while at is not None:
            parts.append(at.prefixes)
            at = at.above
        return tuple([prefix for part in reversed(parts) for prefix in part])

    def replace_environ(self, *, opaque: bool) -> None:
        """Note that the command gets an empty environment, or an `opaque` one."""
        self.environ = Environ({}, opaque=opaque)

    def put(self, assignment: str, environ: Environ) -> None:
        """Note that the command gets NAME=VALUE, or the NAME that `environ` has."""
        name, equals, value = assignment.partition("=")
        self.environ.changes[name] = value if equals else environ.get(name)

    def change_directory(self, directory: str) -> None:
        """Note that the command runs in `directory`."""
        if self.directory is None or directory.startswith("/"):
            self.directory = directory
        else:
            self.directory = f"{self.directory.rstrip('/')}/{directory}"

    def server(
        self, words: Sequence[str], positions: Sequence[int], found: tuple[str, int], program: str
    ) -> Server:
        """Return the server that was found at the end of the way."""
        entry, start = found
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
        )


def _unread(words: Sequence[str], found: tuple[str, int]) -> bool:
    """Whether the sub-command cannot be known, so that any argument may stand in its word."""
    entry, start = found
    return (
        not entry
        and start > 1
        and UNKNOWN in words[start - 1]
        and words[start - 2].rpartition("/")[2] in VLLM
    )
