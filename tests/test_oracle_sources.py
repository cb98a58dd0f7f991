"""How `make oracle` gets vLLM's sources: from a package index that is served here."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest
from oracle import __main__ as oracle
from oracle import sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMBERS = {
    "vllm/a.py": b"1",
    "vllm/_C.so": b"2" * 3_000_000,
    "tests/b.py": b"3",
    "vllm/c/d.py": b"",
}
WHEEL = "vllm-0.15.1-cp38-abi3-manylinux_2_31_x86_64.whl"


def archive(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"vllm-0.1/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def wheel(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return packed.getvalue()


class Index(http.server.ThreadingHTTPServer):
    """A package index with vLLM in it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.ranges = True
        self.sent: list[int] = []
        super().__init__(("127.0.0.1", 0), Page)

    def listed(self) -> bytes:
        files = [
            {
                "filename": name,
                "url": f"../../files/{name}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            }
            for name, content in self.files.items()
        ]
        return json.dumps({"files": files}).encode()


class Page(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        content = self.server.files[name] if name else self.server.listed()
        asked = self.headers["Range"]
        self.send_response(206 if asked and self.server.ranges else 200)
        if asked and self.server.ranges:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        self.end_headers()
        self.server.sent.append(len(content))
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    files = {
        "vllm-0.14.0.tar.gz": archive(MEMBERS),
        "vllm-0.14.1.tar.gz": archive({**MEMBERS, "vllm/../../e.py": b"5"}),
        WHEEL: wheel(MEMBERS),
        "vllm-0.16.0rc1.tar.gz": archive(MEMBERS),
    }
    with Index(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
        yield server
        server.shutdown()
        thread.join()


def unpacked(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("version", ["0.14.0", "0.14.1", "0.15.1"])
def test_only_the_python_files_of_vllm_are_kept(version: str, index: Index, tmp_path: Path) -> None:
    folder = sources.fetch(version, tmp_path)
    assert unpacked(folder) == {"vllm/a.py": b"1", "vllm/c/d.py": b""}
    assert unpacked(tmp_path) == {f"{version}/{n}": c for n, c in unpacked(folder).items()}
    asked = len(index.sent)
    assert sources.fetch(version, tmp_path) == folder
    assert len(index.sent) == asked


@pytest.mark.usefixtures("index")
def test_of_a_wheel_little_is_read(index: Index, tmp_path: Path) -> None:
    sources.fetch("0.15.1", tmp_path)
    assert sum(index.sent) < len(index.files[WHEEL])


def test_a_server_without_ranges_is_told(index: Index, tmp_path: Path) -> None:
    index.ranges = False
    with pytest.raises(SystemExit, match="cannot be read in part"):
        sources.fetch("0.15.1", tmp_path)
    assert unpacked(tmp_path) == {}


def test_an_archive_that_is_not_the_one_listed_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = index.listed()
    monkeypatch.setattr(index, "listed", lambda: listed)
    index.files["vllm-0.14.0.tar.gz"] += b"\0"
    with pytest.raises(SystemExit, match="sha256 differs"):
        sources.fetch("0.14.0", tmp_path)
    assert unpacked(tmp_path) == {}


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("version", ["0.16.0", "0.16.0rc1", "0.99.0"])
def test_a_release_that_is_not_there_is_told(version: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="the package index has no vLLM"):
        sources.fetch(version, tmp_path / "sources")


@pytest.mark.usefixtures("index")
def test_new_lists_what_is_not_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(oracle, "DATA", tmp_path)
    for covered, printed in (
        ((), "0.14.1\n0.15.1\n"),
        (("vllm-0.14.0",), "0.14.1 (0.14.0 is covered)\n0.15.1\n"),
        (("vllm-0.14.0", "vllm-0.14.1-independent"), "0.15.1\n"),
        (("vllm-0.14.0", "vllm-0.14.1-independent", "vllm-0.15.1"), ""),
    ):
        for name in covered:
            (tmp_path / f"{name}.jsonl").touch()
        assert oracle.new() == 0
        assert capsys.readouterr().out == printed
