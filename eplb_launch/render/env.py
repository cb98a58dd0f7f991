"""Variables in the forms that shells, service managers and schedulers read: `eplb-launch env`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Variables = Mapping[str, str]


def shell(variables: Variables) -> str:
    """For `eval "$(eplb-launch env -- CMD)"`, in any POSIX shell."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def plain(variables: Variables) -> str:
    """NAME=value lines, as env(1) prints them."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def dotenv(variables: Variables) -> str:
    """For a `.env` file, as python-dotenv and compose read it: single quotes keep all literal."""
    return "".join(f"{name}={_dotenv_value(value)}\n" for name, value in variables.items())


def _dotenv_value(value: str) -> str:
    if value.isalnum() and value.isascii():
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def as_json(variables: Variables) -> str:
    """One JSON object."""
    return json.dumps(dict(variables)) + "\n"


def systemd(variables: Variables) -> str:
    """For a drop-in such as vllm.service.d/eplb.conf, quoted as systemd.exec(5) says.

    A percent sign is doubled: it begins a specifier.
    """
    if not variables:
        return ""
    return "[Service]\n" + "".join(
        f"Environment={_systemd_word(f'{name}={value}')}\n" for name, value in variables.items()
    )


def _systemd_word(word: str) -> str:
    word = word.replace("%", "%%")
    if word.replace("_", "").replace("=", "").isalnum() and word.isascii():
        return word
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(letter, letter) for letter in word) + '"'


def kubernetes(variables: Variables) -> str:
    """For a container in a pod template. Values are strings there: a number is quoted."""
    import yaml

    entries = [{"name": name, "value": value} for name, value in variables.items()]
    return yaml.safe_dump({"env": entries}, sort_keys=False, default_style=None)


def docker(variables: Variables) -> str:
    """For `docker run`, podman and nerdctl: to be split by a shell."""
    words = [f"-e {shlex.quote(f'{name}={value}')}" for name, value in variables.items()]
    return " ".join(words) + "\n" if words else ""


def ray(variables: Variables) -> str:
    """For `ray.init(runtime_env=...)` and `ray job submit --runtime-env-json`."""
    return json.dumps({"env_vars": dict(variables)}) + "\n"


def slurm(variables: Variables) -> str:
    """For srun and sbatch: these besides all that is set. ValueError for a comma in a value."""
    if any("," in value for value in variables.values()):
        raise ValueError("a value with a comma cannot be written in --export")
    words = "".join(f",{name}={value}" for name, value in variables.items())
    return f"{shlex.quote('--export=ALL' + words)}\n" if words else ""


FORMATS: Mapping[str, Callable[[Variables], str]] = {
    "shell": shell,
    "plain": plain,
    "dotenv": dotenv,
    "json": as_json,
    "systemd": systemd,
    "kubernetes": kubernetes,
    "docker": docker,
    "ray": ray,
    "slurm": slurm,
}
