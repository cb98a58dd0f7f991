"""Decide, say so, and become the command. Whatever goes wrong here, the command starts."""

from __future__ import annotations

import gc
import os

from eplb_launch.exec import LAUNCHER_FAILED, become, say
from eplb_launch.launch_options import check_cap, check_version
from eplb_launch.vllm.releases import CAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, NoReturn


def run(
    command: Sequence[str],
    *,
    strict: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    vllm_version: str | None = None,
    max_ctas: int | Literal["fit"] = CAP,
    sms: int | None = None,
) -> NoReturn:
    """Start `command` in this process, with what its plan sets on top of the environment.

    Says on stderr what was set, and each warning, in one line each; with `verbose` also why nothing
    was set, with `quiet` nothing. With `strict`, a warning or an error of the launcher keeps the
    command from starting: exit status 125. `vllm_version`, `max_ctas` and `sms` are those of
    `plan`, and ValueError says what is wrong with one.
    """
    check_cap(max_ctas, sms)
    check_version(vllm_version)
    gc.disable()  # exec takes all of it in a few milliseconds
    environment: dict[str, str] = {}
    lines: list[str] = []
    trouble: list[str] = []
    try:
        from eplb_launch.plans import plan

        decided = plan(command, os.environ, vllm_version=vllm_version, max_ctas=max_ctas, sms=sms)
        environment = decided.environment
        unfit = "".join(f"; {note.message}: --max-ctas fit" for note in decided.unfit)
        # Where it is overwritten, the warning says what the server gets.
        if "variable-overwritten" not in [warning.code for warning in decided.warnings]:
            lines = [
                f"set {name}={value}: {decided.reason}{unfit}"
                for name, value in environment.items()
            ]
        if verbose and not environment:
            lines.append(f"nothing set: {decided.reason}")
        trouble += [f"{warning.message}; {warning.remedy}" for warning in decided.warnings]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a module that shadows ours may even exit
        environment = {}
        trouble = [f"internal error, nothing set: {place(error)}"]
    if strict and trouble:
        for line in trouble:
            say(f"not started (--strict): {line}")
        os._exit(LAUNCHER_FAILED)  # whatever is still to be flushed must not change the status
    if not quiet:
        for line in lines:
            say(line)
        for line in trouble:
            say(f"warning: {line}")
    become(command, environment)


def fail(error: Exception) -> NoReturn:
    """End a sub-command that failed: 125 and one line, for what the system says in its words."""
    system = isinstance(error, OSError) and error.strerror  # stdout is full or closed
    if "_EPLB_LAUNCH_COMPLETE" not in os.environ:  # else somebody is typing there
        say(system or f"internal error: {place(error)}")
    os._exit(LAUNCHER_FAILED)  # whatever is still to be flushed must not change the status


def place(error: BaseException) -> str:
    """Return what was raised and where. Not its message, which could hold a secret."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    file = os.path.basename(traceback.tb_frame.f_code.co_filename)
    return f"{type(error).__name__} at {file}:{traceback.tb_lineno}"
