"""The Plan: what it sets and says, what is unknown, and its warnings."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eplb_launch
from eplb_launch import Plan, plan

if TYPE_CHECKING:
    from pathlib import Path

EXPOSED = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
]


def test_an_exposed_server_gets_the_cap() -> None:
    decided = plan(EXPOSED, {"NCCL_MAX_CTAS": "x"}, vllm_version="0.16.0")
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    assert decided.command == tuple(EXPOSED)
    assert (decided.vllm_version, decided.vllm_source) == ("0.16.0", "given")
    assert decided.current == "x"
    assert decided.warnings == ()
    assert decided.reason == (
        "async EPLB with DeepEP low-latency (data_parallel_size=8, vLLM 0.16.0)"
    )
    result = decided.decisive
    assert result is not None
    assert result.holds is True
    assert [(c.text, c.holds, c.setting) for c in result.conditions] == [
        ("data_parallel_size > 1", True, "data_parallel_size"),
        ("enable_eplb", True, "enable_eplb"),
        ("eplb_config.use_async", True, "use_async"),
        ('all2all_backend == "deepep_low_latency"', True, "all2all_backend"),
    ]
    assert {name: (s.value, s.source, s.given) for name, s in decided.settings.items()} == {
        "data_parallel_size": (8, "argument 3: -dp 8", True),
        "enable_eplb": (True, "argument 6: --enable-eplb", True),
        "use_async": (True, "argument 9: --eplb-config.use_async true", True),
        "all2all_backend": (
            "deepep_low_latency",
            "argument 7: --all2all-backend deepep_low_latency",
            True,
        ),
        "communicator": ("torch_nccl", "default of vLLM 0.16.0", False),
        "moe_backend": ("auto", "default of vLLM 0.16.0", False),
        "enable_elastic_ep": (False, "default of vLLM 0.16.0", False),
        "nixl": (None, "vllm is not found", True),
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            ["-dp", "1"],
            "data_parallel_size > 1 does not hold (data_parallel_size=1, argument 11: -dp 1)",
        ),
        (
            ["--no-enable-eplb"],
            "enable_eplb does not hold (enable_eplb=False, argument 11: --no-enable-eplb)",
        ),
    ],
)
def test_the_reason_says_why_nothing_is_set(change: list[str], reason: str) -> None:
    decided = plan([*EXPOSED, *change], {}, vllm_version="0.16.0")
    assert decided.environment == {}
    assert decided.reason == reason
    assert decided.decisive is None


def test_a_condition_that_all_rules_lack_is_named_once() -> None:
    decided = plan(["vllm", "serve", "m", "-dp", "2"], {})
    assert decided.reason == "enable_eplb does not hold (enable_eplb=False, default)"


def test_rules_that_lack_different_conditions_are_named() -> None:
    command = ["vllm", "serve", "m", "-dp", "2", "--enable-eplb"]
    decided = plan([*command, "--all2all-backend", "pplx", "--moe-backend", "auto"], {})
    assert decided.reason.startswith("no async EPLB with DeepEP low-latency: ")
    assert "; no EPLB over NCCL with DeepGEMM mega MoE: " in decided.reason


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", ""),
        (" --port $PORT", ""),  # one word, and the value of another option
        (" $EMPTY", ""),
        (" $(more)", "; $(more …) not known, and a later word could undo it"),
    ],
)
def test_the_reason_says_that_unknown_words_could_undo_the_known_ones(more: str, said: str) -> None:
    script = f"vllm serve {shlex.join(EXPOSED[2:])}{more}"
    decided = plan(["bash", "-c", script], {"PORT": "1"}, vllm_version="0.16.0")
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    assert decided.reason.partition(")")[2] == said


def test_a_release_without_async_eplb_needs_nothing() -> None:
    decided = plan(EXPOSED, {}, vllm_version="0.11.2")
    assert (decided.environment, decided.reason) == ({}, "vLLM 0.11.2 has no async EPLB")


def test_a_number_in_the_environment_stays() -> None:
    decided = plan(EXPOSED, {"NCCL_MAX_CTAS": "4"}, vllm_version="0.16.0")
    assert decided.environment == {}
    assert decided.reason.startswith("NCCL_MAX_CTAS is set already (async EPLB with")


@pytest.mark.parametrize("command", [[], ["true"], ["python3", "train.py"], [""], ["./start.sh"]])
def test_a_command_without_a_server_is_a_warning(command: list[str]) -> None:
    decided = plan(command, {})
    assert decided.server is None
    assert decided.environment == {}
    assert decided.reason == "no vLLM server seen in the command"
    (warning,) = decided.warnings
    assert warning.code == "no-server"
    assert warning.message == "no vLLM server seen in the command; nothing set"
    assert warning.remedy == "put eplb-launch in front of `vllm serve` itself"


@pytest.mark.parametrize("command", [["vllm"], ["vllm", "bench", "serve"], ["nice", "vllm", "-v"]])
def test_a_vllm_command_without_an_engine_needs_nothing(command: list[str]) -> None:
    decided = plan(command, {})
    assert decided.server is None
    assert decided.environment == {}
    assert decided.reason == "the vLLM command starts no engine"
    assert decided.warnings == ()


UNKNOWN = {
    "one condition": ("-dp $((N * 8))", "data_parallel_size > 1"),
    "another": ("-dp 8 --all2all-backend $(pick)", 'all2all_backend == "deepep_low_latency"'),
    "JSON in part": (
        "-dp 8 --eplb-config '{\"use_async\": '$(flag)'}'",
        "eplb_config.use_async",
    ),
    "JSON as a whole": ("-dp 8 --eplb-config $(config)", "eplb_config.use_async"),
}


@pytest.mark.parametrize(("arguments", "doubt"), UNKNOWN.values(), ids=UNKNOWN)
def test_the_cap_is_set_if_a_rule_may_hold(arguments: str, doubt: str) -> None:
    script = (
        "exec vllm serve m -ep --enable-eplb --all2all-backend deepep_low_latency "
        f"--eplb-config '{{\"use_async\": true}}' {arguments}"
    )
    decided = plan(["bash", "-c", script], {}, vllm_version="0.16.0")
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    assert decided.reason.endswith(f"; cannot be ruled out: {doubt}")
    result = decided.decisive
    assert result is not None
    assert result.holds is None


def test_a_rule_with_a_false_condition_does_not_hold() -> None:
    script = "exec vllm serve m -dp $((N * 8)) -ep --all2all-backend deepep_low_latency"
    decided = plan(["bash", "-c", script], {}, vllm_version="0.16.0")
    assert decided.environment == {}
    assert decided.decisive is None


def test_unknown_arguments_may_be_any_option() -> None:
    script = "exec vllm serve m $(cat flags)"
    assert plan(["bash", "-c", script], {}, vllm_version="0.16.0").environment
    script = "exec vllm serve m -dp 1 $(cat flags)"
    assert not plan(["bash", "-c", script], {}, vllm_version="0.16.0").environment


def test_a_command_that_runs_elsewhere_has_a_release_that_is_not_known() -> None:
    command = ["docker", "run", "--gpus", "all", "image", *EXPOSED]
    decided = plan(command, {"PATH": os.environ["PATH"]})
    assert decided.vllm_version is None
    assert "docker" in decided.vllm_source
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}


def test_a_variable_that_env_sets_counts() -> None:
    prefix = ["env", "NCCL_MAX_CTAS=4", "VLLM_DP_SIZE=8"]
    decided = plan([*prefix, *EXPOSED[:3], *EXPOSED[5:]], {}, vllm_version="0.16.0")
    assert decided.settings["data_parallel_size"].value == 8
    assert decided.current == "4"
    assert decided.environment == {}


INVALID = "the --config file is not valid YAML, or nested too deeply"
TROUBLE = {
    "no file": ("", f"the --config file is unreadable: {os.strerror(errno.ENOENT)}"),
    "no YAML": ("a: b: c\n", f"{INVALID}, at line 1"),
    "a list": ("- a\n", "the --config file is not a YAML map"),
    "no boolean": ("a: !!bool x\n", INVALID),
    "no date": ("a: !!timestamp x\n", INVALID),
    "no number": ("a: !!int ''\n", INVALID),
    "too large a number": (
        "a: !!float 99" + ":1" * 200 + "\n",
        "the --config file is not valid YAML: a value is too long",
    ),
    "empty": (" ", "the --config file is not a YAML map"),
    "a tag": ("a: !!python/object:os.system {}\n", f"{INVALID}, at line 1"),
    "deep": ("[" * 20000, INVALID),
    "many keys": (
        "".join(f"k{i}: 1\n" for i in range(5000)),
        "the --config file is larger than 4000 keys and values",
    ),
    "a number to the base of 60": (
        f"a: {':'.join(['1'] * 60_000)}\n",
        "the --config file is not valid YAML: a value is too long",
    ),
    "huge": ("# x\n" * 100_000, "the --config file is larger than 128 KiB"),
    "a bad size": ("data-parallel-size: 8.5\n", "--data-parallel-size is not an integer"),
    "a bad boolean": (
        "eplb-config: {use_async: maybe}\n",
        "--eplb-config: use_async is not a boolean",
    ),
}


@pytest.mark.parametrize(("text", "message"), TROUBLE.values(), ids=TROUBLE)
def test_a_config_file_that_cannot_be_read_is_a_warning(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "serve.yaml"
    if text:
        path.write_text(text)
    decided = plan(["vllm", "serve", "m", "--config", str(path)], {}, vllm_version="0.16.0")
    assert decided.environment == {}
    (warning,) = decided.warnings
    code = "config-unreadable" if "file" in message else "arguments-refused"
    assert (warning.code, warning.message) == (code, message)
    assert warning.remedy


@pytest.mark.parametrize(
    "content", [b"\x00\x01\x02\xff" * 100, b"\xff\xfea\x00", os.urandom(4096)], ids=len
)
def test_a_binary_config_file_is_a_warning(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "serve.yaml"
    path.write_bytes(content)
    decided = plan(["vllm", "serve", "m", "--config", str(path)], {}, vllm_version="0.16.0")
    assert [warning.code for warning in decided.warnings] == ["config-unreadable"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_config_file_that_is_not_a_file_does_not_block(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "serve.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    decided = plan(["vllm", "serve", "m", "--config", str(path)], {}, vllm_version="0.16.0")
    assert [warning.message for warning in decided.warnings] == [
        "the --config file is not a regular file"
    ]


JSON_TROUBLE = {
    "no JSON": ("{use_async: true}", "--eplb-config is not a JSON object"),
    "empty": ("", "--eplb-config is not a JSON object"),
    "a list": ("[]", "--eplb-config is not a JSON object"),
    "null": ("null", "--eplb-config is not a JSON object"),
    "deep": ("[" * 200_000, "--eplb-config is not a JSON object"),
    "deep maps": ('{"a":' * 200_000, "--eplb-config is not a JSON object"),
    "a huge number": ('{"use_async": ' + "9" * 10_000 + "}", "--eplb-config is not a JSON object"),
    "a bad boolean": ('{"use_async": "maybe"}', "--eplb-config: use_async is not a boolean"),
    "no boolean": ('{"use_async": [true]}', "--eplb-config: use_async is not a boolean"),
    "null for a boolean": ('{"use_async": null}', "--eplb-config: use_async is not a boolean"),
}


@pytest.mark.parametrize(("text", "message"), JSON_TROUBLE.values(), ids=JSON_TROUBLE)
@pytest.mark.parametrize("version", ["0.16.0", "0.23.0"])
def test_json_that_cannot_be_read_is_a_warning(text: str, message: str, version: str) -> None:
    decided = plan(["vllm", "serve", "m", "--eplb-config", text], {}, vllm_version=version)
    assert decided.environment == {}
    assert [(w.code, w.message) for w in decided.warnings] == [("arguments-refused", message)]


BOOLEANS: dict[str, Any] = {
    **dict.fromkeys(["true", "1", "1.0", '"true"', '"TRUE"', '"Yes"', '"on"', '"t"', '"Y"'], True),
    **dict.fromkeys(["false", "0", "0.0", '"false"', '"No"', '"OFF"', '"f"', '"n"', '"0"'], False),
    **dict.fromkeys(["2", "-1", '"2"', '" true"', '"truee"', '""', "0.5", "{}", "null"], None),
}


@pytest.mark.parametrize(("text", "value"), BOOLEANS.items())
def test_booleans_are_spelled_as_pydantic_takes_them(text: str, value: bool | None) -> None:
    words = ["vllm", "serve", "m", "--eplb-config", f'{{"use_async": {text}}}']
    decided = plan(words, {}, vllm_version="0.16.0")
    found = decided.settings["use_async"].value if decided.settings else None
    assert found is value


SIZES: dict[str, int | None] = {
    "8": 8,
    "+8": 8,
    " 8 ": 8,
    "1_6": 16,
    "08": 8,
    "\u0668": 8,
    **dict.fromkeys(["8.0", "0x8", "", "eight", "8k", "1__6", "\u00b2"], None),
}


@pytest.mark.parametrize(("text", "value"), SIZES.items())
def test_sizes_are_spelled_as_int_takes_them(text: str, value: int | None) -> None:
    decided = plan(["vllm", "serve", "m", f"-dp={text}"], {}, vllm_version="0.16.0")
    found = decided.settings["data_parallel_size"].value if decided.settings else None
    assert found == value


KERNELS: dict[str, tuple[list[str], str]] = {
    "the option": (["--moe-backend=deep_gemm_mega_moe"], "deep_gemm_mega_moe"),
    "dashes and capitals": (["--moe-backend", "DEEP-GEMM-Mega-Moe"], "deep_gemm_mega_moe"),
    "the kernel config": (["--kernel-config", '{"moe_backend": "Deep-Gemm"}'], "deep_gemm"),
    "dotted": (["--kernel-config.moe_backend", "triton"], "triton"),
    "the option wins": (["--moe-backend=a", "--kernel-config.moe_backend=b"], "a"),
    "unless it says auto": (["--moe-backend=auto", "--kernel-config.moe_backend=b"], "b"),
    "no such key": (["--moe-backend=auto", "--kernel-config.x=b"], "auto"),
}


@pytest.mark.parametrize(("words", "backend"), KERNELS.values(), ids=KERNELS)
def test_the_moe_backend_is_read_in_each_spelling(words: list[str], backend: str) -> None:
    decided = plan(["vllm", "serve", "m", *words], {}, vllm_version="0.23.0")
    assert decided.settings["moe_backend"].value == backend


def test_a_relative_config_file_is_read_where_the_server_runs(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("data-parallel-size: 8\n")
    command = ["env", "-C", str(tmp_path), "vllm", "serve", "m", "--config", "serve.yaml"]
    decided = plan(command, {}, vllm_version="0.16.0")
    setting = decided.settings["data_parallel_size"]
    assert (setting.value, setting.source) == (8, "serve.yaml: data-parallel-size")


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "words",
    [
        ["--api-key", SECRET],
        [f"--api-key={SECRET}", "-dp", SECRET],
        ["--hf-token", SECRET, "--eplb-config", f'{{"{SECRET}'],
        ["--hf-token", SECRET, "--config"],
        ["--api-key", SECRET, "--enable-eplb=" + SECRET],
    ],
)
def test_a_plan_shows_no_secret(words: list[str]) -> None:
    decided = plan([*EXPOSED, *words], {}, vllm_version="0.16.0")
    seen = [decided.reason, *(w.message + w.remedy for w in decided.warnings)]
    seen += [f"{s.name} {s.value} {s.source}" for s in decided.settings.values()]
    assert SECRET not in " ".join(seen)


def test_a_plan_is_frozen_and_a_value() -> None:
    one, two = (plan(EXPOSED, {}, vllm_version="0.16.0") for _ in range(2))
    assert one == two
    assert one != plan(EXPOSED, {}, vllm_version="0.17.0")
    with pytest.raises(AttributeError):
        one.reason = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del one.reason
    one.environment["NCCL_MAX_CTAS"] = "9"
    assert one.environment == {"NCCL_MAX_CTAS": "8"}
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.replace(reason="x").reason == "x"
    assert repr(one).startswith("Plan(command=('vllm', 'serve', 'm'")
    with pytest.raises(TypeError):
        Plan()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        one.replace(no_such_field=1)


def test_the_plan_is_pure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_DP_SIZE", "8")
    monkeypatch.setattr("sys.argv", ["eplb-launch", "--", *EXPOSED])
    before = dict(os.environ)
    decided = plan(["vllm", "serve", "m"], {})
    assert decided.settings["data_parallel_size"].value == 1
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_the_public_names() -> None:
    for name in eplb_launch.__all__:
        assert getattr(eplb_launch, name) is not None
    assert callable(eplb_launch.plan)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eplb_launch.nothing


@given(
    st.lists(st.one_of(st.sampled_from(EXPOSED), st.text(max_size=8)), max_size=10),
    st.dictionaries(
        st.sampled_from(["NCCL_MAX_CTAS", "VLLM_DP_SIZE", "VLLM_ALL2ALL_BACKEND", "PATH"]),
        st.text(max_size=8),
    ),
    st.sampled_from([None, "0.11.0", "0.15.1", "0.23.0", "9.9"]),
)
def test_any_command_has_a_plan(
    words: list[str], environ: dict[str, str], version: str | None
) -> None:
    decided = plan(["vllm", "serve", *words], environ, vllm_version=version, nixl=False)
    assert decided.reason
    assert decided.environment in ({}, {"NCCL_MAX_CTAS": "8"})


SCRIPTS = {
    "one of two": "if c; then {0}; else vllm serve m; fi",
    "the first that execs": "[ -d / ] && exec {0}; exec vllm serve m",
    "by case": "case $X in a) {0};; *) vllm serve m;; esac",
    "side by side": "{0} & vllm serve m & wait",
    "one after the other": "{0}; vllm serve m",
    "words that cannot be read": 'source args.sh; vllm "${{args[@]}}"',
    "words of a file": "exec vllm $(cat args)",
}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("NCCL_MAX_CTAS=8 {0} & exec {0}", []),
        ("{0} & NCCL_MAX_CTAS=8 exec {0}", []),
        ("NCCL_MAX_CTAS=64 {0} & exec {0}", ["value-too-high"]),
        ("{0} & NCCL_MAX_CTAS=64 exec {0}", ["value-too-high"]),
    ],
)
def test_a_server_with_a_cap_of_its_own_does_not_hide_one_without(
    script: str, said: list[str]
) -> None:
    command = ["bash", "-c", script.format(shlex.join(EXPOSED))]
    decided = plan(command, {}, vllm_version="0.16.0")
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    assert [warning.code for warning in decided.warnings] == said
    command = ["bash", "-c", script.replace("exec {0}", "wait").format(shlex.join(EXPOSED))]
    alone = plan(command, {}, vllm_version="0.16.0")
    assert bool(alone.environment) is script.startswith("{0}")


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_every_server_that_a_script_may_start_counts(script: str) -> None:
    exposed = plan(["bash", "-c", script.format(shlex.join(EXPOSED))], {}, vllm_version="0.16.0")
    assert exposed.environment == {"NCCL_MAX_CTAS": "8"}
    if "{0}" in script:
        safe = plan(["bash", "-c", script.format("vllm serve x")], {}, vllm_version="0.16.0")
        assert safe.environment == {}


def test_each_dotted_key_says_where_it_came_from() -> None:
    command = [*EXPOSED, "--eplb-config.communicator", "pynccl"]
    decided = plan(command, {}, vllm_version="0.23.0")
    assert decided.settings["use_async"].source == "argument 9: --eplb-config.use_async true"
    assert decided.settings["communicator"].source == (
        "argument 11: --eplb-config.communicator pynccl"
    )


@pytest.mark.parametrize("version", ["sixteen", "", "v", "0.1.dev5"])
def test_a_version_that_is_no_release_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match=f"such as 0.16.0, not '{version}'"):
        plan(["vllm", "serve", "m"], {}, vllm_version=version)
    with pytest.raises(ValueError, match=f"such as 0.16.0, not '{version}'"):
        eplb_launch.run(["vllm", "serve", "m"], vllm_version=version)


@pytest.mark.parametrize("word", [1, b"serve", None, ["serve"]])
def test_a_word_that_is_not_a_string_is_refused(word: Any) -> None:
    with pytest.raises(TypeError, match=r"word 2 of the command is not a string: \w+"):
        plan(["vllm", word, "m"], {})
    with pytest.raises(TypeError, match=r"word 2 of the command is not a string: \w+"):
        eplb_launch.run(["vllm", word, "m"])


def test_the_names_of_the_package_are_the_public_ones() -> None:
    assert dir(eplb_launch) == sorted(eplb_launch.__all__)
    assert all(hasattr(eplb_launch, name) for name in eplb_launch.__all__)


@pytest.mark.parametrize("command", ["vllm serve m", b"vllm serve m"])
def test_a_command_that_is_one_string_is_refused(command: Any) -> None:
    with pytest.raises(TypeError, match="a sequence of words"):
        plan(command, {})
    with pytest.raises(TypeError, match="a sequence of words"):
        eplb_launch.run(command)
