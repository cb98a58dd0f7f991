"""The launcher in a file: its options, whether it is installed there, and how a fix starts it."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

from eplb_launch.check import images
from eplb_launch.check.tasks import Task
from eplb_launch.launch_options import NAMES, SINGLE_FILE, read
from eplb_launch.model import UNKNOWN, PlanWarning, Server, Wrapper
from eplb_launch.vllm.releases import CAP, VARIABLE

CODE = "launcher-not-there"
NAME = NAMES[0]
# Where the ConfigMap of `make pyz` is mounted: examples/README.md.
PLACE = f"/opt/eplb-launch/{SINGLE_FILE}"
# Where systemd looks for a program without a path: systemd.exec(5), ExecSearchPath=.
_SYSTEM = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_LAUNCHERS = (*NAMES, SINGLE_FILE)


def is_there(wrappers: Sequence[Wrapper]) -> bool:
    """Whether the launcher is one of the wrappers of a server."""
    return any(map(_is_launcher, wrappers))


def lacks_dashes(wrappers: Sequence[Wrapper]) -> bool:
    """Whether the launcher lacks the "--" that it needs before its command."""
    return any(_is_launcher(wrapper) and "--" not in wrapper.words for wrapper in wrappers)


def options(wrappers: Sequence[Wrapper]) -> dict[str, Any] | None:
    """Return the options of the launcher; None if it refuses them."""
    found: dict[str, Any] | None = {}
    for wrapper in filter(_is_launcher, wrappers):
        names = [word.rpartition("/")[2] for word in wrapper.words]
        start = next(i for i, name in enumerate(names) if name in _LAUNCHERS) + 1
        if not any(UNKNOWN in word for word in wrapper.words[start:]):
            found = read([*wrapper.words[start:], "command"])
    return found


def _is_launcher(wrapper: Wrapper) -> bool:
    if wrapper.name in images.ENGINES:
        return False  # a launcher in the container is a wrapper of its own
    return wrapper.name in _LAUNCHERS or any(
        word.rpartition("/")[2] in _LAUNCHERS for word in wrapper.words[:4]
    )


def words(task: Task, program: Sequence[str]) -> list[str]:
    """Return the words that would start the launcher."""
    if task.bare:
        return ["python3", PLACE]
    folder = posixpath.dirname("".join(program[:1]))
    if task.fix_style.absolute and folder not in ("", *_SYSTEM) and UNKNOWN not in folder:
        return [f"{folder}/{NAME}"]
    return [NAME]


def how(task: Task) -> str:
    """Return how the launcher gets to the path in `words`, to add to a sentence."""
    if not task.bare:
        return ""
    if task.fix_style.image:
        return ", copied there by a build step"
    return ", mounted from its ConfigMap" if task.fix_style.templated else ", mounted as one file"


def missing(task: Task, server: Server) -> PlanWarning | None:
    """Return the warning that a file starts the launcher where it cannot be; None if it may be.

    An image lacks it only if it is as it was published, and no mount or step may bring it.
    """
    run = images.run_of(server)
    names = [wrapper.name for wrapper in server.wrappers]
    inside = 1 + max(at for at, name in enumerate(names) if name == run.engine) if run else 0
    found = next(filter(_is_launcher, server.wrappers[inside:]), None)
    if found is None:
        return None
    path = next((word for word in found.words[:4] if NAME in word.replace("_", "-")), NAME)
    image, bare = (run.image, run.bare) if run is not None else (task.image, task.bare)
    if bare and not any(path.startswith(mount.rstrip("/") + "/") for mount in task.mounts):
        if any(images.brings(word.text) for word in task.words):
            return None
        return PlanWarning(
            CODE,
            f"{image} has no {NAME}, and nothing here adds it: the container will not start",
            f"build it into the image, or mount {SINGLE_FILE} from its ConfigMap, or set "
            f"{VARIABLE}={CAP} instead",
        )
    first = task.words[0].text if task.words else ""
    folder = posixpath.dirname(server.program)
    if task.fix_style.absolute and first == NAME and folder not in ("", *_SYSTEM):
        return PlanWarning(
            CODE,
            f"systemd looks for {NAME} in {_SYSTEM[1]} and the like, not beside {server.program}",
            f"ExecStart={folder}/{NAME} -- {server.program} …, if it is installed there",
        )
    return None
