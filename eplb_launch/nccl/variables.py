"""How NCCL finds and reads its variables, and how many CTAs it may then take.

The environment wins, even with an empty value; then comes the user's conf file, then the one in
/etc. NCCL_CONF_FILE (2.23.4) replaces the user's file. The home directory is that of the password
database up to 2.29.7, and $HOME from 2.30.3. RCCL has its own files.

Read from NVIDIA/nccl, tags 2.25 to 2.30: `src/misc/param.cc` (files, numbers), `src/init.cc`
(NCCL_MAX_CTAS), `src/graph/connect.cc` and `src/graph/paths.cc` (channels: a channel is a CTA).
Measured with NCCL 2.28.9 on an H200. RCCL reads the same names (ROCm/rocm-systems, projects/rccl).

Imported only for a command that can hang.
"""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import UNKNOWN, Record
from eplb_launch.vllm.releases import MAX_CHANNELS, VARIABLE, release_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files

# The variables that decide how many CTAs NCCL takes. NCCL_MIN_CTAS does not: NCCL lowers it to
# NCCL_MAX_CTAS. Of MINIMA, and of MAXIMA, the first that is set wins.
MINIMA = ("NCCL_MIN_NCHANNELS", "NCCL_MIN_NRINGS")
MAXIMA = ("NCCL_MAX_NCHANNELS", "NCCL_MAX_NRINGS")
MIN_P2P = "NCCL_MIN_P2P_NCHANNELS"
MAX_P2P = "NCCL_MAX_P2P_NCHANNELS"
NAMES = frozenset((VARIABLE, *MINIMA, *MAXIMA, MIN_P2P, MAX_P2P))

ENVIRONMENT = "the environment"
CONF_FILE = "NCCL_CONF_FILE"  # names a conf file
MAX_BYTES = 64 * 1024  # of a conf file; a real one has a dozen lines

_BLANKS = " \t\n\v\f\r"
_DIGITS = "0123456789abcdef"
_MAX_DIGITS = 64  # more are out of range in every base
_UNSET = -2  # the default of the channel parameters: not set


class Library(Record):
    """NCCL or RCCL, and which files it reads. Releases before 2.27 are not covered."""

    conf: str  # the conf file: in /etc, and with a leading dot in the home directory
    uses_home_variable: bool = False  # it takes the home from $HOME, not the password database


NCCL = Library("nccl.conf")
NCCL_2_30 = NCCL.replace(uses_home_variable=True)
RCCL = Library("rccl.conf")


def libraries(version: str | None, environ: Mapping[str, str]) -> tuple[Library, ...]:
    """Return the libraries that a release of vLLM may load; all if the release is not known."""
    bundled = release_of(version).nccl
    if not version or not bundled:
        return (NCCL, NCCL_2_30, RCCL)
    if "rocm" in version:  # vLLM's builds for ROCm say so: 0.14.1+rocm700
        return (RCCL,)
    if environ.get("VLLM_NCCL_SO_PATH"):
        return (NCCL, NCCL_2_30)
    return tuple(NCCL_2_30 if release >= (2, 30, 3) else NCCL for release in bundled)


def strtoll(text: str) -> int | None:
    """Return the number that C's strtoll reads with base 0; None if it is out of range."""
    text = text.lstrip(_BLANKS)
    sign = -1 if text[:1] == "-" else 1
    text = text[text[:1] in ("+", "-") :].lower()
    base = 8 if text[:1] == "0" else 10
    if text[:2] == "0x" and text[2:3] and text[2] in _DIGITS:
        base, text = 16, text[2:]
    digits = text[: len(text) - len(text.lstrip(_DIGITS[:base]))].lstrip("0")
    number = sign * int(digits[:_MAX_DIGITS] or "0", base)
    return number if -(2**63) <= number < 2**63 else None


def parameter(text: str | None, default: int) -> int:
    """Return an integer parameter of NCCL, cut to 32 bits.

    It is `default` if the text is unset, empty, out of range or not known.
    """
    number = strtoll(text) if text and UNKNOWN not in text else None
    return default if number is None else (number + 2**31) % 2**32 - 2**31


def limit(text: str | None) -> int | None:
    """Return the limit that NCCL reads from NCCL_MAX_CTAS; None if it reads none.

    "8", "0x8", "010", "+8", " 8", "8abc", "8.5": 8. "0", "08", "abc", "-1", "": none.
    """
    number = parameter(text, _UNSET)
    return None if number < 1 else min(number, MAX_CHANNELS)


def pow2up(number: int) -> int:
    """Return the smallest power of two that is at least `number`, and at least 1."""
    return 1 << max(number - 1, 0).bit_length()


def channels(values: Mapping[str, str]) -> tuple[int, int]:
    """Return the most CTAs that collectives, and point-to-point calls, can take.

    The topology can lower both.
    """
    top = MAX_CHANNELS
    cap = limit(values.get(VARIABLE))
    upper = _first(values, MAXIMA)
    lower = _first(values, MINIMA)
    # ncclTopoPostset applies the minimum after the maximum.
    collective = min(top, top if upper == _UNSET else max(upper, 1), top if cap is None else cap)
    collective = max(collective, min(lower, top))
    # ncclTopoComputeP2pChannels
    p2p = min(collective, parameter(values.get(MAX_P2P), top))
    p2p = max(p2p, parameter(values.get(MIN_P2P), 1))
    return collective, min(pow2up(p2p), top)


def _first(values: Mapping[str, str], names: tuple[str, ...]) -> int:
    numbers = (parameter(values.get(name), _UNSET) for name in names)
    return next((number for number in numbers if number != _UNSET), _UNSET)


class Value(Record):
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
    """Return the values that NCCL reads for NAMES; all possible readings if that is not known.

    `version` is the release of vLLM; `environ` and `directory` are those of the server.
    `other_user`: the server runs as a user whose home directory is not known.
    """
    found: list[tuple[str, dict[str, Value]]] = []
    present = set()  # of several libraries, those that have a conf file here count
    given = {n: Value(environ[n], ENVIRONMENT) for n in NAMES if n in environ}
    for library in libraries(version, environ):
        for user_file in _user_files(environ, library, files, other_user=other_user):
            reading = dict(given)
            for path in filter(None, (user_file, f"/etc/{library.conf}")):
                place = os.path.join(directory or "", path)
                present |= {library.conf} if files.exists(place) else set()
                shown = path if path.isprintable() else ascii(path)
                for name, text in conf_values(place, files):
                    reading.setdefault(name, Value(text, shown))
            found.append((library.conf, reading))
    counted = [reading for conf, reading in found if not present or conf in present]
    return tuple(one for i, one in enumerate(counted) if one not in counted[:i])


def _user_files(
    environ: Mapping[str, str], library: Library, files: Files, *, other_user: bool
) -> list[str]:
    """Return the conf files that may come before the one in /etc; "" means that none may."""
    named = environ.get(CONF_FILE)
    if named:
        return ["" if UNKNOWN in named else named]
    variable = environ.get("HOME", "")
    home = variable if library.uses_home_variable else files.home()
    sure = home is not None and files.user() is not None and not other_user
    if home is None:  # the user is not in /etc/passwd, as with LDAP: $HOME is likely the same
        home = variable
    if not home or UNKNOWN in home:
        return [""]
    return [f"{home}/.{library.conf}"] + ([] if sure else [""])


def conf_values(path: str, files: Files = DISK) -> Iterator[tuple[str, str]]:
    """Yield the variables of NAMES in a conf file, as NCCL reads it (param.cc, setEnvFile).

    It knows no blanks around "=", no quotes and no `export`. Of equal names the first counts.
    """
    try:
        lines = files.read(path, MAX_BYTES).split(b"\n")
    except OSError:
        return
    for line in lines:
        name, equals, value = line.partition(b"\0")[0].partition(b"=")
        if equals and os.fsdecode(name) in NAMES:
            yield os.fsdecode(name), os.fsdecode(value[:1023])
