"""The files that another process sees: below its root, which may not be ours."""

from __future__ import annotations

import os

from eplb_launch.container_paths import at
from eplb_launch.files import Files


class View(Files):
    """The files below another root."""

    def __init__(self, root: str) -> None:
        """Look below `root`."""
        self.root = root

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a regular file below the root."""
        return super().read(at(path, self.root), most)

    def names(self, path: str) -> list[str]:
        """Return what there is in a directory below the root."""
        return super().names(at(path, self.root))

    def stat(self, path: str) -> os.stat_result:
        """Return what a path below the root leads to."""
        return super().stat(at(path, self.root))

    def real(self, path: str) -> str:
        """Return a path without links, as it is below the root."""
        try:
            return at(path, self.root)[len(self.root) :]
        except OSError:
            return path

    def user(self) -> None:
        """Whose home it is is not known."""
        return

    def runs(self, path: str) -> bool:
        """Whether a path leads to a file that can be executed."""
        return self.is_file(path) and os.access(at(path, self.root), os.X_OK)
