"""What a kind of deployment file is: one subclass each, all of them in `reader.KINDS`.

Which files it takes, what those start, and (by the Place of its tasks) how a fix is written there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import ClassVar

from eplb_launch.check.model import Trouble
from eplb_launch.check.sources import Source
from eplb_launch.check.tasks import Task
from eplb_launch.check.yaml_tree import Node
from eplb_launch.entrypoints import HINTS as ENTRY_POINTS

# Without one of these, a document starts no server that could be judged.
HINTS = (
    *ENTRY_POINTS,
    *(
        "vLLM",
        "VLLM",
        "dynamo",
        "huggingface",
        "eplb",
        "data-parallel",
        "data_parallel",
        "${{",
        "$(",
    ),
)
# With one of these, what it starts may be said in another file, or its variables there.
LEADS = ("VLLM_", "NCCL_", "configMap")
# What starts an engine, as it stands in a script, in a list of words, or in lines of such a list.
_NEXT = r"[\"']?[,\s\\]+(?:-\s+)?[\"']?"
ENTRY_POINT = re.compile(
    rf"(?<![\w.-])(?:vllm(?:-omni)?{_NEXT}(?:serve|run-batch)(?![\w-])"
    rf"|-m{_NEXT}(?:vllm\.entrypoints\.[\w.]+|dynamo\.vllm|huggingfaceserver)(?![\w-]))"
)


class Kind:
    """A kind of file, and what has been read of it in one review."""

    title: str  # for who gives a file of no kind
    form = ""  # of its text: `sources.YAML`, of which it gets each document, or a name of its own
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.sources: list[Source] = []
        # Of files, from which line to which they repeat what another object says.
        self.repeated: list[tuple[str, int, int]] = []

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether the name of a file says that it is one."""
        return os.path.splitext(path.lower())[1] in cls.suffixes

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether a text without such a name is one. `first`: its `#!`, or what is no comment."""
        return False

    def take(self, source: Source, text: str, document: Node | None) -> bool:  # noqa: ARG002
        """Take a file, or a document of one, if it is of this kind; whether it was."""
        self.sources.append(source)
        return True

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]] | Trouble]:
        """Yield each file that was taken, with what it starts; all have been read by then."""
        return iter(())

    def leftover(self) -> Iterator[Task]:
        """Yield what is only of interest where none of the tasks was seen to run it."""
        return iter(())
