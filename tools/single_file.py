"""Build eplb-launch.pyz: the launch in one file that needs nothing but Python 3.10 or newer.

    python tools/single_file.py dist

writes dist/eplb-launch.pyz, and dist/eplb-launch-configmap.yaml with that file in a ConfigMap. The
same sources give the same bytes: names are sorted, times and modes fixed, nothing is compiled.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(os.path.dirname(HERE), "eplb_launch")
NAME = "eplb-launch.pyz"
SHEBANG = b"#!/usr/bin/env python3\n"
# What a launch does not need: sub-commands, and what is for Python programs.
LEFT_OUT = frozenset(("check", "cli.py", "override.py", "ps", "render"))


def build() -> bytes:
    """Return the file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name, path in sorted(members().items()):
            with open(path, "rb") as file:
                content = file.read()
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix
            info.external_attr = 0o644 << 16
            target.writestr(info, content)
    return SHEBANG + archive.getvalue()


def members() -> dict[str, str]:
    """Return what goes in: names in the archive, and the files that they come from."""
    found = {
        "__main__.py": os.path.join(PACKAGE, "bin", "eplb-launch"),
        "eplb_launch/cli.py": os.path.join(HERE, "single_file_cli.py"),
    }
    for folder, folders, names in os.walk(PACKAGE):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in names:
            if name.endswith(".py") and name not in LEFT_OUT:
                path = os.path.join(folder, name)
                found[os.path.join("eplb_launch", os.path.relpath(path, PACKAGE))] = path
    return found


def config_map(content: bytes) -> str:
    """Return a ConfigMap that holds the file: for `volumeMounts`, without an image of its own."""
    return (
        "# Made by `make pyz`, for examples/kubernetes/single-file.yaml\n"
        "apiVersion: v1\n"
        "kind: ConfigMap\n"
        "metadata:\n"
        "  name: eplb-launch\n"
        "binaryData:\n"
        f"  {NAME}: {base64.b64encode(content).decode()}\n"
    )


def main(folder: str) -> None:
    """Write both files."""
    os.makedirs(folder, exist_ok=True)
    content = build()
    path = os.path.join(folder, NAME)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o755)  # noqa: S103 - a program
    with open(os.path.join(folder, "eplb-launch-configmap.yaml"), "w", encoding="ascii") as text:
        text.write(config_map(content))
    print(f"{path}: {len(content):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "dist")
