"""The program of each format reads the output of `env` back."""

from __future__ import annotations

import ctypes
import glob
import io
import json
import os
import shlex
import subprocess
import sysconfig
from typing import TYPE_CHECKING, Any

import dotenv
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from eplb_launch.cli import app
from eplb_launch.render import env as export

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
EXPOSED = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
]
CAP = {"NCCL_MAX_CTAS": "8"}


def env(*words: str) -> Result:
    """Run the sub-command in this process, in an empty environment."""
    options, command = list(words), []
    if "--" in words:
        options, command = options[: words.index("--")], options[words.index("--") + 1 :]
    nothing = dict.fromkeys(os.environ)
    return CliRunner().invoke(
        app,
        ["env", "--vllm-version", "0.16.0", *options],
        obj=command,
        env={**nothing, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )


def of_shell(text: str) -> dict[str, str]:
    script = f"{text}\nenv -0"
    done = subprocess.run(["sh", "-c", script], env={}, capture_output=True, check=True)
    entries = (entry.partition("=") for entry in done.stdout.decode().split("\0")[:-1])
    return {
        name: value for name, _, value in entries if name not in ("PWD", "OLDPWD", "SHLVL", "_")
    }


def of_dotenv(text: str) -> dict[str, Any]:
    return dict(dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False))


def of_systemd(text: str) -> dict[str, str]:
    """Read Environment= with systemd's own function."""
    shared = glob.glob("/usr/lib/*/systemd/libsystemd-shared-*.so")
    core = glob.glob("/usr/lib/*/systemd/libsystemd-core-*.so")
    if not shared or not core:
        pytest.skip("systemd is not installed")
    ctypes.CDLL(shared[0], mode=ctypes.RTLD_GLOBAL)
    parse = ctypes.CDLL(core[0]).config_parse_environ
    string, number, pointer = ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p
    parse.argtypes = [
        pointer,
        string,
        number,
        string,
        number,
        string,
        number,
        string,
        pointer,
        pointer,
    ]
    words = pointer(None)
    lines = text.splitlines()
    assert lines[:1] in ([], ["[Service]"])
    for line in lines[1:]:
        name, _, value = line.partition("=")
        assert name == "Environment"
        status = parse(
            None,
            b"",
            1,
            b"Service",
            1,
            b"Environment",
            0,
            value.encode(),
            ctypes.addressof(words),
            None,
        )
        assert status >= 0
    result: dict[str, str] = {}
    array = ctypes.cast(words, ctypes.POINTER(ctypes.c_char_p))
    index = 0
    while words.value and (word := array[index]):
        name, _, value = word.decode().partition("=")
        result[name] = value
        index += 1
    return result


def of_kubernetes(text: str) -> dict[str, str]:
    container = {"name": "c", "image": "i", **yaml.safe_load(text)}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [container]},
    }
    kubernetes_validate.validate(pod, "1.29", strict=True)
    return {entry["name"]: entry["value"] for entry in container["env"]}


def of_docker(text: str) -> dict[str, str]:
    words = shlex.split(text)
    assert words[::2] == ["-e"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def of_plain(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def of_slurm(text: str) -> dict[str, str]:
    if not text:
        return {}
    (word,) = shlex.split(text)
    option, _, value = word.partition("=")
    first, *rest = value.split(",")
    assert (option, first) == ("--export", "ALL")
    return dict(entry.split("=", 1) for entry in rest)


def of_ray(text: str) -> dict[str, str]:
    return dict(json.loads(text)["env_vars"])


READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "shell": of_shell,
    "plain": of_plain,
    "dotenv": of_dotenv,
    "json": json.loads,
    "systemd": of_systemd,
    "kubernetes": of_kubernetes,
    "docker": of_docker,
    "ray": of_ray,
    "slurm": of_slurm,
}
# The output of each format without a variable.
EMPTY = {"json": "{}\n", "kubernetes": "env: []\n", "ray": '{"env_vars": {}}\n'}


def test_every_format_has_a_reader() -> None:
    assert set(READERS) == set(export.FORMATS)


@pytest.mark.parametrize("form", READERS)
def test_the_format_is_read_back(form: str) -> None:
    done = env("--format", form, "--", *EXPOSED)
    assert (done.exit_code, done.stderr) == (0, "")
    assert READERS[form](done.stdout) == CAP


@pytest.mark.parametrize("form", READERS)
def test_without_a_variable_the_reader_reads_none(form: str) -> None:
    done = env("--format", form, "--", *EXPOSED, "--no-enable-eplb")
    assert (done.exit_code, done.stdout, done.stderr) == (0, EMPTY.get(form, ""), "")
    assert READERS[form](done.stdout) == {}


def test_shell_is_the_default() -> None:
    assert env("--", *EXPOSED).stdout == "export NCCL_MAX_CTAS=8\n"


def test_a_warning_is_printed_on_stderr() -> None:
    done = env("--", *EXPOSED, "--data-parallel", "8")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("eplb-launch: warning: --data-parallel is ambiguous")


@pytest.mark.parametrize("form", READERS)
def test_a_missing_server_is_printed_on_stderr(form: str) -> None:
    done = env("--format", form, "--", "./start.sh")
    assert (done.exit_code, done.stdout) == (0, EMPTY.get(form, ""))
    assert done.stderr == (
        "eplb-launch: warning: no vLLM server seen in the command; nothing set; "
        "put eplb-launch in front of `vllm serve` itself\n"
    )
    done = env("--format", form, "--", "vllm", "bench", "serve")
    assert (done.exit_code, done.stdout, done.stderr) == (0, EMPTY.get(form, ""), "")


NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: (
        name not in ("PWD", "OLDPWD", "SHLVL", "_", "IFS", "PS1", "PS2", "PS4", "PATH", "PPID")
    )
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]))
LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
SLOW = ("shell", "kubernetes")
VALUES = {"shell": TEXTS, "json": TEXTS, "ray": TEXTS, "docker": TEXTS, "kubernetes": TEXTS}
VALUES |= {"slurm": LINES.map(lambda text: text.replace(",", ""))}
# systemd refuses an assignment with control characters.
VALUES |= {
    "systemd": st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    "dotenv": LINES,
    "plain": LINES,
}


@pytest.mark.parametrize("form", READERS)
def test_any_value_is_read_back(form: str) -> None:
    @settings(max_examples=30 if form in SLOW else 100)
    @given(st.dictionaries(NAMES, VALUES[form], max_size=3))
    def check(variables: dict[str, str]) -> None:
        assert READERS[form](export.FORMATS[form](variables)) == variables

    check()


def test_ray_takes_it_as_a_runtime_env() -> None:
    ray = pytest.importorskip("ray.runtime_env", reason="no Ray for this Python")
    text = env("--format", "ray", "--", *EXPOSED).stdout
    assert ray.RuntimeEnv(**json.loads(text)).env_vars() == CAP


def test_eval_takes_the_shell_format() -> None:
    command = shlex.join([SCRIPT, "env", "--vllm-version", "0.16.0", "--", *EXPOSED])
    script = f'eval "$({command})"; env | grep ^NCCL_'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "NCCL_MAX_CTAS=8\n"
