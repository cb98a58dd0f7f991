"""The output of `env`: variables as shells, service managers and schedulers read them."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Variables = Mapping[str, str]


def _lines(form: str, quoted: Callable[[str], str] = str) -> Callable[[Variables], str]:
    def written(variables: Variables) -> str:
        pairs = variables.items()
        return "".join(form.format(name=name, value=quoted(value)) for name, value in pairs)

    return written


def _plain(text: str) -> bool:
    return text.isalnum() and text.isascii()


def _dotenv_value(value: str) -> str:
    """Return a value for python-dotenv and compose; nothing expands between single quotes."""
    if _plain(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _systemd(variables: Variables) -> str:
    """Return a drop-in such as vllm.service.d/eplb.conf, quoted as systemd.exec(5) says."""
    words = [_systemd_word(f"{name}={value}") for name, value in variables.items()]
    return "".join(("[Service]\n", *(f"Environment={word}\n" for word in words))) if words else ""


def _systemd_word(word: str) -> str:
    word = word.replace("%", "%%")  # "%" begins a specifier
    if _plain(word.replace("_", "").replace("=", "")):
        return word
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(letter, letter) for letter in word) + '"'


def _kubernetes(variables: Variables) -> str:
    """Return the `env` of a container, with numbers as strings."""
    import yaml

    entries = [{"name": name, "value": value} for name, value in variables.items()]
    return yaml.safe_dump({"env": entries}, sort_keys=False, default_style=None)


def _docker(variables: Variables) -> str:
    """Return options of `docker run`, podman and nerdctl, for a shell to split."""
    words = [f"-e {shlex.quote(f'{name}={value}')}" for name, value in variables.items()]
    return " ".join(words) + "\n" if words else ""


def _slurm(variables: Variables) -> str:
    """Return the option of srun and sbatch that adds these variables to all others."""
    if any("," in value for value in variables.values()):
        raise ValueError("a value with a comma cannot be written in --export")
    words = "".join(f",{name}={value}" for name, value in variables.items())
    return f"{shlex.quote('--export=ALL' + words)}\n" if words else ""


FORMATS: Mapping[str, Callable[[Variables], str]] = {
    "shell": _lines("export {name}={value}\n", shlex.quote),
    "plain": _lines("{name}={value}\n"),
    "dotenv": _lines("{name}={value}\n", _dotenv_value),
    "json": lambda variables: json.dumps(dict(variables)) + "\n",
    "systemd": _systemd,
    "kubernetes": _kubernetes,
    "docker": _docker,
    # For `ray.init(runtime_env=...)` and `ray job submit --runtime-env-json`.
    "ray": lambda variables: json.dumps({"env_vars": dict(variables)}) + "\n",
    "slurm": _slurm,
}
