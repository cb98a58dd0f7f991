"""How NCCL reads numbers and conf files: tables, and strtoll(3) itself."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_launch.files import InMemory
from eplb_launch.nccl import variables as nccl
from eplb_launch.nccl.variables import (
    ENVIRONMENT,
    MAX_BYTES,
    NCCL,
    NCCL_2_30,
    RCCL,
    Value,
    channels,
    conf_values,
    limit,
    parameter,
    pow2up,
    readings,
    strtoll,
)

if TYPE_CHECKING:
    from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.strtoll.restype = ctypes.c_longlong
LIBC.strtoll.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]


def c_strtoll(text: str) -> int | None:
    ctypes.set_errno(0)
    number: int = LIBC.strtoll(text.encode("utf-8", "surrogateescape"), None, 0)
    return None if ctypes.get_errno() else number


NUMBERS = [
    *(
        "",
        " ",
        "8",
        "08",
        "0x8",
        "0X1f",
        "010",
        "+8",
        "-8",
        " 8",
        "\t\n\v\f\r8",
        "8 ",
        "8abc",
        "8.5",
    ),
    *("0", "-0", "00", "09", "abc", "0x", "0xg", "+ 8", "+-8", "1e1", "1_0", "٨", "²"),
    *("8", "4294967304", "99999999999999999999", "-2147483648", "-9223372036854775808"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "0" * 5000 + "7"),
    *("0x7fffffffffffffff", "0x8000000000000000", "\x1c8", "\xa08", "0x-8", "--8", "'8'", '"8"'),
]


@pytest.mark.parametrize("text", NUMBERS, ids=ascii)
def test_numbers_are_read_as_c_reads_them(text: str) -> None:
    assert strtoll(text) == c_strtoll(text)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    | st.from_regex(r"[ \t]*[+-]?0?[xX]?[0-9a-fA-F]{0,22}[ .a-zA-Z]?", fullmatch=True)
    | st.integers(-(2**65), 2**65).map(str)
    | st.integers(0, 2**65).map(hex)
)
def test_any_text_is_read_as_c_reads_it(text: str) -> None:
    assert strtoll(text) == c_strtoll(text)


LIMITS: dict[str, int | None] = {
    **dict.fromkeys(["8", "0x8", "010", "+8", " 8", "8 ", "8abc", "8.5"], 8),
    **dict.fromkeys(["0", "-0", "00", "08", "09", "abc", "0b1000", "²", "\uff18", "٨"], None),
    **dict.fromkeys(["-1", "-8", "", "\0", "8\0"], None),
    **dict.fromkeys(["1e1", "1_0", "1", "01", "4294967297"], 1),
    **dict.fromkeys(["99999999999999999999", "-2147483648", "2147483648"], None),
    "4294967304": 8,
    "16": 16,
    "64": 64,
    "100": 64,
    "2147483647": 64,
    "-4294967288": 8,
}


@pytest.mark.parametrize(("text", "value"), LIMITS.items(), ids=map(ascii, LIMITS))
def test_nccl_max_ctas_is_read_as_nccl_reads_it(text: str, value: int | None) -> None:
    assert limit(text) == value


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [("4", -2, 4), (None, -2, -2), ("", 1, 1), ("abc", 1, 0), ("9" * 20, 1, 1), ("-1", 7, -1)],
)
def test_a_parameter_is_read_as_nccl_reads_it(text: str | None, default: int, value: int) -> None:
    assert parameter(text, default) == value


def test_pow2up_rounds_up_to_a_power_of_two() -> None:
    assert [pow2up(n) for n in (-1, 0, 1, 2, 3, 5, 8, 9, 33)] == [1, 1, 1, 2, 4, 8, 8, 16, 64]


# The variables, and the channels of collectives and of point-to-point calls. Measured with NCCL
# 2.28.9 on an H200 where marked, else by the formula.
CHANNELS = {
    "nothing": ("", 64, 64),  # measured
    "the cap": ("MAX_CTAS=8", 8, 8),  # measured
    "minimum CTAs": ("MAX_CTAS=8 MIN_CTAS=16", 8, 8),  # measured
    "minimum": ("MAX_CTAS=8 MIN_NCHANNELS=16", 16, 16),  # measured
    "its old name": ("MAX_CTAS=8 MIN_NRINGS=16", 16, 16),  # measured
    "both, the first wins": ("MAX_CTAS=8 MIN_NCHANNELS=4 MIN_NRINGS=16", 8, 8),
    "the first is no number": ("MAX_CTAS=8 MIN_NCHANNELS=x MIN_NRINGS=16", 8, 8),
    "the first is out of range": (f"MAX_CTAS=8 MIN_NCHANNELS={'9' * 20} MIN_NRINGS=16", 16, 16),
    "the first is empty": ("MAX_CTAS=8 MIN_NCHANNELS= MIN_NRINGS=16", 16, 16),
    "minimum of p2p": ("MAX_CTAS=8 MIN_P2P_NCHANNELS=32", 8, 32),  # measured
    "rounded up": ("MAX_CTAS=8 MIN_P2P_NCHANNELS=17", 8, 32),
    "not above": ("MAX_CTAS=8 MIN_P2P_NCHANNELS=5", 8, 8),
    "maximum of p2p": ("MAX_CTAS=8 MAX_P2P_NCHANNELS=4", 8, 4),  # measured
    "maximum": ("MAX_CTAS=8 MAX_NCHANNELS=4", 4, 4),  # measured
    "maximum, old name": ("MAX_NRINGS=4", 4, 4),
    "a maximum below 1": ("MAX_NCHANNELS=0", 1, 1),
    "a maximum alone": ("MAX_CTAS=0 MAX_NCHANNELS=8", 8, 8),
    "a cap of 5": ("MAX_CTAS=5", 5, 8),  # measured
    "a cap of 9": ("MAX_CTAS=9", 9, 16),
    "a cap of 0": ("MAX_CTAS=0", 64, 64),  # measured
    "too much": ("MIN_NCHANNELS=1000 MIN_P2P_NCHANNELS=1000", 64, 64),
    "negative": ("MAX_CTAS=8 MIN_NCHANNELS=-5 MIN_P2P_NCHANNELS=-5 MAX_P2P_NCHANNELS=-5", 8, 1),
}


@pytest.mark.parametrize(("text", "collective", "p2p"), CHANNELS.values(), ids=CHANNELS)
def test_channel_variables_limit_collectives_and_p2p_apart(
    text: str, collective: int, p2p: int
) -> None:
    values = dict(f"NCCL_{pair}".split("=") for pair in text.split())
    assert channels(values) == (collective, p2p)


BUNDLED: dict[str | None, tuple[nccl.Library, ...]] = {
    "0.12.0": (NCCL,),
    "0.20.0+cu129": (NCCL,),
    "0.27.1": (NCCL,),
    "0.33.0": (NCCL, NCCL_2_30),
    "0.99.0": (NCCL, NCCL_2_30),
    "0.16.0+rocm700": (RCCL,),
    None: (NCCL, NCCL_2_30, RCCL),
    "0.1.dev1": (NCCL, NCCL_2_30, RCCL),
}


@pytest.mark.parametrize(("version", "expected"), BUNDLED.items(), ids=map(str, BUNDLED))
def test_which_library_a_release_brings(
    version: str | None, expected: tuple[nccl.Library, ...]
) -> None:
    assert nccl.libraries(version, {}) == expected


def test_a_given_library_may_be_any_nccl() -> None:
    found = nccl.libraries("0.16.0", {"VLLM_NCCL_SO_PATH": "/x.so"})
    assert found == (NCCL, NCCL_2_30)


def given_files(files: dict[str, str], home: str = "/home/u", uid: int = 1000) -> InMemory:
    """Return files, and /etc/passwd, as user 1000 sees them."""
    passwd = f"x:x:{uid + 1}::/other:/bin/sh\nu:x:{uid}:0::{home}:/bin/sh\n"
    return InMemory({"/etc/passwd": passwd, **files}, user=1000)


HOME = "/home/u/.nccl.conf"
ETC = "/etc/nccl.conf"
NAMED = "/n.conf"
FOUR = "NCCL_MAX_CTAS=4\n"
# The environment, the files, the release of vLLM; NCCL_MAX_CTAS, and where it was read.
PLACES = {
    "the environment first": ({"NCCL_MAX_CTAS": "2"}, {HOME: FOUR}, "0.16.0", ("2", ENVIRONMENT)),
    "even if empty": ({"NCCL_MAX_CTAS": ""}, {HOME: FOUR}, "0.16.0", ("", ENVIRONMENT)),
    "the home": ({}, {HOME: FOUR, ETC: "NCCL_MAX_CTAS=5"}, "0.16.0", ("4", HOME)),
    "not that of HOME": ({"HOME": "/x"}, {"/x/.nccl.conf": FOUR}, "0.16.0", None),
    "that of HOME": ({"HOME": "/x"}, {"/x/.nccl.conf": FOUR}, "0.33.0", ("4", "/x/.nccl.conf")),
    "then etc": ({}, {HOME: "NCCL_DEBUG=INFO", ETC: FOUR}, "0.16.0", ("4", ETC)),
    "a named one": ({"NCCL_CONF_FILE": NAMED}, {NAMED: FOUR, HOME: ""}, "0.16.0", ("4", NAMED)),
    "replaces the home": ({"NCCL_CONF_FILE": NAMED}, {NAMED: "", HOME: FOUR}, "0.16.0", None),
    "and not etc": ({"NCCL_CONF_FILE": NAMED}, {NAMED: "", ETC: FOUR}, "0.16.0", ("4", ETC)),
    "~ is not expanded": ({"NCCL_CONF_FILE": "~/.nccl.conf"}, {HOME: FOUR}, "0.16.0", None),
    "an empty name": ({"NCCL_CONF_FILE": ""}, {HOME: FOUR}, "0.16.0", ("4", HOME)),
    "RCCL's home": ({}, {"/home/u/.rccl.conf": FOUR}, "0.16.0+rocm7", ("4", "/home/u/.rccl.conf")),
    "RCCL's etc": ({}, {"/etc/rccl.conf": FOUR}, "0.16.0+rocm7", ("4", "/etc/rccl.conf")),
    "not RCCL's": ({}, {"/etc/rccl.conf": FOUR}, "0.16.0", None),
    "RCCL's, not known": ({}, {"/etc/rccl.conf": FOUR}, None, ("4", "/etc/rccl.conf")),
    "NCCL's, not known": ({}, {ETC: FOUR}, None, ("4", ETC)),
}


@pytest.mark.parametrize(("environ", "files", "version", "read"), PLACES.values(), ids=PLACES)
def test_values_are_found_in_the_order_of_nccl(
    environ: dict[str, str],
    files: dict[str, str],
    version: str | None,
    read: tuple[str, str] | None,
) -> None:
    found = readings(environ, version, files=given_files(files))
    expected = Value(*read) if read else None
    # 0.33 may find the home in either way.
    assert expected in [reading.get("NCCL_MAX_CTAS") for reading in found]
    if version != "0.33.0":
        assert len(found) == 1


AMBIGUOUS = {
    "two homes": ({"HOME": "/x"}, {"/x/.nccl.conf": FOUR}, None),
    "one home": ({"HOME": "/home/u"}, {HOME: FOUR}, ["4"]),
    "NCCL's and RCCL's": ({"HOME": "/home/u"}, {ETC: FOUR, "/etc/rccl.conf": ""}, None),
    "nothing": ({"HOME": "/x"}, {}, [None]),
}


@pytest.mark.parametrize(("environ", "files", "values"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_unknown_home_or_library_gives_two_readings(
    environ: dict[str, str],
    files: dict[str, str],
    values: list[str | None] | None,
) -> None:
    found = readings(environ, None, files=given_files(files))
    texts = [r["NCCL_MAX_CTAS"].text if "NCCL_MAX_CTAS" in r else None for r in found]
    assert texts == values if values else sorted(texts, key=str) == ["4", None]


def test_home_counts_for_a_user_who_is_not_in_passwd() -> None:
    files = given_files({HOME: FOUR}, uid=1007)
    assert given_files({HOME: FOUR}, uid=1000).home() == "/home/u"
    assert files.home() is None
    assert len(readings({"HOME": "/home/u"}, "0.16.0", files=files)) == 2
    assert readings({}, "0.16.0", files=files) == ({},)


def test_another_user_may_have_another_home() -> None:
    files = given_files({HOME: FOUR})
    assert len(readings({}, "0.16.0", files=files, other_user=True)) == 2
    unknown = InMemory(files.texts)
    assert len(readings({"HOME": "/home/u"}, "0.16.0", files=unknown)) == 2
    assert readings({}, "0.16.0", files=InMemory({})) == ({},)


def test_a_relative_conf_file_is_read_from_the_directory_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "n.conf").write_text(FOUR)
    (reading,) = readings({"NCCL_CONF_FILE": "n.conf"}, "0.16.0", directory=str(tmp_path))
    assert reading == {"NCCL_MAX_CTAS": Value("4", "n.conf")}


LINES: dict[str, tuple[bytes, dict[str, str]]] = {
    "one": (b"NCCL_MAX_CTAS=4", {"NCCL_MAX_CTAS": "4"}),
    "the first of two": (b"NCCL_MAX_CTAS=4\nNCCL_MAX_CTAS=5\n", {"NCCL_MAX_CTAS": "4"}),
    "two": (
        b"NCCL_MAX_CTAS=4\nNCCL_MIN_NRINGS=2\n",
        {"NCCL_MAX_CTAS": "4", "NCCL_MIN_NRINGS": "2"},
    ),
    "a comment": (b"#NCCL_MAX_CTAS=4\n# NCCL_MAX_CTAS=4\n", {}),
    "not in column 0": (b" #x\n NCCL_MAX_CTAS=4\n", {}),
    "blanks": (b"NCCL_MAX_CTAS = 4\n", {}),
    "a blank in front of the value": (b"NCCL_MAX_CTAS= 4\n", {"NCCL_MAX_CTAS": " 4"}),
    "export": (b"export NCCL_MAX_CTAS=4\n", {}),
    "quotes": (b'NCCL_MAX_CTAS="4"\n', {"NCCL_MAX_CTAS": '"4"'}),
    "CRLF": (b"NCCL_MAX_CTAS=4\r\n", {"NCCL_MAX_CTAS": "4\r"}),
    "no value": (b"NCCL_MAX_CTAS\n\n=4\n", {}),
    "an empty value": (b"NCCL_MAX_CTAS=\n", {"NCCL_MAX_CTAS": ""}),
    "another =": (b"NCCL_MAX_CTAS=4=5\n", {"NCCL_MAX_CTAS": "4=5"}),
    "no text": (b"\xff\xfe=\x80\nNCCL_MAX_CTAS=\xff\n", {"NCCL_MAX_CTAS": "\udcff"}),
    "a NUL": (b"NCCL_MAX_CTAS=4\0 5\nNCCL\0_MIN_NRINGS=4\n", {"NCCL_MAX_CTAS": "4"}),
    "another name": (b"NCCL_DEBUG=INFO\nPATH=/x\n", {}),
}


@pytest.mark.parametrize(("content", "values"), LINES.values(), ids=LINES)
def test_a_conf_file_is_read_as_nccl_reads_it(
    tmp_path: Path, content: bytes, values: dict[str, str]
) -> None:
    path = tmp_path / "nccl.conf"
    path.write_bytes(content)
    found: dict[str, str] = {}
    for name, text in conf_values(str(path)):
        found.setdefault(name, text)
    assert found == values


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "loop", "long", "NUL"])
def test_a_file_that_cannot_be_read_sets_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nccl.conf"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path)
    elif kind == "long":
        path = tmp_path / ("x" * 5000)
    name = f"{path}\0" if kind == "NUL" else str(path)
    assert list(conf_values(name)) == []
    (reading,) = readings({"NCCL_CONF_FILE": name}, "0.16.0", files=InMemory({}))
    assert reading == {}


def test_a_huge_file_is_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "nccl.conf"
    path.write_bytes(b"NCCL_MAX_CTAS=4\n" + b"x=y\n" * MAX_BYTES + b"NCCL_MIN_NRINGS=16\n")
    assert list(conf_values(str(path))) == [("NCCL_MAX_CTAS", "4")]


@given(st.binary(max_size=200))
def test_any_conf_file_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_bytes(b"NCCL_MAX_CTAS=" + content)
    for _, text in conf_values(str(path)):
        limit(text)
