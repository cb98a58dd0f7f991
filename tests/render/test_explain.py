"""`eplb-launch explain`: its table and its JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from eplb_launch import __version__
from eplb_launch.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
EXPOSED = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
]
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


def explain(*words: str, **environ: str) -> Result:
    """Run the sub-command in this process, in an empty environment."""
    options, command = list(words), []
    if "--" in words:
        options, command = options[: words.index("--")], options[words.index("--") + 1 :]
    nothing = dict.fromkeys(os.environ)
    return CliRunner().invoke(
        app, ["explain", *options], obj=command, env={**nothing, **ENVIRON, **environ}
    )


def as_json(*words: str, **environ: str) -> dict[str, Any]:
    done = explain("--json", *words, **environ)
    assert (done.exit_code, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def keys(value: Any) -> Any:
    """Return the keys of nested maps, and of the first item of each list."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return None


def test_the_json_of_a_server_has_the_documented_keys() -> None:
    command = ["numactl", *EXPOSED, "--nnodes", "2"]
    found = as_json("--vllm-version", "0.16.0", "--", *command, NCCL_MAX_CTAS="0x8")
    advice = [dict.fromkeys(("code", "message", "remedy", "source"))]
    assert keys({**found, "warnings": [], "notes": []}) == {
        "schema": None,
        "launcher": None,
        "set": {"NCCL_MAX_CTAS": None},
        "needed": None,
        "reason": None,
        "assessment": {
            **dict.fromkeys(("state", "cause", "reason", "value", "by", "settles")),
            "unread": [],
        },
        "server": dict.fromkeys(("entry", "program", "prefixes", "script", "elsewhere", "complete"))
        | {"prefixes": [None]},
        "release": dict.fromkeys(("version", "source", "own_rule")),
        "settings": [dict.fromkeys(("name", "value", "known", "source", "given"))],
        "rules": [
            {
                **dict.fromkeys(("name", "hazard", "source", "holds")),
                "conditions": [dict.fromkeys(("text", "holds", "setting"))],
            }
        ],
        "current": dict.fromkeys(("value", "outcome")),
        "ctas": None,
        "beside_deepep": [
            {
                **dict.fromkeys(("gpu", "sms", "experts", "dispatch", "combine", "left", "fits")),
                **dict.fromkeys(("safe",)),
                "not_beside": {"padded": [], "ranges": [[None]]},
                "remedies": [None],
            }
        ],
        "warnings": [],
        "notes": [],
    }
    assert [row["fits"] for row in found["beside_deepep"]] == [4, 2, 2, 4, 8]
    assert keys(found["warnings"]) == keys(found["notes"]) == advice
    assert found["ctas"] == 8
    assert found["schema"] == 1
    assert found["launcher"] == __version__
    assert found["set"] == {"NCCL_MAX_CTAS": "8"}
    assert found["needed"] is True
    assert found["assessment"] == {
        "state": "capped",
        "cause": "eplb-launch",
        "reason": f"eplb-launch sets NCCL_MAX_CTAS=8: {found['reason']}",
        "value": "8",
        "by": "eplb-launch",
        "unread": [],
        "settles": "",
    }
    assert found["server"]["entry"] == "vllm serve"
    assert found["server"]["prefixes"] == ["numactl"]
    assert found["release"] == {"version": "0.16.0", "source": "given", "own_rule": False}
    assert found["current"]["value"] == "0x8"
    settings = {setting["name"]: setting for setting in found["settings"]}
    assert settings["data_parallel_size"] == {
        "name": "data_parallel_size",
        "value": 8,
        "known": True,
        "source": "argument 4: -dp 8",
        "given": True,
    }
    assert settings["moe_backend"]["source"] == "default of vLLM 0.16.0"
    assert [rule["name"] for rule in found["rules"]] == ["deepep_low_latency"]


def test_the_json_of_no_server_has_empty_lists() -> None:
    found = as_json("--", "echo", "x")
    assert found["server"] is None
    assert found["set"] == {}
    assert found["needed"] is False
    assert found["settings"] == found["rules"] == []
    assert [warning["code"] for warning in found["warnings"]] == ["no-server"]


@pytest.mark.parametrize("command", [["echo", "x"], ["./start.sh"], ["bash", "-c", "echo x"]])
def test_no_server_is_a_warning(command: list[str]) -> None:
    text = " ".join(explain("--", *command).stdout.split())
    assert "no-server: no vLLM server seen in the command; nothing set" in text
    assert "put eplb-launch in front of `vllm serve` itself" in text


@pytest.mark.parametrize("command", [["vllm", "bench", "serve"], ["nice", "vllm", "--help"]])
def test_a_vllm_command_without_an_engine_has_no_server(command: list[str]) -> None:
    found = as_json("--", *command)
    assert (found["server"], found["warnings"]) == (None, [])


@pytest.mark.parametrize(
    ("version", "own_rule"), [("0.16.0", False), ("0.17.0", True), ("0.33.0", True)]
)
def test_whether_vllm_limits_nccl_itself(version: str, own_rule: bool) -> None:
    assert as_json("--vllm-version", version, "--", *EXPOSED)["release"]["own_rule"] is own_rule
    text = explain("--vllm-version", version, "--", *EXPOSED).stdout
    assert ("its workers also set the cap" in text) is own_rule


def test_an_unknown_setting_is_unknown_in_the_table_and_in_json() -> None:
    command = ["sh", "-c", "exec vllm serve m -dp $((N * 8)) --enable-eplb"]
    found = as_json("--vllm-version", "0.16.0", "--", *command)
    settings = {setting["name"]: setting for setting in found["settings"]}
    assert settings["data_parallel_size"]["known"] is False
    assert settings["data_parallel_size"]["value"] is None
    (rule,) = found["rules"]
    assert [condition["holds"] for condition in rule["conditions"]] == [None, True, False, False]
    assert (found["needed"], rule["holds"]) == (False, False)
    text = explain("--vllm-version", "0.16.0", "--", *command).stdout
    assert "unknown  data_parallel_size > 1" in text


def test_an_unknown_release_has_an_unknown_own_rule() -> None:
    assert as_json("--", *EXPOSED)["release"] == {
        "version": None,
        "source": "vllm is not found",
        "own_rule": None,
    }


COMMANDS = {
    "exposed": EXPOSED,
    "not exposed": [*EXPOSED, "--no-enable-eplb"],
    "refused": [*EXPOSED, "--data-parallel", "x"],
    "no server": ["echo"],
    "a shell": [
        "bash",
        "-c",
        "cd /x && exec numactl -N 0 vllm serve $M --data-parallel-size $((N*8))",
    ],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_table_fits_and_is_plain_when_piped(command: list[str], columns: int) -> None:
    done = explain("--vllm-version", "0.23.0", "--", *command, COLUMNS=str(columns))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert done.stdout.splitlines()[0].startswith(
        ("NCCL_MAX_CTAS=8 will be set", "Nothing will be set")
    )


def test_the_table_says_all_that_the_json_says() -> None:
    words = ["--vllm-version", "0.23.0", "--", *EXPOSED]
    found = as_json(*words)
    text = " ".join(explain(*words, COLUMNS="500").stdout.split())
    for setting in found["settings"]:
        assert setting["name"] in text
        assert setting["source"] in text
    for rule in found["rules"]:
        assert rule["hazard"] in text
        for condition in rule["conditions"]:
            assert condition["text"] in text
    assert found["reason"] in text


def in_a_terminal(*words: str, **environ: str) -> str:
    """Run in a pseudo-terminal and return what it showed."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, *words], stdin=child, stdout=child, stderr=child, env={**ENVIRON, **environ}
    )
    os.close(child)
    shown = b""
    try:
        while piece := os.read(parent, 65536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    os.close(parent)
    assert process.wait(timeout=300) == 0
    return shown.decode()


def test_colour_is_for_terminals_that_want_it() -> None:
    words = ["explain", "--vllm-version", "0.16.0", "--", *EXPOSED]
    assert "\x1b[1m" in in_a_terminal(*words, TERM="xterm-256color")
    assert "\x1b[3" not in in_a_terminal(*words, TERM="xterm-256color", NO_COLOR="1")
    assert "\x1b" not in in_a_terminal(*words, TERM="dumb")


def test_explain_starts_nothing(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    for command in ("explain", "env"):
        subprocess.run(
            [SCRIPT, command, "--", *EXPOSED],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            check=True,
            capture_output=True,
        )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", [[], ["--"], ["--json"], ["--json", "--"]])
def test_without_a_command_it_is_a_usage_error(words: list[str]) -> None:
    done = explain(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "There is no command to look at. The right form is: " in done.stderr


def test_the_option_may_stand_before_the_sub_command() -> None:
    done = subprocess.run(
        [SCRIPT, "--vllm-version", "0.16.0", "explain", "--json", "--", *EXPOSED],
        env=ENVIRON,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["release"]["version"] == "0.16.0"


def test_no_secret_is_shown() -> None:
    command = [*EXPOSED, "--api-key", "s3cr3t", "--hf-token=s3cr3t"]
    assert "s3cr3t" not in explain("--", *command).stdout
    assert "s3cr3t" not in explain("--json", "--", *command).stdout


def test_explain_works_in_an_encoding_without_its_signs() -> None:
    done = subprocess.run(
        [SCRIPT, "explain", "--vllm-version", "0.16.0", "--", *EXPOSED],
        env={**ENVIRON, "PYTHONIOENCODING": "ascii", "NCCL_MIN_NCHANNELS": "16"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "? unset it there" in done.stdout


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [SCRIPT, "explain", "--json", "--", *EXPOSED],
            env=ENVIRON,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (125, "eplb-launch: No space left on device\n")


def test_the_cap_may_stand_after_the_sub_command() -> None:
    words = ["--vllm-version", "0.16.0", "--max-ctas", "4", "--", *EXPOSED]
    assert as_json(*words)["set"] == {"NCCL_MAX_CTAS": "4"}
