"""Every sub-command says what it said before: `make golden` renews what is recorded.

A difference is listed in the commit that makes it, with its reason.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from golden import cases, record

from eplb_launch import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Starter

MOST = 200  # lines of differences that are shown


@pytest.fixture(scope="module")
def launches() -> record.Records:
    return record.kept("launch")


def test_nothing_is_different() -> None:
    recorded = record.now()
    lines = [
        line if line[0] == " " else f"{name} {line}"
        for name, records in recorded.items()
        for line in record.differences(record.kept(name), records)
    ]
    more = [f"… and {len(lines) - MOST} more lines: `make golden` shows them all, and renews"]
    shown = lines[:MOST] + more * (len(lines) > MOST)
    assert not lines, "\n".join(["is not what is recorded:", *shown])


@pytest.mark.parametrize("name", cases.LAUNCHED)
def test_a_real_launch_is_what_is_recorded(
    name: str, start: Starter, probe: Path, tmp_path: Path, launches: record.Records
) -> None:
    if any(map(os.path.exists, ("/etc/nccl.conf", "/etc/rccl.conf"))):
        pytest.skip("NCCL has a conf file on this machine")
    (case,) = (case for case in cases.by_hand() if case["id"] == name)
    (tmp_path / "vllm").symlink_to(probe)
    (tmp_path / "true").symlink_to(probe)
    before = [b"PATH=%b:/usr/bin:/bin" % os.fsencode(tmp_path), b"HOME=/nonexistent"]
    words = [*start.forms["script"], *case["options"], "--", *case["command"]]
    ended = start(words, environ=before)
    seen: dict[str, Any] = {"status": "exec" if ended.seen else ended.status}
    gained = (
        [entry for entry in ended.environ() if entry.startswith(b"NCCL_")] if ended.seen else []
    )
    if gained:
        seen["set"] = dict(entry.decode().split("=") for entry in gained)
    if ended.err:
        seen["err"] = ended.err.decode().splitlines()
    assert seen == launches[name]


def test_what_is_recorded_is_small_and_says_no_version() -> None:
    names = [*(f"{name}.txt" for name in record.COMMANDS), record.TEXTS]
    paths = [os.path.join(record.HERE, name) for name in names]
    assert sum(map(os.path.getsize, paths)) < 1_500_000
    for path in paths:
        with open(path, encoding="utf-8") as file:
            assert f'"{__version__}"' not in file.read()


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    long = "x" * 99
    recorded: dict[str, record.Records] = {
        "launch": {"a": {"err": [long, "short"], "set": {"A": "1"}}, "b": {"err": [long, "short"]}},
        "check": {"c": {"out": {"servers": [{"reason": long}], "\u2028\udcff": "\t\n"}}},
    }
    record.write(recorded, str(tmp_path))
    assert {name: record.kept(name, str(tmp_path)) for name in recorded} == recorded
    assert (tmp_path / record.TEXTS).read_text().count(long) == 1


def test_a_difference_says_the_case_and_the_key() -> None:
    old = {"a": {"out": {"x": [1, {"y": "was"}]}}, "b": {}, "c": {"err": ["1", "2"]}}
    new = {"a": {"out": {"x": [1, {"y": "is"}]}}, "c": {"err": ["1", "3"]}, "d": {}}
    assert record.differences(old, new) == [
        *("a: out.x.1.y", "  - was", "  + is"),
        "b: is gone",
        *("c: err", "  - 2", "  + 3"),
        "d: is new",
    ]


def test_the_same_difference_in_many_cases_is_said_once() -> None:
    old = {f"case-{number}": {"err": ["was"]} for number in range(record.NAMED + 2)}
    new = {name: {"err": ["is"]} for name in old}
    said, *changes = record.differences(old, new)
    assert said.startswith("case-0, case-1, ")
    assert said.endswith(f"case-{record.NAMED - 1} and 2 more: err")
    assert changes == ["  - was", "  + is"]


CHECKED = {"line": 3, "name": "pod"}
WORSE: dict[str, tuple[Any, Any, list[str]]] = {
    "set is unset": (
        {"set": {"NCCL_MAX_CTAS": "8"}},
        {"status": "exec"},
        ["set is unset"],
    ),
    "another value": ({"set": {"NCCL_MAX_CTAS": "8"}}, {"set": {"NCCL_MAX_CTAS": "4"}}, []),
    "unset is set": ({}, {"set": {"NCCL_MAX_CTAS": "4"}}, []),
    "explain": ({"out": {"set": {"NCCL_MAX_CTAS": "8"}}}, {"out": {"set": {}}}, ["set is unset"]),
    "env": ({"out": ["export NCCL_MAX_CTAS=8"]}, {}, ["set is unset"]),
    "explain, as text": (
        {"out": ["NCCL_MAX_CTAS=8 will be set: async EPLB"]},
        {"out": ["NCCL_MAX_CTAS will not be set: one rank"]},
        ["set is unset"],
    ),
    "a review that speaks of it": ({"out": ["x", "    NCCL_MAX_CTAS=8"]}, {"status": 1}, []),
    "not exposed any more, in ps": (
        {"pid": 7, "verdict": "EXPOSED"},
        {"pid": 7, "verdict": "not needed"},
        ["server 7 was exposed, is not needed"],
    ),
    "unknown is capped, in ps": (
        {"pid": 7, "verdict": "unknown"},
        {"pid": 7, "verdict": "capped"},
        [],
    ),
    "not exposed any more, in check": (
        {"out": {"servers": [{**CHECKED, "verdict": "exposed"}]}},
        {"out": {"servers": [{**CHECKED, "verdict": "ok"}]}},
        ["server 3 pod was exposed, is ok"],
    ),
    "no server, in check": (
        {"out": {"servers": [{**CHECKED, "verdict": "ok"}]}},
        {"out": {"servers": []}},
        ["server 3 pod is none"],
    ),
    "a server more": ({"out": {"servers": []}}, {"out": {"servers": [CHECKED]}}, []),
}


@pytest.mark.parametrize(("old", "new", "said"), WORSE.values(), ids=WORSE)
def test_what_needs_a_named_bug(old: Any, new: Any, said: list[str]) -> None:
    assert record.worse({"a": old}, {"a": new}) == [f"a: {line}" for line in said]


def test_a_case_that_is_gone_had_no_server_and_set_nothing() -> None:
    assert record.worse({"a": {"out": []}}, {}) == []
    assert record.worse({"a": {**CHECKED, "verdict": "ok"}}, {}) == ["a: server 3 pod is none"]
