"""`make fuzz`: each target takes its seeds and some mutations, and a fault is found."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from fuzz.__main__ import MOST, Run, main, mutated
from fuzz.targets import TARGETS, Target

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_takes_its_seeds_and_mutations(target: Target, tmp_path: Path) -> None:
    choose = random.Random(1)
    run = Run(target, str(tmp_path), choose)
    seeds = list(target.seeds)[:8]
    for content in (*seeds, *(mutated(choose.choice(seeds), seeds, choose) for _ in range(24))):
        run.feed(content)
    assert run.findings == {}
    assert run.seen


def test_a_fault_is_found_said_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def feed(content: bytes) -> None:
        if b"aa" in content:
            raise ValueError("two of them")

    run = Run(Target("t t", feed, (b"ab", b"ba")), str(tmp_path), random.Random(0))
    while not run.findings:
        run.feed(mutated(b"ab", [b"ba"], run.choose))
    run.feed(b"x" * 50 + b"aa")
    run.feed(b"aa")
    assert capsys.readouterr().out.count("ValueError at test_fuzz.py") == 1
    [path] = run.findings.values()
    with open(path, "rb") as file:
        assert file.read() == b"aa"


def test_a_mutation_is_bounded_and_repeatable() -> None:
    seeds = [bytes(range(256)) * (MOST // 256), b"b" * 100]
    first, again = (
        [mutated(seeds[i % 2], seeds, choose) for i in range(200)]
        for choose in (random.Random(3), random.Random(3))
    )
    assert first == again
    assert max(map(len, first)) <= MOST
    assert len(set(first)) > 100


def test_the_command_says_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--seconds", "0.2", "--keep", str(tmp_path), "title"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("title ")
    assert "ms/KB" in first
    assert last.endswith(" inputs, 0 findings, seed 0")
