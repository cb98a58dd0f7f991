"""The grammar of vLLM's arguments, spelling by spelling."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest
from conftest import calls
from hypothesis import given
from hypothesis import strategies as st

from eplb_launch.model import UNKNOWN, Server
from eplb_launch.vllm.arguments import JSON, LIST, OPTIONS, VALUE, Reading, RefusedError, read
from eplb_launch.vllm.options import newest, options
from eplb_launch.vllm.releases import release_of


def reading(
    *words: str,
    release: str = "0.33.0",
    serve: bool = True,
    config: dict[Any, Any] | None = None,
) -> Reading:
    entry = "vllm serve" if serve else "vllm bench latency"
    server = Server(entry, words, range(2, len(words) + 2), {}, "vllm")
    return read(server, release_of(release), lambda _: config)


def given_by(*words: str, **options: Any) -> dict[str, Any]:
    """Return what is given, without the model."""
    given = reading(*words, **options).given
    return {name: entry.value for name, entry in given.items() if name != "model"}


READS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a value as the next word": (["-dp", "8"], {"data_parallel_size": "8"}),
    "a value after =": (["-dp=8"], {"data_parallel_size": "8"}),
    "the long name": (["--data-parallel-size", "8"], {"data_parallel_size": "8"}),
    "underscores": (["--data_parallel_size", "8"], {"data_parallel_size": "8"}),
    "underscores in part": (["--data_parallel-size=8"], {"data_parallel_size": "8"}),
    "an = in the value": (["--all2all-backend=a=b"], {"all2all_backend": "a=b"}),
    "an empty value": (["--all2all-backend="], {"all2all_backend": ""}),
    "an empty word as value": (["--all2all-backend", ""], {"all2all_backend": ""}),
    "underscores of a value stay": (["--moe-backend=a_b"], {"moe_backend": "a_b"}),
    "the last one wins": (["-dp", "8", "--data-parallel-size=2"], {"data_parallel_size": "2"}),
    "an abbreviation": (["--all2all", "x"], {"all2all_backend": "x"}),
    "an abbreviation with =": (["--eplb-c={}"], {"eplb_config": "{}"}),
    "an abbreviation with underscores": (["--all2all_b", "x"], {"all2all_backend": "x"}),
    "an abbreviated switch": (["--enable-epl"], {"enable_eplb": True}),
    "a switch": (["--enable_eplb"], {"enable_eplb": True}),
    "a switch turned off": (["--no-enable-eplb"], {"enable_eplb": False}),
    "on and off": (["--enable-eplb", "--no_enable_eplb"], {"enable_eplb": False}),
    "off and on": (["--disable-eplb", "--enable-eplb"], {"enable_eplb": True}),
    "a dotted option": (["--eplb-config.use_async", "true"], {"eplb_config": {"use_async": True}}),
    "a dotted option with =": (["--eplb-config.a=1"], {"eplb_config": {"a": 1}}),
    "dashes after the dot stay": (["--eplb_config.a-b=x"], {"eplb_config": {"a-b": "x"}}),
    "dotted options merge": (
        ["--eplb-config.a=1", "--eplb-config.b.c", "x", "--eplb-config.b.d=null"],
        {"eplb_config": {"a": 1, "b": {"c": "x", "d": None}}},
    ),
    "a dotted option replaces JSON before it": (
        ["--eplb-config", '{"a": 1}', "--eplb-config.b=2"],
        {"eplb_config": {"b": 2}},
    ),
    "a dotted option replaces JSON after it": (
        ["--eplb-config.b=2", "--eplb-config", '{"a": 1}'],
        {"eplb_config": {"b": 2}},
    ),
    "a dotted list": (
        ["--eplb-config.a+", "x,y", "--eplb-config.a+=z"],
        {"eplb_config": {"a": ["x", "y", "z"]}},
    ),
    "a dotted abbreviation": (["--eplb-con.a=1"], {"eplb_config": {"a": 1}}),
    "a dotted option takes an option as its value": (
        ["--eplb-config.a", "--enable-eplb", "-dp=2"],
        {"eplb_config": {"a": "--enable-eplb"}, "data_parallel_size": "2"},
    ),
    "an option after =": (["--api-key=--enable-eplb"], {}),
    "an option in JSON": (["--chat-template", '{"x": "--enable-eplb"}'], {}),
    "a value that begins like an option, with a space": (
        ["--all2all-backend", "--enable-eplb x"],
        {"all2all_backend": "--enable-eplb x"},
    ),
    "a word with a space is no option": (["--enable-eplb x"], {}),
    "a negative number is a value": (["-dp", "-1"], {"data_parallel_size": "-1"}),
    "a negative fraction is dotted": (["-dp", "2", "-0.5", "x"], {"data_parallel_size": "2"}),
    "a dash is a value": (["--all2all-backend", "-"], {"all2all_backend": "-"}),
    "after -- there is no option": (
        ["-dp", "2", "--", "--enable-eplb"],
        {"data_parallel_size": "2"},
    ),
    "keys for a switch": (["--enable-eplb.a=1"], {"enable_eplb": True}),
    "keys for a plain value": (
        ["--data-parallel-address.a=1"],
        {"data_parallel_address": '{"a": 1}'},
    ),
    "blanks after a dotted value": (["--eplb-config.a", "true "], {"eplb_config": {"a": True}}),
    "a dotted option without a name ends the options": (
        ["--.x=1", "--eplb-config.a=1"],
        {},
    ),
    "a dotted - is a word": (["-.x=1", "--eplb-config.a=1"], {"eplb_config": {"a": 1}}),
    "- with = is a word": (["-= ", "-dp=2"], {"data_parallel_size": "2"}),
    "and those before it are read": (
        ["--eplb-config.a=1", "--.x=1"],
        {"eplb_config": {"a": 1}},
    ),
    "dotted options stand after --": (["--eplb-config.a=1", "--", "m"], {}),
    "no abbreviation of -dp": (["-dpq", "8"], {}),
    "no -dp8": (["-dp8"], {}),
    "-O3 is taken apart": (
        ["-O3.5", "-dp", "2"],
        {"data_parallel_size": "2", "optimization_level": "3.5"},
    ),
    "several words": (
        ["--cudagraph-capture-sizes", "1", "2", "-dp=2"],
        {"cudagraph_capture_sizes": "1 2", "data_parallel_size": "2"},
    ),
    "an option that is not read": (["--port", "8000", "--seed=-1"], {}),
    "the longer option, not an abbreviation": (
        ["--data-parallel-size-local", "1"],
        {"data_parallel_size_local": "1"},
    ),
    "--model before": (["--model", "x", "-dp=2"], {"data_parallel_size": "2"}),
    "--model=": (["--model=x", "-dp=2"], {"data_parallel_size": "2"}),
}


@pytest.mark.parametrize(("words", "expected"), READS.values(), ids=READS)
def test_arguments_give_these_settings(words: list[str], expected: dict[str, Any]) -> None:
    model = [] if "--model" in words[0] else ["m"]
    assert given_by(*model, *words) == expected


REFUSED: dict[str, tuple[list[str], str]] = {
    "an ambiguous abbreviation": (["--data-parallel", "8"], "--data-parallel is ambiguous"),
    "ambiguous with an option that is not read": (["--enable-e"], "--enable-e is ambiguous"),
    "a short ambiguous one": (["-d", "8"], "-d is ambiguous"),
    "no value": (["-dp"], "-dp has no value"),
    "an option for a value": (["-dp", "--enable-eplb"], "-dp has no value"),
    "-- for a value": (["-dp", "--", "8"], "-dp has no value"),
    "a value for a switch": (["--enable-eplb=true"], "--enable-eplb takes no value"),
    "a dotted option at the end": (["--eplb-config.a"], "a dotted option has no value"),
    "--config twice": (["--config", "a.yaml", "--config", "b.yaml"], "--config is given twice"),
    "--config at the end": (["--config"], "--config has no file"),
    "--config of another kind": (["--config", "a.json"], "the --config file is not named .yaml"),
    "--model at the end": (["--model"], "--model has no value"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_vllm_refuses_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        reading("m", *words)


def test_an_abbreviation_is_unique_in_one_release_and_not_in_another() -> None:
    # --enable-ep-weight-filter came in 0.18, --enable-elastic-ep in 0.17.
    # --enable-elastic-ep came in 0.17, --enable-ep-weight-filter in 0.18.
    assert given_by("m", "--enable-ep", release="0.17.1") == {"enable_eplb": True}
    with pytest.raises(RefusedError, match="--enable-ep is ambiguous"):
        reading("m", "--enable-ep", release="0.18.1")
    assert given_by("m", "--enable-el", release="0.17.1") == {"enable_elastic_ep": True}
    assert given_by("m", "--enable-el", release="0.16.0") == {}


@pytest.mark.parametrize("name", OPTIONS)
def test_each_spelling_is_one_of_vllms_and_sets_what_it_names(name: str) -> None:
    setting, takes = OPTIONS[name]
    words = [name] if isinstance(takes, bool) else [name, "1"]
    releases = [minor for minor in range(12, newest() + 1) if name in options(minor)]
    assert releases
    for minor in releases:
        found = reading("m", *words, release=f"0.{minor}.0").given[setting]
        assert found.value == (takes if isinstance(takes, bool) else "1")
    if isinstance(takes, bool) and name.startswith("--"):
        assert takes is not name.startswith(("--no-", "--disable-"))


def test_each_value_says_where_it_came_from() -> None:
    sources = {
        name: entry.source
        for name, entry in reading(
            *("m", "-dp", "8", "--enable_eplb", "--eplb-config.use_async", "true"),
            *("--all2all-backend=x", "--config", "dir/serve.yaml"),
            config={"moe_backend": "triton"},
        ).given.items()
    }
    assert sources == {
        "model": "argument 2: model m",
        "data_parallel_size": "argument 3: -dp 8",
        "enable_eplb": "argument 5: --enable-eplb",
        "eplb_config": "argument 6: --eplb-config.use_async true",
        "all2all_backend": "argument 8: --all2all-backend=x",
        "moe_backend": "dir/serve.yaml: moe-backend",
    }


CONFIGS: dict[str, tuple[dict[Any, Any], dict[str, Any]]] = {
    "a number": ({"data-parallel-size": 8}, {"data_parallel_size": "8"}),
    "underscores": ({"data_parallel_size": 8}, {"data_parallel_size": "8"}),
    "true is the switch": ({"enable-eplb": True}, {"enable_eplb": True}),
    "false is nothing": ({"enable-eplb": False}, {}),
    "nothing is the text None": ({"all2all-backend": None}, {"all2all_backend": "None"}),
    "a list gives its first item": ({"all2all-backend": ["x", "y"]}, {"all2all_backend": "x"}),
    "an empty list is nothing": ({"all2all-backend": []}, {}),
    "a map is JSON": ({"eplb-config": {"use_async": True}}, {"eplb_config": '{"use_async": true}'}),
    "a dotted key": ({"eplb-config.a": "1"}, {"eplb_config": {"a": 1}}),
    "options that are not read": ({"port": 1, "x": [1, {"a": "--enable-eplb"}]}, {}),
}


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_file_gives_these_settings(
    config: dict[Any, Any], expected: dict[str, Any]
) -> None:
    assert given_by("m", "--config", "c.yaml", config=config) == expected


def test_the_command_line_wins_over_the_file_wherever_it_stands() -> None:
    config = {"data-parallel-size": 8, "all2all-backend": "x"}
    expected = {"data_parallel_size": "2", "all2all_backend": "x"}
    assert given_by("m", "-dp=2", "--config", "c.yml", config=config) == expected
    assert given_by("m", "--config", "c.yml", "-dp=2", config=config) == expected
    assert given_by("-dp=2", "--config", "c.yml", config=config, serve=False) == expected


def test_config_with_an_equals_sign_is_no_config_file() -> None:
    assert given_by("m", "--config=c.yaml", "-dp=2", config={"enable-eplb": True}) == {
        "data_parallel_size": "2"
    }


def test_a_true_dotted_key_takes_the_next_word() -> None:
    config = {"eplb-config.use_async": True}
    assert given_by("m", "-dp=2", "--config", "c.yaml", config=config) == {
        "eplb_config": {"use_async": "-dp=2"}
    }
    with pytest.raises(RefusedError, match="a dotted option has no value"):
        reading("m", "--config", "c.yaml", config=config)


def test_a_map_in_the_file_is_json_from_0_16() -> None:
    config = {"eplb-config": {"use_async": True}}
    for release, is_json in (("0.15.1", False), ("0.16.0", True)):
        value = given_by("m", "--config", "c.yaml", config=config, release=release)["eplb_config"]
        try:
            assert json.loads(value) == {"use_async": True}
            assert is_json
        except json.JSONDecodeError:
            assert not is_json


def test_an_empty_map_in_the_file_is_json_in_every_release() -> None:
    for release in ("0.12.0", "0.16.0"):
        found = given_by("m", "--config", "c.yaml", config={"eplb-config": {}}, release=release)
        assert found == {"eplb_config": "{}"}


@pytest.mark.parametrize("config", [{1: "x"}, {None: True}, {("a",): 1}], ids=repr)
def test_a_file_with_keys_that_are_no_strings_is_refused(config: dict[Any, Any]) -> None:
    with pytest.raises(RefusedError, match="not a string"):
        reading("m", "--config", "c.yaml", config=config)


def test_a_file_needs_a_model_from_somewhere() -> None:
    with pytest.raises(RefusedError, match="no model is given"):
        reading("-dp=2", "--config", "c.yaml", config={})
    assert given_by("-dp=2", "--config", "c.yaml", config={"model": "m"}) == {
        "data_parallel_size": "2"
    }


def test_an_empty_model_is_one_up_to_0_16() -> None:
    words = ("--config", "c.yaml", "--model=", "-dp=2")
    assert given_by(*words, config={}, release="0.16.0") == {"data_parallel_size": "2"}
    with pytest.raises(RefusedError, match="no model is given"):
        reading(*words, config={}, release="0.17.1")


def test_endless_aliases_in_a_file_cost_nothing() -> None:
    bomb: Any = ["x"]
    for _ in range(64):
        bomb = [bomb, bomb]
    config = {"xyz": bomb, "eplb-config": {"b": bomb, "use_async": True}}
    assert given_by("m", "--config", "c.yaml", config=config) == {
        "eplb_config": '{"b": [], "use_async": true}'
    }


def test_a_value_that_is_not_known_is_kept_and_an_unknown_option_makes_it_incomplete() -> None:
    read_in = reading("m", f"-dp={UNKNOWN}", "--eplb-config.a", UNKNOWN)
    assert read_in.given["data_parallel_size"].value == UNKNOWN
    assert read_in.given["data_parallel_size"].source == "argument 3: -dp=…"
    assert read_in.given["eplb_config"].value == {"a": UNKNOWN}
    assert read_in.complete
    assert not reading("m", f"--{UNKNOWN}").complete
    assert not reading("m", "--config", "c.yaml", config=None).complete


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("1k", "1k", 1000),
        ("1K", "1K", 1024),
        ("0k", "0k", 0),
        ("2.5m", "2.5m", 2_500_000),
        ("2.5M", "2.5M", "2.5M"),
        ("01", "01", 1),
        ("+1", "+1", 1),
        ("1_0", "1_0", 10),
        ("k", "k", "k"),
        ("t", "t", "t"),
        ("1.k", "1.k", "1.k"),
        ("", "", ""),
        ("-", "-", "-"),
    ],
)
def test_a_number_with_a_suffix_is_one_from_0_20(text: str, old: object, new: object) -> None:
    for release, value in (("0.19.1", old), ("0.20.2", new)):
        found = given_by("m", f"--eplb-config.a={text}", release=release)["eplb_config"]["a"]
        assert (found, type(found)) == (value, type(value))


# Dotted values that are read without json have the value that json gives.
@given(
    st.one_of(
        st.text(max_size=12),
        st.integers().map(str),
        st.floats().map(str),
        st.tuples(
            st.text(" \t\n\xa0", max_size=1),
            st.sampled_from(["true", "false", "null", "NaN", "Infinity", "1", "a"]),
            st.text(" \t\n\xa0", max_size=2),
        ).map("".join),
    )
)
def test_a_dotted_value_is_json_or_text(text: str) -> None:
    found = given_by("m", f"--eplb-config.a={text}", release="0.16.0")["eplb_config"]["a"]
    try:
        expected = json.loads(text)
    except json.JSONDecodeError:
        expected = text
    assert repr(found) == repr(expected)


def argparse_parser(release: str) -> argparse.ArgumentParser:
    """Return a real parser with the options of a release."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise RefusedError(message)

    parser = Parser(add_help=False)
    parser.add_argument("model_tag", nargs="?")
    for name in sorted(options(int(release.split(".")[1]))):
        setting, takes = OPTIONS.get(name, (None, VALUE))
        if setting is None:
            parser.add_argument(name, dest="_" + name, nargs="*")
        elif takes in (VALUE, JSON):
            parser.add_argument(name, dest=setting)
        elif takes is LIST:
            parser.add_argument(name, dest=setting, nargs="+")
        else:
            parser.add_argument(name, dest=setting, action="store_const", const=takes)
    return parser


PARSERS = {release: argparse_parser(release) for release in ("0.12.0", "0.18.1", "0.33.0")}
NAMES = sorted(options(33))
WORD = st.one_of(
    st.sampled_from(sorted(OPTIONS)),
    st.sampled_from(NAMES),
    st.builds(
        lambda name, n: name[: max(2, len(name) - n)],
        st.sampled_from(sorted(OPTIONS)),
        st.integers(0, 9),
    ),
    st.builds(
        lambda name, value: f"{name}={value}",
        st.sampled_from(sorted(OPTIONS)),
        st.sampled_from(["", "8", "x y", "-1", "--enable-eplb"]),
    ),
    st.sampled_from(
        ["8", "x", "", "-", "--", "-1", "-1e5", "a b", "--a b", "-x", "--data-parallel-size x"]
    ),
)


@given(st.lists(WORD, max_size=8), st.sampled_from(sorted(PARSERS)))
def test_options_are_read_as_argparse_reads_them(words: list[str], release: str) -> None:
    if any(word == "--config" or word.startswith(("--model", "-O")) for word in words):
        return  # not argparse's, tested above
    others = OPTIONS.keys() - options(int(release.split(".")[1]))
    if any(word.partition("=")[0] in others for word in words):
        return  # vLLM refuses options of other releases
    try:
        namespace, _ = PARSERS[release].parse_known_args(words)
        expected = {
            name: " ".join(value) if isinstance(value, list) else value
            for name, value in vars(namespace).items()
            if value is not None and name in {setting for setting, _ in OPTIONS.values()}
        }
    except RefusedError:
        return  # any reading is as good as another; it must only not crash
    finally:
        try:
            found: dict[str, Any] | None = given_by("m", *words, release=release)
        except RefusedError:
            found = None
    assert found == expected


@given(st.lists(st.text(max_size=6), max_size=8), st.sampled_from(["0.12.0", "0.33.0"]))
def test_any_words_are_read_or_refused(words: list[str], release: str) -> None:
    try:
        reading(*words, release=release)
    except RefusedError as error:
        assert str(error)


@given(
    st.lists(
        st.sampled_from([*sorted(OPTIONS), "8", "m", "--eplb-config.a", "--x.y+", "=", "--config"]),
        max_size=9,
    )
)
def test_any_mix_of_the_options_is_read_or_refused(words: list[str]) -> None:
    try:
        reading(*words, config={"enable-eplb": True, "eplb-config.a": 1})
    except RefusedError as error:
        assert str(error)


@pytest.mark.parametrize("shape", ["--enable_x{0}", "--x-{0}=1", "--e{0}", "--eplb-config.k{0}=1"])
def test_many_words_are_bounded_work(shape: str) -> None:
    words = [shape.format(number) for number in range(100_000)]
    assert calls(reading, "m", *words) < 10_000_000
