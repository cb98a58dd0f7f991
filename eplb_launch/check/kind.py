"""Kinds of deployment files: each is a subclass of Kind, and stands in `reader.KINDS`.

A kind says which files it takes, what they start, and how a fix is written there (`Place`).
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

# A document without one of these starts no server.
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
# A document with one of these may have its command, or its variables, in another file.
LEADS = ("VLLM_", "NCCL_", "configMap")
# What starts an engine, as it stands in a script, in a list of words, or in lines of such a list.
_NEXT = r"[\"']?[,\s\\]+(?:-\s+)?[\"']?"
ENTRY_POINT = re.compile(
    rf"(?<![\w.-])(?:vllm(?:-omni)?{_NEXT}(?:serve|run-batch)(?![\w-])"
    rf"|-m{_NEXT}(?:vllm\.entrypoints\.[\w.]+|dynamo\.vllm|huggingfaceserver)(?![\w-]))"
)


class Kind:
    """A kind of file, and what has been read of it in one review."""

    title: str  # for a message
    form = ""  # of its text: `sources.YAML`, of which it gets each document, or a name of its own
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.sources: list[Source] = []
        # Files, with the first and the last line of what another object says too.
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
        """Take a file, or a document of one, if it is of this kind. Return whether it is."""
        self.sources.append(source)
        return True

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]] | Trouble]:
        """Yield each file with what it starts, after all files have been taken."""
        return iter(())

    def leftover(self) -> Iterator[Task]:
        """Yield what counts only if no other task runs it."""
        return iter(())
