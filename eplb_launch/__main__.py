"""The front door: `eplb-launch [OPTIONS] -- CMD` is decided and executed from here.

Everything else (help, sub-commands, usage errors) goes to the Typer app in `cli`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum
import sys

from eplb_launch.front import fail, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = frozenset(("--strict", "--quiet", "--verbose"))
_CAP = {"--max-ctas": "max_ctas", "--sms": "sms"}


def main() -> None:
    """Run the command line of this process; does not return."""
    # For `python -m eplb_launch`; the installed script did it already, a little earlier.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    argv = sys.argv[1:]
    try:
        options = launch_options(argv)
        if options is None:
            from eplb_launch.cli import main as cli_main

            cli_main(argv)
    except Exception as error:  # noqa: BLE001 - a traceback could show what is secret
        fail(error)
    if options is not None:
        run(argv[argv.index("--") + 1 :], **options)


def launch_options(argv: list[str]) -> dict[str, Any] | None:
    """Return the options before "--" of a launch; None for all that is not plainly one.

    A short cut past Typer, which takes ten times as long to import as all the rest. `cli` declares
    the same options, and explains what is wrong with others.
    """
    options: dict[str, Any] = {}
    cap: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            return _with_cap(options, cap) if next(words, None) is not None else None
        if word in _FLAGS:
            options[word[2:]] = True
        elif word == "--vllm-version" or word.startswith("--vllm-version="):
            value = word[15:] if "=" in word else next(words, "")
            from eplb_launch.releases import minor_release

            if minor_release(value) is None:
                return None
            options["vllm_version"] = value
        elif word.partition("=")[0] in _CAP:
            name, equals, value = word.partition("=")
            cap[_CAP[name]] = value if equals else next(words, "")
        else:
            return None
    return None


def _with_cap(options: dict[str, Any], cap: dict[str, str]) -> dict[str, Any] | None:
    if not cap:
        return options
    from eplb_launch.plans import cap_options

    try:
        return {**options, **cap_options(cap.get("max_ctas"), cap.get("sms"))}
    except ValueError:
        return None


if __name__ == "__main__":
    main()
