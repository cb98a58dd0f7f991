"""Whether an argument that cannot be known without running the command may be an option.

Imported only for a command that has such words.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN
from eplb_launch.vllm.options import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from eplb_launch.vllm.releases import Release

_SHORT_FLAGS = frozenset(("-dpe", "-dph", "-ep", "-h"))


def may_be_options(words: Sequence[str], release: Release, *, takes_model: bool) -> bool:
    """Whether a word of which nothing is known may be an option, with what it has to say.

    It is none where an option wants a value, nor where the model is missing: the only argument
    without an option, where there is one (`takes_model`).
    """
    known = options(release.minor)
    unknown = 0
    has_model = not takes_model
    before = ""
    for word in words:
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            before = "flag" if _stands_alone(word, known) else "option"
        elif before == "option":
            before = "value"  # maybe not its only one
        elif word.startswith(UNKNOWN) and "/" not in word:
            unknown += 1
        elif before != "value":
            has_model = True
    return unknown > (not has_model)


def _stands_alone(word: str, known: frozenset[str]) -> bool:
    """Whether an option takes no value from the next word."""
    if "=" in word or (word.startswith("-O") and len(word) > 2):
        return True
    name = word.replace("_", "-")
    if not name.startswith("--"):
        return name in _SHORT_FLAGS
    names = [name] if name in known else [other for other in known if other.startswith(name)]
    return bool(names) and all(_is_flag(other, known) for other in names)


def _is_flag(name: str, known: frozenset[str]) -> bool:
    """Whether an option is a switch: argparse's BooleanOptionalAction gives it a `--no-` form."""
    return name.startswith("--no-") or f"--no-{name[2:]}" in known
