"""The interface of a kind of deployment file: a subclass of Kind that `reader.KINDS` lists.

A kind says which files it takes, what they start, and how a fix is written there (`tasks.Style`).
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

# A document without one of these starts no server. The last two are placeholders.
HINTS = (
    *("vllm", "vLLM", "VLLM", "dynamo", "huggingface", "eplb", "data-parallel", "data_parallel"),
    *("${{", "$("),
)
# A document with one of these may have its command, or its variables, in another file.
LEADS = ("VLLM_", "NCCL_", "configMap")
# The words that start an engine: in a script, in a list of words, or one a line.
_NEXT = r"[\"']?[,\s\\]+(?:-\s+)?[\"']?"
ENTRY_POINT = re.compile(
    rf"(?<![\w.-])(?:vllm(?:-omni)?{_NEXT}(?:serve|run-batch)(?![\w-])"
    rf"|-m{_NEXT}(?:vllm\.entrypoints\.[\w.]+|dynamo\.vllm|huggingfaceserver)(?![\w-]))"
)


class Kind:
    """A kind of file, and the files of it that a review has."""

    title: str  # for messages
    form = (
        ""  # of the files: `sources.YAML`, then `take` gets each document; else a name of its own
    )
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.sources: list[Source] = []
        # Lines that repeat what another object says: a file, its first and its last line.
        self.repeated: list[tuple[str, int, int]] = []

    @classmethod
    def is_named(cls, path: str) -> bool:
        """Whether a file is of this kind by its name."""
        return os.path.splitext(path.lower())[1] in cls.suffixes

    @classmethod
    def looks(cls, first: str, text: str) -> bool:  # noqa: ARG003
        """Whether a text is of this kind. `first`: its `#!` line, or its first line of content."""
        return False

    def take(self, source: Source, text: str, document: Node | None) -> bool:  # noqa: ARG002
        """Take a file, or a document of one. Return False if it is not of this kind."""
        self.sources.append(source)
        return True

    def tasks(self) -> Iterator[tuple[Source, Iterator[Task]] | Trouble]:
        """Yield the files and what they start, after all files have been taken."""
        return iter(())

    def leftover(self) -> Iterator[Task]:
        """Yield tasks that count only if no other task runs their lines."""
        return iter(())
