"""What is expected of NCCL, row by row: channels for collectives, for send and receive, and blocks.

From reading NCCL's sources (src/misc/param.cc, src/init.cc, src/graph/connect.cc and paths.cc, the
same from 2.25 to 2.30), and first measured with 2.28.9.
"""

from __future__ import annotations

from dataclasses import dataclass

from nccl_launch import TWO_ON_ONE, Launch

MOST = 64  # MAXCHANNELS (src/include/device.h) from 2.25
UNLIMITED = (MOST, MOST, MOST)
SET = "NCCL_MAX_CTAS set by environment to "
MAX, MIN, CONF = "NCCL_MAX_CTAS", "NCCL_MIN_CTAS", "NCCL_CONF_FILE"


@dataclass(frozen=True)
class Row:
    """One start, and what has to come of it."""

    name: str
    expected: tuple[int, int, int]
    launch: Launch
    variable: str | None  # NCCL_MAX_CTAS as the worker has to find it
    log: tuple[str, ...] = ()  # what NCCL has to say


def _all(number: int) -> tuple[int, int, int]:
    return (number, number, number)


def _two(
    name: str,
    expected: tuple[int, int, int],
    *,
    launcher: tuple[str, ...] | None = (),
    variable: str | None = "8",
    **environ: str,
) -> Row:
    launch = Launch("count", launcher, {**TWO_ON_ONE, **environ}, ranks=2)
    log = (f"{SET}{variable}.",) if variable else ()
    return Row(name, expected, launch, variable, log)


REACHES = (
    _two("without eplb-launch", UNLIMITED, launcher=None, variable=None),
    _two("eplb-launch", _all(8)),
    _two("eplb-launch --max-ctas 4", _all(4), launcher=("--max-ctas", "4"), variable="4"),
    _two(
        "eplb-launch --max-ctas fit --sms 132",
        _all(4),
        launcher=("--max-ctas", "fit", "--sms", "132"),
        variable="4",
    ),
    _two("NCCL_MIN_NCHANNELS=16 eplb-launch", _all(16), NCCL_MIN_NCHANNELS="16"),
    _two("NCCL_MIN_P2P_NCHANNELS=32 eplb-launch", (8, 32, 32), NCCL_MIN_P2P_NCHANNELS="32"),
)


def _beside(expected: tuple[int, int, int], **environ: str) -> Row:
    name = " ".join(f"{name}={value}" for name, value in environ.items()) or "nothing"
    return Row(name, expected, Launch("count", (), environ), "8", (f"{SET}8.",))


BESIDE = (
    Row("nothing at all, without eplb-launch", UNLIMITED, Launch("count", None), None),
    _beside(_all(8)),
    _beside(_all(8), NCCL_MIN_CTAS="16"),
    _beside(_all(8), NCCL_NVLS_NCHANNELS="24"),
    _beside(_all(8), NCCL_NCHANNELS_PER_NET_PEER="32"),
    _beside(_all(16), NCCL_MIN_NCHANNELS="16"),
    _beside(_all(16), NCCL_MIN_NRINGS="16"),
    _beside(_all(16), NCCL_MIN_NCHANNELS="16", NCCL_MIN_NRINGS="32"),
    _beside((9, 16, 16), NCCL_MIN_NCHANNELS="9"),
    _beside((8, 32, 32), NCCL_MIN_P2P_NCHANNELS="32"),
    _beside((8, 16, 16), NCCL_MIN_P2P_NCHANNELS="9"),
    _beside((8, 32, 32), NCCL_MIN_P2P_NCHANNELS="17"),
    _beside((8, 4, 4), NCCL_MAX_P2P_NCHANNELS="4"),
    _beside(_all(4), NCCL_MAX_NCHANNELS="4"),
)


def _value(text: str, number: int | None, *log: str, said: int | None = None) -> Row:
    """Return a row of NCCL alone: what it reads from a value; None: no limit.

    `said` is the number in its log, if that is another.
    """
    if number is None:
        expected = UNLIMITED
    else:
        limit = min(number, MOST)
        expected = (limit, 1 << (limit - 1).bit_length(), 1 << (limit - 1).bit_length())
        log = (*log, f"{SET}{number if said is None else said}.")
    return Row(f'"{text}"', expected, Launch("count", None, {MAX: text}), text, log)


_LOW = "NCCL_MAX_CTAS {} is too low, leaving it set at "
VALUES = (
    *(_value(text, 8) for text in ("8", "0x8", "010", "+8", " 8", "8 ", "8abc", "8.5")),
    *(
        _value(text, None, _LOW.format(0))
        for text in ("0", "-0", "08", "09", "abc", "0b1000", "\N{ARABIC-INDIC DIGIT EIGHT}")
    ),
    _value("-1", None, _LOW.format(-1)),
    _value("", None),
    *(_value(text, 1) for text in ("1e1", "1_0")),
    _value("4294967304", 8, said=4294967304),
    *(_value(text, None) for text in ("99999999999999999999", "-2147483648")),
    _value("5", 5),
    _value("64", 64),
    _value("100", 100),
)


def _given(text: str, arrives: str, expected: tuple[int, int, int]) -> Row:
    """Return a row of a value that is set already when eplb-launch starts."""
    return Row(f'"{text}"', expected, Launch("count", (), {MAX: text}), arrives)


GIVEN = (
    *(_given(text, text, _all(int(text))) for text in ("4", "16", "64")),
    *(_given(text, text, UNLIMITED) for text in ("0", "08")),
    *(_given(text, "8", _all(8)) for text in ("0x8", " 8", "-1", "abc", "")),
)


def _file(
    name: str,
    conf: str,
    expected: tuple[int, int, int],
    variable: str | None = None,
    launcher: tuple[str, ...] | None = None,
    **environ: str,
) -> Row:
    """Return a row of a file that NCCL_CONF_FILE names."""
    return Row(name, expected, Launch("count", launcher, environ, conf=conf), variable)


FOUR = "NCCL_MAX_CTAS=4\n"
FILES = (
    _file("NCCL_MAX_CTAS=4", FOUR, _all(4)),
    _file("NCCL_MAX_CTAS=4, variable 8", FOUR, _all(8), "8", NCCL_MAX_CTAS="8"),
    _file("NCCL_MAX_CTAS=4, variable empty", FOUR, UNLIMITED, "", NCCL_MAX_CTAS=""),
    _file("no newline at the end", FOUR.rstrip(), _all(4)),
    _file("blanks around =", "NCCL_MAX_CTAS = 4\n", UNLIMITED),
    _file('in quotes: "4"', 'NCCL_MAX_CTAS="4"\n', UNLIMITED),
    _file("export in front", "export NCCL_MAX_CTAS=4\n", UNLIMITED),
    _file("a comment", "#NCCL_MAX_CTAS=4\n", UNLIMITED),
    _file("lines end in CR LF", "NCCL_MAX_CTAS=4\r\n", _all(4)),
    _file("twice: 4, then 6", FOUR + "NCCL_MAX_CTAS=6\n", _all(4)),
    _file("NCCL_MIN_P2P_NCHANNELS=32", "NCCL_MIN_P2P_NCHANNELS=32\n", (8, 32, 32), "8", ()),
    _file("NCCL_MIN_NCHANNELS=16", "NCCL_MIN_NCHANNELS=16\n", _all(16), "8", ()),
    _file("NCCL_MAX_CTAS=4, eplb-launch", FOUR, _all(4), None, ()),
    _file("NCCL_MAX_CTAS=16, eplb-launch", "NCCL_MAX_CTAS=16\n", _all(8), "8", ()),
    Row(
        "named ~/.nccl.conf in NCCL_CONF_FILE: 4",
        UNLIMITED,
        Launch("count", None, {CONF: "~/.nccl.conf"}, home=FOUR),
        None,
    ),
)


def home_rows(version: tuple[int, ...]) -> tuple[Row, ...]:
    """Return the row of a .nccl.conf in a $HOME that is not the user's by the password database."""
    reads = version >= (2, 30, 3)
    return (
        Row(
            "$HOME/.nccl.conf: 4, the user's home is another",
            _all(4) if reads else UNLIMITED,
            Launch("count", None, home=FOUR),
            None,
        ),
    )


# With NCCL_MAX_CTAS=4 in .nccl.conf of the user's home.
REAL_HOME = (
    Row("variable unset", _all(4), Launch("count", None), None),
    Row("variable 8", _all(8), Launch("count", None, {MAX: "8"}), "8"),
    Row("variable empty", UNLIMITED, Launch("count", None, {MAX: ""}), ""),
    Row("eplb-launch", _all(4), Launch("count", ()), None),
    Row("NCCL_CONF_FILE names an empty file", UNLIMITED, Launch("count", None, conf=""), None),
    Row("that, eplb-launch", _all(8), Launch("count", (), conf=""), "8"),
)
