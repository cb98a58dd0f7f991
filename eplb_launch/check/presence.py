"""Whether the launcher is there where a file starts it: an image, or a system, has to have it."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from eplb_launch.check import docker_run, images
from eplb_launch.check.tasks import Task
from eplb_launch.check.verdict import launcher_of
from eplb_launch.launch_options import NAMES, SINGLE_FILE
from eplb_launch.model import UNKNOWN, PlanWarning, Server
from eplb_launch.vllm.releases import CAP, VARIABLE

CODE = "launcher-not-there"
NAME = NAMES[0]
# Where the ConfigMap of `make pyz` is mounted: examples/README.md.
PLACE = f"/opt/eplb-launch/{SINGLE_FILE}"
# Where systemd looks for a program without a path: systemd.exec(5), ExecSearchPath=.
_SYSTEM = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def words(task: Task, program: Sequence[str]) -> list[str]:
    """Return the words that start the launcher, where a file has none yet."""
    if task.bare:
        return ["python3", PLACE]
    folder = posixpath.dirname("".join(program[:1]))
    if task.place.absolute and folder not in ("", *_SYSTEM) and UNKNOWN not in folder:
        return [f"{folder}/{NAME}"]
    return [NAME]


def how(task: Task) -> str:
    """Return what the words need to be there."""
    if not task.bare:
        return ""
    if task.place.image:
        return ", which a step has to copy there"
    return ", mounted from its ConfigMap" if task.place.templated else ", mounted as one file"


def missing(task: Task, server: Server) -> PlanWarning | None:
    """Return the warning that nothing brings the launcher that a file starts; None if all is well.

    Only what is sure is said: an image as it was published, without a mount that may hold programs
    and without a step that installs one.
    """
    run = docker_run.run_of(server)
    names = [prefix.name for prefix in server.prefixes]
    inside = 1 + max(at for at, name in enumerate(names) if name == run.engine) if run else 0
    found = launcher_of(server.prefixes[inside:])
    if not found:
        return None
    path = next((word for word in found if NAME in word.replace("_", "-")), NAME)
    image, bare = (run.image, run.bare) if run is not None else (task.image, task.bare)
    if bare and not any(path.startswith(mount.rstrip("/") + "/") for mount in task.mounts):
        if any(images.BRINGS.search(word.text) for word in task.words):
            return None
        return PlanWarning(
            CODE,
            f"{image} has no {NAME}, and nothing here brings it: the container does not start",
            f"build it into the image, or mount {SINGLE_FILE} from its ConfigMap, or set "
            f"{VARIABLE}={CAP} instead",
        )
    first = task.words[0].text if task.words else ""
    folder = posixpath.dirname(server.program)
    if task.place.absolute and first == NAME and folder not in ("", *_SYSTEM):
        return PlanWarning(
            CODE,
            f"systemd looks for {NAME} in {_SYSTEM[1]} and the like, not beside {server.program}",
            f"ExecStart={folder}/{NAME} -- {server.program} …, if it is installed there",
        )
    return None
