"""Get vLLM's own Python sources, release by release, from the package index.

Of a release only its Python files are kept, under FOLDER/X.Y.Z: to parse arguments needs none of
its compiled parts. Nearly all releases have a source archive; of a wheel (0.15.1 has nothing else)
only these files are fetched, by HTTP ranges, as the rest is half a gigabyte.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import urllib.request
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    Files = Sequence[Mapping[str, Any]]  # of the index, as PEP 691 writes them

INDEX = "https://pypi.org/simple"
OLDEST = (0, 12)  # async EPLB came with it
_PIECE = 1 << 20
_TIMEOUT = 120
_FINAL = re.compile(r"vllm-(\d+\.\d+\.\d+)(\.tar\.gz|-.+x86_64\.whl)")


def files_of_index() -> Files:
    """Return what the package index has of vLLM; PIP_INDEX_URL names another index."""
    page = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/") + "/vllm/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with _open(page, accept) as answer:
        files: list[dict[str, Any]] = json.load(answer)["files"]
    return [{**file, "url": urljoin(page, file["url"])} for file in files]


def releases(files: Files) -> dict[str, Mapping[str, Any]]:
    """Return the final releases, oldest first, each with the file to take: the archive if any."""
    found: dict[str, Mapping[str, Any]] = {}
    for file in files:
        match = _FINAL.fullmatch(file["filename"])
        if not match or file.get("yanked") or key(match[1])[:2] < OLDEST:
            continue
        if match[1] not in found or match[2] == ".tar.gz":
            found[match[1]] = file
    return dict(sorted(found.items(), key=lambda item: key(item[0])))


def key(version: str) -> tuple[int, ...]:
    """Return what orders versions."""
    return tuple(map(int, version.split(".")))


def fetch(version: str, folder: Path) -> Path:
    """Return the folder with the sources of a release, fetched if they are not there yet."""
    done = folder / version
    if done.is_dir():
        return done
    file = releases(files_of_index()).get(version)
    if file is None:
        raise SystemExit(f"the package index has no vLLM {version} that is final and not yanked")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        if file["filename"].endswith(".whl"):
            from_wheel(RangedFile(file["url"]), temporary)
        else:
            from_archive(_download(file), temporary)
        os.rename(temporary, done)
        os.mkdir(temporary)  # what the context manager removes
    return done


def _open(url: str, headers: Mapping[str, str] = {}) -> Any:
    request = urllib.request.Request(url, headers=dict(headers))
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _download(file: Mapping[str, Any]) -> io.BytesIO:
    with _open(file["url"]) as answer:
        content: bytes = answer.read()
    if hashlib.sha256(content).hexdigest() != file["hashes"]["sha256"]:
        raise SystemExit(f"{file['filename']} is not what the index says: its sha256 differs")
    return io.BytesIO(content)


def _wanted(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("vllm/") and name.endswith(".py")]


def from_archive(archive: io.BytesIO, folder: str) -> None:
    """Unpack the Python files of a source archive."""
    with tarfile.open(fileobj=archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/")
            if member.isfile() and _wanted([name]) and ".." not in name.split("/"):
                content = tar.extractfile(member)
                assert content is not None
                _write(folder, name, content.read())


def from_wheel(wheel: RangedFile | io.BytesIO, folder: str) -> None:
    """Unpack the Python files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in _wanted(archive.namelist()):
            if ".." not in name.split("/"):
                _write(folder, name, archive.read(name))


def _write(folder: str, name: str, content: bytes) -> None:
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


class RangedFile(io.RawIOBase):
    """A file at a URL, read in pieces."""

    def __init__(self, url: str) -> None:
        """Ask for the size; nothing else is read yet."""
        self.url = url
        self.place = 0
        self.pieces: dict[int, bytes] = {}
        with _open(url, {"Range": "bytes=0-0"}) as answer:
            if answer.status != 206:
                raise SystemExit(f"{url} cannot be read in part")
            self.size = int(answer.headers["Content-Range"].rpartition("/")[2])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.size)[whence]
        return self.place

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.place + size, self.size)
        result = b""
        while self.place < end:
            number, offset = divmod(self.place, _PIECE)
            piece = self._piece(number)[offset : offset + end - self.place]
            result += piece
            self.place += len(piece)
        return result

    def _piece(self, number: int) -> bytes:
        if number not in self.pieces:
            start = number * _PIECE
            wanted = {"Range": f"bytes={start}-{min(start + _PIECE, self.size) - 1}"}
            with _open(self.url, wanted) as answer:
                self.pieces = {number: answer.read()}
        return self.pieces[number]
