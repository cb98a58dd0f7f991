"""The disk and files in memory answer the same questions alike."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from eplb_launch.files import DISK, Files, InMemory, NotRegularError

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {"a/b/one": "1\n", "a/two": "zwei ä\n", "run": "#!/bin/sh\n"}


@pytest.fixture(params=["disk", "given"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Return TEXTS below tmp_path in both forms."""
    if request.param == "given":
        return InMemory({f"{tmp_path}/{name}": text for name, text in TEXTS.items()})
    for name, text in TEXTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return DISK


def test_reads_a_file_up_to_a_bound(files: Files, tmp_path: Path) -> None:
    assert files.read(f"{tmp_path}/a/b/one", 100) == b"1\n"
    assert files.read(f"{tmp_path}/a/./b/../two", 100) == "zwei ä\n".encode()
    assert files.read(f"{tmp_path}/a/two", 6) == b"zwei \xc3"
    assert files.read(f"{tmp_path}/a/two", 0) == b""


def test_lists_a_folder(files: Files, tmp_path: Path) -> None:
    assert sorted(files.names(f"{tmp_path}/a")) == ["b", "two"]
    assert files.names(f"{tmp_path}/a/b/") == ["one"]


def test_tells_files_from_folders_and_from_nothing(files: Files, tmp_path: Path) -> None:
    for name, expected in {
        "a": (True, False),
        "a/b/one": (True, True),
        "a/b/on": (False, False),
        "": (True, False),
        "b": (False, False),
    }.items():
        path = f"{tmp_path}/{name}"
        assert (files.exists(path), files.is_file(path)) == expected, name
        assert not files.runs(path)
        assert files.real(path) == str(tmp_path / name)


@pytest.mark.parametrize("name", ["missing", "a/missing", "x\0y", "\ud800", "x" * 300])
def test_a_path_that_does_not_exist_is_an_oserror(files: Files, tmp_path: Path, name: str) -> None:
    for look in (files.stat, files.names, lambda path: files.read(path, 1)):
        with pytest.raises(OSError, match=f"{os.strerror(2)}|Invalid|too long"):
            look(f"{tmp_path}/{name}")


def test_a_folder_is_not_read(files: Files, tmp_path: Path) -> None:
    with pytest.raises(NotRegularError, match="not a regular file"):
        files.read(f"{tmp_path}/a", 1)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_is_neither_read_nor_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(NotRegularError):
        DISK.read(str(path), 1)


def test_a_file_in_memory_has_no_links_and_no_mode(tmp_path: Path) -> None:
    given = InMemory({"/a/../b/x": "1", "c": "2"})
    assert given.names("/") == ["b", "c"]
    assert given.names("b") == ["x"]
    assert given.user() is None
    assert InMemory({}).names("/") == []
    (tmp_path / "x").write_text("")
    (tmp_path / "x").chmod(0o755)
    assert DISK.runs(str(tmp_path / "x"))
