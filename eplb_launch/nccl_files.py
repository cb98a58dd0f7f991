"""Where NCCL finds its variables: the environment, then conf files.

Read from NVIDIA/nccl, `src/misc/param.cc` (initEnv, setEnvFile): what is set in the environment,
even to nothing, stays; then the user's file counts, then that in /etc. NCCL_CONF_FILE (2.23.4)
replaces the user's file. The home is that of the password database up to 2.29.7, and $HOME from
2.30.3. RCCL has files of its own.

Imported only for a command that can hang, and `nccl` only where there is something to be read.
Nothing here raises: a file that cannot be read is none.
"""

from __future__ import annotations

import os

from eplb_launch.command import UNKNOWN
from eplb_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.nccl import Library

ENVIRONMENT = "the environment"
MAX_BYTES = 64 * 1024  # of a conf file; a real one has a dozen lines
# What the variables that count here begin with.
_TELLING = ("NCCL_MAX_", "NCCL_MIN_", "NCCL_CONF_FILE", "NCCL_ENV_PLUGIN")
_REGULAR = 0o100000  # S_IFREG, without importing stat


class Value(Record):
    """The value of a variable, and who says so."""

    text: str
    source: str  # ENVIRONMENT, or the path of a conf file


def nothing_set(environ: Mapping[str, str], root: str = "") -> bool:
    """Whether there is no variable that counts here, and no conf file: the ordinary case."""
    if any(name.startswith(_TELLING) for name in environ):
        return False
    homes = {environ.get("HOME"), home_of(os.getuid(), root)}
    return not any(
        os.path.exists(_place(place + name, None, root))
        for place in ("/etc/", *(f"{home}/." for home in homes if home))
        for name in ("nccl.conf", "rccl.conf")
    )


def readings(
    environ: Mapping[str, str],
    version: str | None,
    *,
    directory: str | None = None,
    other_user: bool = False,
    files: bool = True,
    root: str = "",
) -> tuple[dict[str, Value], ...]:
    """Return what NCCL may find for NAMES: one reading, or several where it depends.

    `version` is vLLM's, `environ` and `directory` the server's. `other_user`: it runs as somebody
    whose home is not known. Without `files`, the environment alone. `root` is the directory that
    it sees as "/", if that is not ours.
    """
    from eplb_launch.nccl import NAMES, libraries

    found: list[tuple[str, bool, dict[str, Value]]] = []
    given = {n: Value(environ[n], ENVIRONMENT) for n in NAMES if n in environ}
    for library in libraries(version, environ) if files else ():
        for paths in _conf_files(environ, library, directory, root, other_user=other_user):
            reading = dict(given)
            for path, shown in paths:
                for name, text in conf_values(path):
                    reading.setdefault(name, Value(text, shown))
            found.append((library.name, any(os.path.exists(p) for p, _ in paths), reading))
    # Where the library is not known, it is the one that has files here.
    present = {name for name, exists, _ in found if exists}
    result: list[dict[str, Value]] = []
    for name, _, reading in found:
        if reading not in result and (not present or name in present):
            result.append(reading)
    return tuple(result) or (given,)


def _conf_files(
    environ: Mapping[str, str],
    library: Library,
    directory: str | None,
    root: str,
    *,
    other_user: bool,
) -> Iterator[list[tuple[str, str]]]:
    """Yield the files that may be read, the first one first: where they are, and their names."""
    last = f"/etc/{library.conf}"
    named = environ.get("NCCL_CONF_FILE", "")
    homes: list[str | None] = [None]
    if named:
        if UNKNOWN not in named:
            homes = [named]
    else:
        variable = environ.get("HOME", "")
        home = variable if library.home_from_variable else home_of(os.getuid(), root)
        if home is None:  # a user of LDAP or the like, whose $HOME is likely to be the same
            homes = [f"{variable}/.{library.conf}", None] if variable else [None]
        elif home and UNKNOWN not in home:
            homes = [f"{home}/.{library.conf}"]
        if other_user and homes != [None]:
            homes.append(None)
    for path in homes:
        shown = [name for name in (path, last) if name]
        yield [
            (_place(name, directory, root), name if name.isprintable() else ascii(name))
            for name in shown
        ]


def _place(path: str, directory: str | None, root: str) -> str:
    path = os.path.join(directory or "", path)
    if root:
        from eplb_launch.roots import at

        try:
            return at(path, root)
        except (OSError, ValueError):
            return ""  # a loop of links, a NUL byte
    return path


def home_of(uid: int, root: str = "") -> str | None:
    """Return the home of a user by /etc/passwd, or None.

    Not getpwuid(3), which may ask servers: NCCL does that itself, but later and not twice.
    """
    for line in _read(_place("/etc/passwd", None, root)).split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 5 and fields[2] == b"%d" % uid:
            return os.fsdecode(fields[5])
    return None


def conf_values(path: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a conf file that count here (param.cc, setEnvFile).

    No blanks around "=", no quotes, no `export`; of two equal names the first counts.
    """
    from eplb_launch.nccl import NAMES

    for line in _read(path).split(b"\n"):
        name, equals, value = line.partition(b"\0")[0].partition(b"=")
        if equals and os.fsdecode(name) in NAMES:
            yield os.fsdecode(name), os.fsdecode(value[:1023])


def _read(path: str) -> bytes:
    """Return the first MAX_BYTES of a regular file; nothing where it cannot be read."""
    content = b""
    try:
        # Not blocking: to open a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return content
    try:
        if os.fstat(descriptor).st_mode & 0o170000 == _REGULAR:
            while len(content) < MAX_BYTES and (piece := os.read(descriptor, MAX_BYTES)):
                content += piece
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return content[:MAX_BYTES]
