"""The Python environment of `uv run` and the like, which is not the one on PATH."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch import plan

if TYPE_CHECKING:
    from pathlib import Path


def environment(root: Path, version: str) -> None:
    """Make a folder that looks like a virtual environment with vLLM."""
    (root / "bin").mkdir(parents=True)
    (root / "pyvenv.cfg").write_text("home = /usr/bin\n")
    for name, text in (("python3.12", ""), ("vllm", f"#!{root}/bin/python3.12\n")):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    packages = root / "lib" / "python3.12" / "site-packages"
    (packages / f"vllm-{version}.dist-info").mkdir(parents=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder with a project, an environment on PATH, and others."""
    environment(tmp_path / "path", "0.12.0")
    environment(tmp_path / "project" / ".venv", "0.16.0")
    environment(tmp_path / "project" / "named", "0.17.0")
    environment(tmp_path / "conda", "0.18.0")
    environment(tmp_path / "plain" / ".venv", "0.19.0")
    environment(tmp_path / "active", "0.20.0")
    (tmp_path / "project" / "pyproject.toml").write_text("")
    (tmp_path / "project" / "deeper").mkdir()
    return tmp_path


CASES: dict[str, tuple[str, dict[str, str], str | None]] = {
    "no runner": ("env -C {0}/project", {}, "0.12.0"),
    "another wrapper": ("numactl -N 0", {}, "0.12.0"),
    "uv in the project": ("env -C {0}/project uv run", {}, "0.16.0"),
    "uv below it": ("env -C {0}/project/deeper uv run --no-sync", {}, "0.16.0"),
    "uv --project": ("uv run --project {0}/project", {}, "0.16.0"),
    "uv --project=": ("uv --project={0}/project run", {}, "0.16.0"),
    "uv --directory": ("uv run --directory {0}/project", {}, "0.16.0"),
    "uv with a named environment": (
        "env -C {0}/project uv run",
        {"UV_PROJECT_ENVIRONMENT": "named"},
        "0.17.0",
    ),
    "uv in a project, whatever is active": (
        "env -C {0}/project uv run",
        {"VIRTUAL_ENV": "{0}/active"},
        "0.16.0",
    ),
    "uv without a project, active": (
        "env -C {0}/plain uv run",
        {"VIRTUAL_ENV": "{0}/active"},
        "0.20.0",
    ),
    "uv without a project": ("env -C {0}/plain uv run", {}, "0.19.0"),
    "uv without any": ("env -C {0} uv run", {}, "0.12.0"),
    "uv tool": ("uv tool run", {}, None),
    "conda by prefix": ("conda run -p {0}/conda", {}, "0.18.0"),
    "conda by prefix=": ("mamba run --prefix={0}/conda", {}, "0.18.0"),
    "conda by name": ("conda run -n vllm", {}, None),
    "poetry": ("poetry run", {}, None),
    "pipenv": ("pipenv run", {}, None),
    "poetry, and another wrapper": ("poetry run numactl -N 0", {}, None),
}


@pytest.mark.parametrize(("wrappers", "variables", "version"), CASES.values(), ids=CASES)
def test_the_release_is_from_the_environment_of_the_runner(
    tree: Path, wrappers: str, variables: dict[str, str], version: str | None
) -> None:
    environ = {"PATH": f"{tree}/path/bin"}
    environ |= {name: value.format(tree) for name, value in variables.items()}
    decided = plan([*wrappers.format(tree).split(), "vllm", "serve", "m"], environ)
    assert decided.server is not None
    assert decided.vllm_version == version
    if version is None:
        assert (
            decided.vllm_source
            == f"the environment of {wrappers.split(maxsplit=1)[0]} is not known"
        )
