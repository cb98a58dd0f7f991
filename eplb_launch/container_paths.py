"""Paths as a process in another container sees them."""

from __future__ import annotations

import errno
import os

MAX_LINKS = 40  # Linux's own limit: path_resolution(7)


def at(path: str, root: str) -> str:
    """Return where `path`, as a process sees it whose "/" is `root`, can be opened from here.

    `root` is "" where that is our own. OSError for a loop of links; what is not there is left as
    it stands.
    """
    return root + resolve(path, root) if root else path


def resolve(path: str, root: str) -> str:
    """Return `path` without symbolic links, still as the process sees it; OSError as in `at`.

    The kernel would follow an absolute link from our own root, and `..` out of the other one.
    """
    here = ""
    links = 0
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        try:
            link = os.readlink(f"{root}{here}/{part}")
        except (OSError, ValueError):  # not a link, or not there
            here = f"{here}/{part}"
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if link.startswith("/"):
            here = ""
        parts.extend(link.split("/")[::-1])
    return here or "/"
