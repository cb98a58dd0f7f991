"""What `make oracle` is made of, without vLLM and without a network."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import __main__ as oracle_main
from oracle import compare, option_table, rows, shrink, sources
from oracle.__main__ import spellings_not_read
from oracle.compare import differences
from oracle.generate import Generator

from eplb_launch.vllm import arguments
from eplb_launch.vllm.options import newest, options

ROOT = Path(__file__).parents[1]
OPTIONS = ROOT / "eplb_launch" / "vllm" / "options.py"
ACCEPTED = {
    "accepted": True,
    "nccl_max_ctas": None,
    "data_parallel_size": 1,
    "enable_eplb": False,
    "use_async": True,
    "all2all_backend": "allgather_reducescatter",
    "communicator": None,
    "moe_backend": "auto",
}


def generated(seed: str, minor: int, number: int) -> list[dict[str, Any]]:
    generator = Generator(Random(seed), minor, options(minor))
    return [generator.row() for _ in range(number)]


@pytest.mark.parametrize("minor", [12, 20, 33])
def test_the_same_seed_makes_the_same_rows(minor: int) -> None:
    first = generated("a", minor, 200)
    assert first == generated("a", minor, 200)
    assert first != generated("b", minor, 200)


@pytest.mark.parametrize("minor", [12, 23, 33])
def test_rows_are_of_every_sort(minor: int) -> None:
    made = generated("sorts", minor, 2000)
    words = [word for row in made for word in row["argv"]]
    for pattern in (
        r"--data_parallel_size=.+",
        r"--eplb.*\.use_async(=.+)?",
        r"--eplb.* ?",
        r'\{.*"use_async".*\}',
        r"--[a-z-]+\..+\+(=.+)?",
        r"-dp=.+",
        "--",
        "--config",
        "",
    ):
        assert any(re.fullmatch(pattern, word) for word in words), pattern
    for option in ("--enable-eplb", "--all2all-backend"):
        beginnings = {word for word in words if option.startswith(word) and len(word) > 3}
        unique = {b for b in beginnings if sum(o.startswith(b) for o in options(minor)) == 1}
        assert unique - {option}
        if option == "--enable-eplb":  # of many words
            assert beginnings - unique
    assert all(row["argv"][0] == "serve" for row in made)
    assert {len(row["files"]) for row in made} == {0, 1}
    assert {"NCCL_MAX_CTAS", "VLLM_DP_SIZE", "VLLM_ALL2ALL_BACKEND"} <= {
        name for row in made for name in row["env"]
    }
    # What a release lacks is not drawn, but for the odd ones.
    assert ("-ep" in words) == ("-ep" in options(minor))


@given(st.randoms(use_true_random=False), st.sampled_from([12, 16, 20, 23, 33]))
def test_no_generated_row_is_too_much_for_the_plan(random: Any, minor: int) -> None:
    row = {**Generator(random, minor, options(minor)).row(), "vllm": {"accepted": False}}
    # As vLLM refuses it, whatever is decided is right; only it has to be decided.
    with tempfile.TemporaryDirectory() as folder:
        assert differences(json.loads(rows.line(row)), f"0.{minor}.0", Path(folder)) == []


def test_shrinking_leaves_what_matters() -> None:
    row = {
        "argv": [
            "serve",
            "model",
            "--seed",
            "1",
            "-dp",
            "16",
            "--enable-eplb",
            "--config",
            "a.yaml",
        ],
        "env": {"A": "1", "VLLM_DP_SIZE": "88"},
        "files": {"a.yaml": "x: 1\ny: 2\n"},
        "nixl": True,
    }

    def pair(tried: dict[str, Any]) -> bool:
        words = tried["argv"]
        return any(a == "-dp" and b.isdigit() for a, b in itertools.pairwise(words))

    found = shrink.shrink(row, pair)
    assert (found["argv"], found["env"], found["files"]) == (["serve", "-dp", "6"], {}, {})
    assert not found["nixl"]
    found = shrink.shrink(row, lambda tried: {"model", "--enable-eplb"} <= {*tried["argv"]})
    assert found["argv"] == ["serve", "model", "--enable-eplb"]
    found = shrink.shrink(row, lambda tried: "8" in tried["env"].get("VLLM_DP_SIZE", ""))
    assert (found["argv"], found["env"]) == (["serve"], {"VLLM_DP_SIZE": "8"})
    found = shrink.shrink(row, lambda tried: "y" in "".join(tried["files"].values()))
    assert found["files"] == {"a.yaml": "y"}
    found = shrink.shrink(row, lambda tried: tried["nixl"] and "--enable-eplb" in tried["argv"])
    assert (found["argv"], found["nixl"]) == (["serve", "--enable-eplb"], True)


def test_json_stays_json_while_it_shrinks() -> None:
    word = '--eplb-config={"window_size": 7, "use_async": "on", "policy": "default"}'

    def is_async(tried: dict[str, Any]) -> bool:
        try:
            return "use_async" in json.loads(tried["argv"][-1].partition("=")[2])
        except ValueError:
            return False

    found = shrink.shrink(
        {"argv": ["serve", word], "env": {}, "files": {}, "nixl": False}, is_async
    )
    # What is left of the value is what is shorter letter by letter, and still JSON.
    assert re.fullmatch(r'=\{"use_async":("")\}|="use_async"', found["argv"][-1])


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_every_candidate_is_smaller(random: Any) -> None:
    row = Generator(random, 33, options(33)).row()
    size = shrink.size(row)
    for candidate in shrink.candidates(row):
        assert shrink.size(candidate) < size


def answer_by_size(row: dict[str, Any]) -> dict[str, Any]:
    """Answer as a vLLM would that fires for even lengths and refuses every third."""
    words = len(row["argv"])
    return {**ACCEPTED, "accepted": words % 3 != 0, "nccl_max_ctas": "8" if words % 2 else None}


def test_the_rows_kept_are_balanced_short_and_different() -> None:
    drawn = iter([row for row in generated("c", 33, 4000) for _ in range(2)])
    kept = rows.balanced(lambda: next(drawn), answer_by_size, "0.33.0")
    kinds = [rows.kind(row, "0.33.0") for row in kept]
    assert {name: kinds.count(name) for name in rows.QUOTA} == rows.QUOTA
    asked = [rows.line({**row, "vllm": None}) for row in kept]
    assert len(set(asked)) == 200
    assert max(map(len, asked)) <= rows.LONGEST + len(', "vllm": null')


def test_too_few_rows_of_a_kind_are_told() -> None:
    made = itertools.cycle(generated("d", 33, 4))
    with pytest.raises(SystemExit, match=r"still wanted: \{.*'refused': 30"):
        rows.balanced(lambda: next(made), lambda _: ACCEPTED, "0.33.0")


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = [*generated("e", 12, 300), {"argv": ["serve", "\udcff", "٨", "\u2028", "\x85"]}]
    rows.write(tmp_path / "rows.jsonl", made)
    assert list(rows.read(tmp_path / "rows.jsonl")) == made


def test_a_difference_is_seen(tmp_path: Path) -> None:
    row = {"argv": ["serve", "m", "-dp", "2"], "env": {}, "files": {}, "nixl": False}
    right = {**ACCEPTED, "data_parallel_size": 2}
    assert differences({**row, "vllm": right}, "0.33.0", tmp_path) == []
    for name, value in {**ACCEPTED, "data_parallel_size": 4, "nccl_max_ctas": "8"}.items():
        if right[name] != value:
            wrong = {**right, name: value}
            assert differences({**row, "vllm": wrong}, "0.33.0", tmp_path), name
    assert differences({**row, "vllm": {"accepted": False}}, "0.33.0", tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_crash_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"argv": ["serve"], "env": {}, "files": {"a": ""}, "nixl": False}
    monkeypatch.setattr(compare, "plan", lambda *_, **__: int("x"))
    for vllm in (ACCEPTED, {"accepted": False}):
        found = differences({**row, "vllm": vllm}, "0.33.0", tmp_path)
        assert found[0].startswith("plan() raises ValueError")
    assert list(tmp_path.iterdir()) == []


def test_a_new_spelling_of_an_option_that_is_read_is_noticed() -> None:
    known = {name: setting for name, (setting, _) in arguments.OPTIONS.items()}
    assert spellings_not_read({**known, "--port": "port", "--eplb": "eplb"}) == []
    assert spellings_not_read({**known, "--eplb-on": "enable_eplb"}) == ["--eplb-on"]


def test_of_several_patches_the_newest_is_the_one_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("0.30.9", "0.30.10"):
        (tmp_path / f"vllm-{version}.jsonl").touch()
    monkeypatch.setattr(oracle_main, "DATA", tmp_path)
    monkeypatch.setattr(sources, "files_of_index", dict)
    monkeypatch.setattr(sources, "releases", lambda _: ["0.30.10", "0.31.0"])
    assert oracle_main.new() == 0
    assert capsys.readouterr().out == "0.31.0\n"


def test_the_committed_table_of_options_is_as_it_is_written() -> None:
    text = OPTIONS.read_text()
    assert option_table.render(option_table.known(), text) == text


def test_a_release_that_brings_and_drops_options(tmp_path: Path) -> None:
    path = tmp_path / "options.py"
    path.write_text(OPTIONS.read_text())
    minor, before = newest() + 2, options(newest())
    gone = "--enable-eplb"
    changed = option_table.bring_up_to_date(path, minor, (before - {gone}) | {"--brought"})
    assert changed == ["+--brought", f"-{gone}"]
    module: dict[str, Any] = {}
    exec(path.read_text(), module)  # the written table, as a module
    assert module["newest"]() == minor
    assert module["options"](minor) == (before - {gone}) | {"--brought"}
    assert module["options"](minor - 1) == before
    for known in range(12, newest() + 1):
        assert module["options"](known) == options(known)
    assert f"to 0.{minor}, one release" in path.read_text()


def test_a_switch_is_written_once_where_it_has_all_its_forms() -> None:
    def folded(text: str, minor: int) -> set[str]:
        return set(option_table.folded(frozenset(text.split()), minor))

    assert folded("--a --no-a --enable-b --no-enable-b", 32) == {"--[no-]a", "--[no-]enable-b"}
    three = "--enable-b --no-enable-b --disable-b"
    assert folded(three, 33) == {"--[no-]enable-b"}
    assert folded(three, 32) == {"--[no-]enable-b", "--disable-b"}
    assert folded("--enable-b --no-enable-b", 33) == {"--enable-b", "--no-enable-b"}
    assert folded("--disable-b --no-disable-b --enable-b --c", 33) == {"--[no-]disable-b", "--c"}


def test_an_option_that_comes_back() -> None:
    one, both = frozenset(("-a",)), frozenset(("-a", "--b"))
    assert option_table.spans({12: both, 13: one, 14: both}) == {
        (12, 12): ["--b"],
        (12, None): ["-a"],
        (14, None): ["--b"],
    }


def test_which_releases_there_are() -> None:
    names = [
        "vllm-0.11.0.tar.gz",
        "vllm-0.15.1-cp38-abi3-manylinux_2_31_aarch64.whl",
        "vllm-0.15.1-cp38-abi3-manylinux_2_31_x86_64.whl",
        "vllm-0.33.0rc1.tar.gz",
        "vllm-0.9.2.tar.gz",
        "vllm-0.100.0.tar.gz",
        "vllm-0.20.1-1-cp38-abi3-manylinux_2_35_x86_64.whl",
        "vllm-0.20.1.tar.gz",
        "vllm-0.20.1-cp38-abi3-manylinux_2_35_x86_64.whl",
        "vllm-1.0.0.tar.gz",
    ]
    files = [{"filename": name} for name in names]
    files.append({"filename": "vllm-0.21.0.tar.gz", "yanked": "broken"})
    found = sources.releases(files)
    assert [(version, file["filename"]) for version, file in found.items()] == [
        ("0.15.1", "vllm-0.15.1-cp38-abi3-manylinux_2_31_x86_64.whl"),
        ("0.20.1", "vllm-0.20.1.tar.gz"),
        ("0.100.0", "vllm-0.100.0.tar.gz"),
        ("1.0.0", "vllm-1.0.0.tar.gz"),
    ]
