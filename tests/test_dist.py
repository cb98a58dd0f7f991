"""The wheel and the sdist as they are built: what is in them, and that they work installed.

With `--release FOLDER` it is the files there, installed with their dependencies for each Python
that is supported and found here; that needs a package index.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import compat32
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from pathlib import Path

REPOSITORY = os.path.dirname(os.path.dirname(__file__))
ARGUMENTS = [
    *("serve", "m", "--data-parallel-size", "8", "--enable-expert-parallel", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
]


def text(*path: str) -> str:
    with open(os.path.join(REPOSITORY, *path), encoding="utf-8") as file:
        return file.read()


VERSION = re.findall(r'__version__ = "(.+)"', text("eplb_launch", "_version.py"))[0]
SUPPORTED = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text("pyproject.toml"))


def ran(*command: str, cwd: str | Path = "/", path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed, in an environment that knows nothing of this one."""
    environ = {"PATH": f"{path}:/usr/bin:/bin"}
    for name in ("HOME", "PIP_INDEX_URL"):  # where pip finds what it is to ask
        if name in os.environ:
            environ[name] = os.environ[name]
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


@dataclass(frozen=True)
class Built:
    """The files of a release."""

    wheel: str
    sdist: str

    def in_wheel(self) -> list[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            assert archive.testzip() is None
            return sorted(archive.namelist())

    def in_sdist(self) -> list[str]:
        """Return the names below the one folder of the archive."""
        with tarfile.open(self.sdist) as archive:
            members = archive.getmembers()
        assert all(member.isfile() for member in members)
        folder = f"eplb_launch-{VERSION}/"
        assert {member.name[: len(folder)] for member in members} == {folder}
        return sorted(member.name[len(folder) :] for member in members)

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as archive:
            text = archive.read(f"eplb_launch-{VERSION}.dist-info/METADATA")
        return BytesParser(policy=compat32).parsebytes(text)


def build(source: str | Path, folder: str | Path, *targets: str) -> None:
    """Build what `make build` builds, with the build backend that is installed here."""
    words = [word for target in targets for word in ("-t", target)]
    ran(sys.executable, "-m", "hatchling", "build", "-d", str(folder), *words, cwd=source)


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = request.config.getoption("--release")
    if not folder:
        folder = str(tmp_path_factory.mktemp("dist"))
        build(REPOSITORY, folder, "sdist", "wheel")
    stem = os.path.join(os.path.abspath(folder), f"eplb_launch-{VERSION}")
    return Built(f"{stem}-py3-none-any.whl", f"{stem}.tar.gz")


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Return the files that git knows of: what is meant to be there."""
    if not os.path.exists(os.path.join(REPOSITORY, ".git")):
        pytest.skip("not a git checkout: nothing says which files are meant to be there")
    listed = ran("git", "ls-files", "-z", cwd=REPOSITORY).stdout.split("\0")
    return [name for name in listed if name]


def test_the_wheel_holds_the_package_the_script_and_its_papers(
    built: Built, tracked: list[str]
) -> None:
    modules = [name for name in tracked if name.startswith("eplb_launch/")]
    modules.remove("eplb_launch/bin/eplb-launch")
    papers = ["METADATA", "RECORD", "WHEEL", "licenses/LICENSE"]
    assert built.in_wheel() == sorted(
        [
            *modules,
            f"eplb_launch-{VERSION}.data/scripts/eplb-launch",
            *(f"eplb_launch-{VERSION}.dist-info/{name}" for name in papers),
        ]
    )


def test_the_sdist_holds_the_repository(built: Built, tracked: list[str]) -> None:
    assert built.in_sdist() == sorted([*tracked, "PKG-INFO"])


def test_the_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"eplb_launch-{VERSION}"
    assert os.access(source / "eplb_launch" / "bin" / "eplb-launch", os.X_OK)
    build(source, tmp_path / "dist", "wheel")
    again = tmp_path / "dist" / os.path.basename(built.wheel)
    with open(built.wheel, "rb") as file:
        assert again.read_bytes() == file.read()


def test_the_metadata_say_what_the_project_says(built: Built) -> None:
    metadata = built.metadata()
    assert metadata["Name"] == "eplb-launch"
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == f">={SUPPORTED[0]}"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == text("README.md").encode()


@dataclass(frozen=True)
class Installed:
    """An environment with nothing but the launcher in it."""

    folder: Path
    python: str

    def launcher(self, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
        return ran(str(self.folder / "bin" / "eplb-launch"), *words, path=path)


def interpreters(version: str) -> Iterator[str]:
    """Yield where a Python may be: on PATH, or where pyenv keeps it."""
    if version == "{}.{}".format(*sys.version_info):
        yield sys.executable
    if found := shutil.which(f"python{version}"):
        yield found
    versions = os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")
    yield from sorted(glob.glob(versions))


def interpreter(version: str) -> str:
    """Return a Python that really runs: pyenv has commands for versions that are not chosen."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    for candidate in interpreters(version):
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return candidate
    pytest.skip(f"there is no Python {version} on PATH or in ~/.pyenv")


def install_alone(file: str, python: str) -> None:
    """Install without a package index: the dependencies are those of this environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    ran(*pip, "install", "--no-index", "--no-deps", file)
    here = sysconfig.get_path("purelib")
    packages = ran(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    # A .pth file in `here` is not read again, so the editable installation there is not found.
    with open(os.path.join(packages.stdout.strip(), "dependencies.pth"), "w") as pth:
        pth.write(here)


@pytest.fixture(scope="module")
def installed(
    request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """Install the file, wheel or sdist, for the Python that the parameter names."""
    version, kind = request.param
    folder = tmp_path_factory.mktemp("installed")
    python = str(folder / "bin" / "python")
    alone = ["--without-pip"] if version is None else []
    base = sys.executable if version is None else interpreter(version)
    ran(base, "-m", "venv", *alone, str(folder))
    file = built.wheel if kind == "wheel" else built.sdist
    if version is None:
        install_alone(file, python)
    else:
        ran(python, "-m", "pip", "--disable-pip-version-check", "install", file)
        ran(python, "-m", "pip", "check")
    return Installed(folder, python)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Install for the Python that runs the tests; with --release, for each."""
    if "installed" in metafunc.fixturenames:
        cases: list[tuple[str | None, str]] = [(None, "wheel")]
        if metafunc.config.getoption("--release"):
            cases = [(version, kind) for version in SUPPORTED for kind in ("wheel", "sdist")]
        ids = [f"{version}-{kind}" if version else kind for version, kind in cases]
        metafunc.parametrize("installed", cases, ids=ids, indirect=True, scope="module")


def test_installed_it_is_the_built_one(installed: Installed) -> None:
    assert installed.launcher("--version").stdout == f"eplb-launch {VERSION}\n"
    where = ran(installed.python, "-c", "import eplb_launch; print(eplb_launch.__file__)").stdout
    assert where.startswith(str(installed.folder))
    assert ran(installed.python, "-m", "eplb_launch", "--version").stdout.endswith(f"{VERSION}\n")


def test_installed_it_starts_a_server_with_the_variable(
    installed: Installed, tmp_path: Path
) -> None:
    server = tmp_path / "vllm"
    server.write_text('#!/bin/sh\necho "$@" "NCCL_MAX_CTAS=${NCCL_MAX_CTAS-not set}"\n')
    server.chmod(0o755)
    launch = ["--vllm-version", "0.16.0", "--", "vllm", *ARGUMENTS]
    done = installed.launcher(*launch, path=str(tmp_path))
    assert done.stdout == " ".join([*ARGUMENTS, "NCCL_MAX_CTAS=8\n"])
    assert "set NCCL_MAX_CTAS=8: async EPLB" in done.stderr
    one = ["--vllm-version", "0.16.0", "--", "vllm", "serve", "m"]
    done = installed.launcher(*one, path=str(tmp_path))
    assert (done.stdout, done.stderr) == ("serve m NCCL_MAX_CTAS=not set\n", "")


def test_installed_its_other_commands_find_what_they_need(installed: Installed) -> None:
    launch = ["--vllm-version", "0.16.0", "--", "vllm", *ARGUMENTS]
    assert json.loads(installed.launcher("explain", "--json", *launch).stdout)["needed"] is True
    assert installed.launcher("env", *launch).stdout == "export NCCL_MAX_CTAS=8\n"
    json.loads(installed.launcher("ps", "--json", str(os.getpid())).stdout)
    folder = os.path.join(REPOSITORY, "examples")
    examples = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    assert " 0 exposed to the EPLB hang, 0 unknown" in installed.launcher("check", *examples).stdout


def test_installed_its_types_are_seen(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import eplb_launch\nreveal_type(eplb_launch.plan([], {}).environment)\n"
    )
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    mypy = ["-m", "mypy", "--strict", "--python-executable", installed.python]
    done = ran(sys.executable, *mypy, "user.py", cwd=tmp_path)
    assert 'Revealed type is "' in done.stdout
    assert "Any" not in done.stdout
