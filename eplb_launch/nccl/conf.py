"""Where NCCL finds its variables: the environment, then conf files.

Read from NVIDIA/nccl, `src/misc/param.cc` (initEnv, setEnvFile): what is set in the environment,
even to nothing, stays; then the user's file counts, then that in /etc. NCCL_CONF_FILE (2.23.4)
replaces the user's file. The home is that of the password database up to 2.29.7, and $HOME from
2.30.3. RCCL has files of its own.

Imported only for a command that can hang, where there is something to be read.
Nothing here raises: a file that cannot be read is none.
"""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import UNKNOWN, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files
    from eplb_launch.nccl.variables import Library

ENVIRONMENT = "the environment"
CONF_FILE = "NCCL_CONF_FILE"  # names a conf file
MAX_BYTES = 64 * 1024  # of a conf file; a real one has a dozen lines


class Value(Record):
    """The value of a variable, and who says so."""

    text: str
    source: str  # ENVIRONMENT, or the path of a conf file


def readings(
    environ: Mapping[str, str],
    version: str | None,
    *,
    directory: str | None = None,
    other_user: bool = False,
    files: Files = DISK,
) -> tuple[dict[str, Value], ...]:
    """Return what NCCL may find for NAMES: one reading, or several where it depends.

    `version` is vLLM's, `environ` and `directory` the server's. `other_user`: it runs as somebody
    whose home is not known.
    """
    from eplb_launch.nccl.variables import NAMES, libraries

    found: list[tuple[str, dict[str, Value]]] = []
    present = set()  # where the library is not known, it is the one that has files here
    given = {n: Value(environ[n], ENVIRONMENT) for n in NAMES if n in environ}
    for library in libraries(version, environ):
        for paths in _conf_files(environ, library, files, other_user=other_user):
            reading = dict(given)
            for path in paths:
                place = os.path.join(directory or "", path)
                present |= {library.conf} if files.exists(place) else set()
                shown = path if path.isprintable() else ascii(path)
                for name, text in conf_values(place, files):
                    reading.setdefault(name, Value(text, shown))
            found.append((library.conf, reading))
    result: list[dict[str, Value]] = []
    for conf, reading in found:
        if reading not in result and (not present or conf in present):
            result.append(reading)
    return tuple(result)


def _conf_files(
    environ: Mapping[str, str], library: Library, files: Files, *, other_user: bool
) -> Iterator[list[str]]:
    """Yield the files that may be read, the first one first."""
    last = f"/etc/{library.conf}"
    named = environ.get(CONF_FILE, "")
    homes: list[str | None] = [None]
    if named:
        if UNKNOWN not in named:
            homes = [named]
    else:
        variable = environ.get("HOME", "")
        home = variable if library.home_from_variable else files.home()
        if home is None:  # a user of LDAP or the like, whose $HOME is likely to be the same
            homes = [f"{variable}/.{library.conf}", None] if variable else [None]
        elif home and UNKNOWN not in home:
            homes = [f"{home}/.{library.conf}"]
        if (other_user or files.user() is None) and homes != [None]:
            homes.append(None)
    for path in homes:
        yield [name for name in (path, last) if name]


def conf_values(path: str, files: Files = DISK) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a conf file that count here (param.cc, setEnvFile).

    No blanks around "=", no quotes, no `export`; of two equal names the first counts.
    """
    from eplb_launch.nccl.variables import NAMES

    for line in _read(path, files).split(b"\n"):
        name, equals, value = line.partition(b"\0")[0].partition(b"=")
        if equals and os.fsdecode(name) in NAMES:
            yield os.fsdecode(name), os.fsdecode(value[:1023])


def _read(path: str, files: Files) -> bytes:
    try:
        return files.read(path, MAX_BYTES)
    except OSError:
        return b""
