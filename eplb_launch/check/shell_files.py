"""Shell scripts in files of their own."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator

from eplb_launch.check.kind import Kind
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import VALUES, File, Style, Task, Variables, Word, words_at
from eplb_launch.command.shell.state import ANY_WORDS
from eplb_launch.command.wrappers import SHELLS
from eplb_launch.model import UNKNOWN
from eplb_launch.render.env import FORMATS

STYLE = Style(
    "before it", FORMATS["shell"](VALUES).rstrip("\n"), line=True, last_wins=True, fragments=True
)

_FILE = re.compile(r"(?<![\w.+-])[\w.+-]+\.\w+")  # starts at a word, so that it stays fast
_MAX_FILES = 16  # that a script names, and the files that they name
_NODES = re.compile(r"#SBATCH\s+(?:--nodes[=\s]\s*|-N\s*)([\w*,-]+)")


class Script(Kind):
    """A shell script. It counts only if no other file runs it."""

    title = "a shell script"
    form = "script"
    suffixes = (".sh", ".bash", ".ksh", ".zsh", ".sbatch", ".slurm", ".sub")

    @classmethod
    def looks(cls, first: str, text: str) -> bool:
        """Whether the first line names a shell, or the text is a job for Slurm."""
        if first.startswith("#!"):
            return any(word.rpartition("/")[2] in SHELLS for word in first[2:].split())
        return any(line.startswith("#SBATCH") for line in text.split("\n", 20))

    def leftover(self) -> Iterator[Task]:
        by_name: dict[str, list[Source]] = {}
        for source in self.sources:
            by_name.setdefault(source.path.rpartition("/")[2], []).append(source)
        for source in self.sources:
            files: dict[str, File] = {}
            todo = [source]
            while todo and len(files) < _MAX_FILES:
                names = dict.fromkeys(_FILE.findall(todo.pop().text))
                found = itertools.chain.from_iterable(by_name.get(name, ()) for name in names)
                for other in itertools.islice(found, _MAX_FILES):
                    path = os.path.abspath(other.path)
                    if path not in files and other is not source:
                        files[path] = File(other.text, other)
                        todo.append(other)
            directory = os.path.dirname(os.path.abspath(source.path)) if files else "/"
            yield task(source, source.text, 1, "").replace(files=files, directory=directory)


def task(source: Source, text: str, line: int, name: str) -> Task:
    """Return the task of a script. Its parameters are not known."""
    end = line + text.count("\n")
    first = text.partition("\n")[0]
    shell = "bash" if not first.startswith("#!") or "bash" in first else "sh"
    words = (
        *words_at((shell, "-c"), source, line),
        Word(text, source, line, end, block=True),
        *words_at((source.path.rpartition("/")[2], ANY_WORDS), source, line),
    )
    return Task(STYLE, name, source, line, words, _of_slurm(text))


def _of_slurm(text: str) -> Variables:
    """Return the variables that Slurm sets by the options in a script: sbatch(1).

    Options of the sbatch command could replace them. They are not in the file.
    """
    found = Variables()
    for line in text.split("\n"):
        if line.startswith("#SBATCH"):
            match = _NODES.match(line)
            if match:
                count = match[1] if match[1].isdecimal() else UNKNOWN
                found.known.update(dict.fromkeys(("SLURM_NNODES", "SLURM_JOB_NUM_NODES"), count))
        elif line.strip() and not line.startswith("#"):
            break  # the options end with the first command
    return found
