"""Paths below another root lead where the process in there would get."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from eplb_launch.container_paths import at, resolve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/venv/bin/python", "/usr/bin/python3.12"),
        ("/opt/current/bin/python", "/usr/bin/python3.12"),
        ("/opt/../usr//./bin", "/usr/bin"),
        ("/../../etc", "/etc"),
        ("/opt/out", "/etc"),
        ("/missing/../x", "/x"),
        ("/", "/"),
        ("", "/"),
    ],
)
def test_links_stay_inside(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "opt/venv/bin").mkdir(parents=True)
    (tmp_path / "opt/venv/bin/python").symlink_to("python3")
    (tmp_path / "opt/venv/bin/python3").symlink_to("/usr/bin/python3.12")
    (tmp_path / "opt/current").symlink_to("venv")
    (tmp_path / "opt/out").symlink_to("../../../../../etc")
    assert resolve(path, str(tmp_path)) == expected
    assert at(path, str(tmp_path)) == str(tmp_path) + expected
    assert at(path, "") == path


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        at("/a/c", str(tmp_path))
