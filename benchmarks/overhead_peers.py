"""Other programs that start a command, installed as eplb-launch is, and how each is told to."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from whole_process import bare_python

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CAP = "NCCL_MAX_CTAS=8"


@dataclass(frozen=True)
class Launcher:
    """What stands before the command; nothing, if it is not found here."""

    name: str
    words: list[str] | None
    version: str
    server: str = "vllm"


def install(folder: str) -> str:
    """Make an environment with our wheel and the peers in it; return its folder of commands."""
    shutil.rmtree(folder, ignore_errors=True)
    dist, environment = (os.path.join(folder, name) for name in ("dist", "venv"))
    bin_directory = os.path.join(environment, "bin")
    python = [sys.executable, "-m"]
    build = [*python, "hatchling", "build", "-t", "wheel", "-d", dist]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    single = [sys.executable, os.path.join(ROOT, "tools", "single_file.py"), dist]
    subprocess.run(single, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*python, "venv", environment], check=True)
    pip = [f"{bin_directory}/python", "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    # The scripts that an old pip writes for entry points cost the peers half an interpreter start.
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    (wheel,) = glob.glob(os.path.join(dist, "*.whl"))
    requirements = os.path.join(HERE, "overhead-requirements.txt")
    subprocess.run([*pip, "--compile", wheel, "-r", requirements], check=True)
    return bin_directory


def versions(bin_directory: str) -> dict[str, str]:
    """Return what is installed there, name to version."""
    pip = [f"{bin_directory}/python", "-m", "pip", "--disable-pip-version-check"]
    listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True)
    return {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}


def find_tini(folder: str) -> str | None:
    """Return tini, from PATH or out of Debian's package, which is not installed for it."""
    if found := shutil.which("tini"):
        return found
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    os.makedirs(folder)
    download = ["apt-get", "-qq", "download", "tini"]
    if subprocess.run(download, cwd=folder, stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    (package,) = glob.glob(os.path.join(folder, "*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return os.path.join(folder, "usr", "bin", "tini")


def said_version(program: str) -> str:
    """Return the version that a program says it has: a word of its first line."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    words = said.stdout.partition("\n")[0].split()
    return next((word for word in reversed(words) if word[0].isdigit()), "")


def launchers(folder: str) -> list[Launcher]:
    """Install everything into `folder` and return what is to be measured."""
    commands = install(folder)
    known = versions(commands)
    file, values = os.path.join(folder, "cap.env"), os.path.join(folder, "cap")
    os.makedirs(values)
    for path, text in ((file, CAP), (os.path.join(values, "NCCL_MAX_CTAS"), CAP[-1])):
        with open(path, "w") as opened:
            opened.write(f"{text}\n")
    ours = f"{commands}/eplb-launch"
    ours_version = known["eplb-launch"]
    single = [f"{commands}/python", os.path.join(folder, "dist", "eplb-launch.pyz"), "--"]
    tini = find_tini(os.path.join(folder, "debian"))
    env = shutil.which("env") or "/usr/bin/env"
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        Launcher("no launcher", [], ""),
        Launcher("env", [env, CAP], f"coreutils {said_version(env)}"),
        Launcher("tini", [tini, "-s", "--"] if tini else None, said_version(tini) if tini else ""),
        Launcher("dumb-init", [f"{commands}/dumb-init", "--"], known["dumb-init"]),
        Launcher("python -c, only execs", bare_python(ours), python),
        Launcher("eplb-launch", [ours, "--"], ours_version),
        Launcher("eplb-launch, no server", [ours, "--quiet", "--"], ours_version, "echo"),
        Launcher("eplb-launch.pyz", single, ours_version),
        Launcher("envdir", [f"{commands}/envdir", values], known["envdir"]),
        Launcher(
            "dotenv run", [f"{commands}/dotenv", "-f", file, "run", "--"], known["python-dotenv"]
        ),
        Launcher("honcho run", [f"{commands}/honcho", "-e", file, "run"], known["honcho"]),
    ]
