"""Text from others is shown so that no terminal and no log acts on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from eplb_launch import terminal
from eplb_launch.model import printable

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Starter

ODD = "\x1b]0;t\x07\r\n\u202e"
RULE = ("-dp", "8", "--enable-eplb", "--all2all-backend", "deepep_low_latency")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("a b é 日本 …", "a b é 日本 …"),
        ("VLLM::Worker", "VLLM::Worker"),
        ("##[", "#\\x23["),
        ("a ##[add-mask]b", "a #\\x23[add-mask]b"),
        ("::error::x", "\\x3a:error::x"),
        ("  ::error::x", "  \\x3a:error::x"),
        ("\n::error::x", "\\n\\x3a:error::x"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[0m\x07\x7f\x9b", "\\x1b[0m\\x07\\x7f\\x9b"),
        ("\u202ea\u2028b\ufeff", "\\u202ea\\u2028b\\ufeff"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_of_a_line_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "value",
    [
        {"a": ["b", 1, None, True, 0.5], "é": {"##[x": "##[y"}},
        ["\U0001f99c", "::x"],
    ],
)
def test_json_is_ascii_and_reads_back_the_same(value: object) -> None:
    text = terminal.json_text(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert "##[" not in text


def test_json_has_no_half_of_a_surrogate_pair() -> None:
    found = json.loads(terminal.json_text({"\udcff": ("\ud800", "a")}))
    assert found == {"\\udcff": ["\\ud800", "a"]}
    assert json.dumps(found).encode("utf-8")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["vllm", "serve", "m", *RULE, "--config", ODD], id="a file"),
        pytest.param(["vllm", "serve", "m", "-dp", ODD], id="a value"),
        pytest.param(["env", "NCCL_MAX_CTAS=9" + ODD, "vllm", "serve", "m", *RULE], id="variable"),
        pytest.param(["env", "VLLM_ALL2ALL_BACKEND=" + ODD, "vllm", "serve"], id="a setting"),
        pytest.param(["vllm", "serve", "m", "--all2all-backend", ODD * 99], id="a long setting"),
        pytest.param(["python3" + ODD, "-m", "vllm.entrypoints.openai.api_server"], id="program"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_explain_prints_no_control_characters(
    start: Starter, tmp_path: Path, words: list[str], options: list[str]
) -> None:
    # The name of a folder says which release is installed.
    packages = tmp_path / "lib" / "python3.12" / "site-packages"
    (packages / f"vllm-0.16.0{ODD}.dist-info".replace("/", "")).mkdir(parents=True)
    done = subprocess.run(
        [*start.forms["script"], "explain", *options, "--", *words],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages), "LANG": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode()
    assert all(line.isprintable() for line in text.split("\n"))
    assert done.stderr == b""
    if options:
        json.loads(text)
    else:
        assert text.count("]0;t") < 99  # text is cut at 200 characters, which is 20 of these


def test_a_name_that_is_not_utf_8_is_shown_in_each_style(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\n::x.sh"
    with open(name, "wb") as file:
        file.write(b"vllm serve m\n")
    for style in ("json", "sarif", "text", "github"):
        done = subprocess.run(
            [sys.executable, "-m", "eplb_launch", "check", "--format", style, tmp_path],
            capture_output=True,
            check=False,
        )
        text = done.stdout.decode("utf-8")
        assert all(line.isprintable() for line in text.split("\n"))
        if style in ("json", "sarif"):
            assert json.loads(text)
        if style == "text":
            assert not any(line.lstrip().startswith("::") for line in text.split("\n"))
