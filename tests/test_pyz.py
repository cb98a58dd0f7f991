"""eplb-launch.pyz starts servers with an interpreter that has no packages."""

from __future__ import annotations

import ast
import base64
import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = os.path.dirname(os.path.dirname(__file__))
BUILDER = os.path.join(REPOSITORY, "tools", "single_file.py")
EXAMPLE = os.path.join(REPOSITORY, "examples", "kubernetes", "single-file.yaml")
CAP = b"NCCL_MAX_CTAS=8"
SERVE = [
    *("vllm", "serve", "m", "-dp", "8", "-ep", "--enable-eplb"),
    *("--all2all-backend", "deepep_low_latency", "--eplb-config.use_async", "true"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the file and the ConfigMap."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, BUILDER, str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def pyz(built: Path) -> str:
    """Return the file."""
    return str(built / "eplb-launch.pyz")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Return a folder with a `vllm` that prints its arguments and NCCL_MAX_CTAS."""
    vllm = tmp_path / "bin" / "vllm"
    vllm.parent.mkdir()
    vllm.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" "NCCL_MAX_CTAS=${NCCL_MAX_CTAS-not set}" "$$"\n'
    )
    vllm.chmod(0o755)
    return vllm.parent


def bare(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run an interpreter without site-packages, without our package, in another folder."""
    environ = {"PATH": f"{path}:/usr/bin:/bin" if path else "/usr/bin:/bin", "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-I", "-S", *words],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_small_and_leaves_nothing_out_that_a_launch_imports(pyz: str) -> None:
    assert os.path.getsize(pyz) < 500_000
    with zipfile.ZipFile(pyz) as archive:
        names = [name[:-3].replace("/", ".") for name in archive.namelist() if name[-1] == "y"]
    code = f"import sys; sys.path.insert(0, {pyz!r})\nimport importlib\n"
    code += f"for name in {[n for n in names if n != '__main__']}: importlib.import_module(name)"
    done = bare("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_same_sources_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for folder in ("eplb_launch", "tools"):
        for parent, _, names in os.walk(os.path.join(REPOSITORY, folder)):
            there = copy / os.path.relpath(parent, REPOSITORY)
            there.mkdir(parents=True, mode=0o700)
            for name in sorted(names, reverse=True):
                with open(os.path.join(parent, name), "rb") as file:
                    (there / name).write_bytes(file.read())
                os.utime(there / name, (1_000_000_000, 1_000_000_000))
                (there / name).chmod(0o600)
    environ = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1", "LANG": "C"}
    builder = copy / "tools" / "single_file.py"
    subprocess.run(
        [sys.executable, str(builder), str(tmp_path / "dist")],
        check=True,
        capture_output=True,
        env=environ,
        umask=0o077,
    )
    for name in ("eplb-launch.pyz", "eplb-launch-configmap.yaml"):
        assert (tmp_path / "dist" / name).read_bytes() == (built / name).read_bytes()


def test_it_starts_a_server_with_the_variable(pyz: str, server: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", pyz, "--vllm-version", "0.16.0", "--", *SERVE, "", "a b"],
        env={"PATH": f"{server}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=300)
    assert out.split("\n") == [*SERVE[1:], "", "a b", "NCCL_MAX_CTAS=8", str(process.pid), ""]
    assert err == (
        "eplb-launch: set NCCL_MAX_CTAS=8: async EPLB with DeepEP low-latency "
        "(data_parallel_size=8, vLLM 0.16.0)\n"
    )


def test_it_can_be_executed_itself(pyz: str, server: Path) -> None:
    (server / "python3").symlink_to(sys.executable)
    environ = {"PATH": f"{server}:/usr/bin:/bin"}
    done = subprocess.run(
        [pyz, "--", "vllm", "serve", "m"], env=environ, capture_output=True, text=True, check=True
    )
    assert "NCCL_MAX_CTAS=not set" in done.stdout
    assert done.stderr == ""


def test_warnings_and_shell_strings_work_too(pyz: str, server: Path) -> None:
    script = "export NCCL_MIN_NCHANNELS=16; exec " + " ".join(SERVE)
    done = bare(pyz, "--vllm-version", "0.16.0", "--", "sh", "-c", script, path=server)
    assert "NCCL_MAX_CTAS=8" in done.stdout
    assert "NCCL_MIN_NCHANNELS=16" in done.stderr
    strict = bare(pyz, "--strict", "--", "sh", "-c", script, path=server)
    assert (strict.returncode, strict.stdout) == (125, "")


def test_a_config_file_needs_yaml_and_without_it_the_server_starts(
    pyz: str, server: Path, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data-parallel-size: 8\n")
    done = bare(pyz, "--", "vllm", "serve", "m", "--config", str(config), path=server)
    assert done.returncode == 0
    assert "NCCL_MAX_CTAS=not set" in done.stdout
    assert "the --config file is not read: PyYAML is not installed" in done.stderr
    found = importlib.util.find_spec("yaml")
    assert found is not None
    assert found.origin is not None
    environ = {
        "PATH": f"{server}:/usr/bin:/bin",
        "PYTHONPATH": os.path.dirname(os.path.dirname(found.origin)),
    }
    config.write_text(
        "data-parallel-size: 8\nenable-eplb: true\nall2all-backend: deepep_low_latency\n"
    )
    words = ["vllm", "serve", "m", "--config", str(config), "--eplb-config.use_async=true"]
    done = subprocess.run(
        [sys.executable, "-S", pyz, "--vllm-version", "0.16.0", "--", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "NCCL_MAX_CTAS=8" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        pytest.param(["--help"], 0, "Left out are the", id="help"),
        pytest.param(["-h"], 0, "Left out are the", id="short help"),
        pytest.param(["--version"], 0, "(single file)", id="version"),
        pytest.param(["explain", "--", "vllm"], 2, "'explain' is left out", id="explain"),
        pytest.param(["check", "."], 2, "'check' is left out", id="check"),
        pytest.param(["vllm", "serve"], 2, '"--" is missing', id="no dashes"),
        pytest.param(["--strict", "--"], 2, "there is no command", id="no command"),
        pytest.param(["--bogus", "--", "vllm"], 2, "an option before --", id="option"),
        pytest.param([], 2, "Usage: eplb-launch.pyz", id="nothing"),
    ],
)
def test_it_says_what_it_leaves_out(pyz: str, words: list[str], status: int, says: str) -> None:
    done = bare(pyz, *words)
    assert done.returncode == status
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


OLD = sorted(
    found
    for minor in range(6, 10)
    for found in (
        *glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python3.{minor}")),
        *filter(None, [shutil.which(f"python3.{minor}", path="/usr/bin:/usr/local/bin")]),
    )
)


@pytest.mark.parametrize("python", OLD or [None])
def test_an_older_python_says_so_and_starts_the_command(
    pyz: str, server: Path, python: str | None
) -> None:
    if python is None:
        pytest.skip("no Python older than 3.10 is here")
    environ = {"PATH": f"{server}:/usr/bin:/bin"}

    def run(*words: str) -> tuple[int, str, str]:
        command = [python, pyz, *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.split("\n")[0], done.stderr

    release = os.path.basename(python).replace("python", "Python ")
    line = (
        f"eplb-launch: warning: cannot be loaded ({release}: it needs 3.10 or newer), nothing set\n"
    )
    assert run("--quiet", "--", "vllm", "a b") == (0, "a b", line)
    assert run("--strict", "--", "vllm") == (125, "", line)
    assert run("--version") == (125, "", line)
    missing = "eplb-launch: 'nosuch': No such file or directory\n"
    assert run("--", "nosuch") == (127, "", line + missing)


def test_the_entry_file_can_be_read_by_an_older_python(pyz: str) -> None:
    with zipfile.ZipFile(pyz) as archive:
        ast.parse(archive.read("__main__.py"), feature_version=(3, 6))


def test_a_command_that_is_not_there(pyz: str) -> None:
    assert bare(pyz, "--", "/nonexistent").returncode == 127


def test_it_runs_from_the_config_map(built: Path, server: Path, tmp_path: Path) -> None:
    """Each key of the ConfigMap is a file where the example mounts it, as a kubelet does it."""
    config_map = yaml.safe_load((built / "eplb-launch-configmap.yaml").read_text())
    assert len(yaml.safe_dump(config_map)) < 256 * 1024  # what `kubectl apply` can annotate
    with open(EXAMPLE, encoding="utf-8") as file:
        pod = yaml.safe_load(file)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    root = tmp_path / "root"
    for mount in container["volumeMounts"]:
        source = volumes[mount["name"]].get("configMap")
        if source is not None:
            assert source["name"] == config_map["metadata"]["name"]
            folder = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True)
            for name, data in config_map["binaryData"].items():
                (folder / name).write_bytes(base64.b64decode(data))
    command = [*container["command"], *container["args"]]
    assert command[0] == "python3"
    assert command[1].startswith("/opt/eplb-launch/")
    command[1] = str(root) + command[1]
    done = bare(*command[1:], path=server)
    assert done.returncode == 0, done.stderr
    assert "NCCL_MAX_CTAS=8" in done.stdout
    assert re.fullmatch(r"eplb-launch: set NCCL_MAX_CTAS=8: .*\n", done.stderr)
