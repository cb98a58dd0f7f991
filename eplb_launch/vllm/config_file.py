"""Read the YAML file of vLLM's --config as vLLM does, within limits.

This is imported only if a command names such a file: importing yaml takes two interpreter starts.
"""

from __future__ import annotations

from eplb_launch.files import DISK, NotRegularError
from eplb_launch.vllm.arguments import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from eplb_launch.files import Files

# A real file has some 50 lines. A file beyond these limits could take seconds to read.
MAX_BYTES = 128 * 1024
MAX_NODES = 4000  # keys and values, with those that "<<" copies
MAX_DEPTH = 50
_LONGEST = 100  # characters of a value that is no string: reading it takes quadratic time
_STRING = "tag:yaml.org,2002:str"
# PyYAML raises these for a scalar that does not fit its tag, such as `!!bool x`.
_SCALAR_ERRORS = (ValueError, LookupError, AttributeError, ArithmeticError)


class ConfigFileError(RefusedError):
    """The file cannot be read. The message says why, and quotes nothing from the file."""

    code = "config-unreadable"
    remedy = "give vLLM a readable YAML file, or put the settings of the rule on the command line"

    def __init__(self, why: str) -> None:
        super().__init__(f"the --config file is {why}")


def load(path: str, files: Files = DISK) -> Mapping[object, Any]:
    """Return the top-level map of a file (vllm/utils/argparse_utils.py, load_config_file)."""
    try:
        content = files.read(path, MAX_BYTES + 1)
    except NotRegularError:
        raise ConfigFileError("not a regular file") from None
    except OSError as error:
        raise ConfigFileError(f"unreadable: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ConfigFileError(f"larger than {MAX_BYTES // 1024} KiB")
    try:
        import yaml
    except ImportError:
        raise ConfigFileError("not read: PyYAML is not installed") from None
    try:
        value = _load(content.decode("utf-8"))
    except ConfigFileError:
        raise
    except UnicodeDecodeError:
        raise ConfigFileError("not UTF-8") from None
    # Which depth is too much depends on PyYAML and on the interpreter: one message for both cases.
    except (yaml.YAMLError, RecursionError, *_SCALAR_ERRORS) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", at line {mark.line + 1}" if mark else ""
        raise ConfigFileError(f"not valid YAML, or nested too deeply{where}") from None
    if not isinstance(value, dict):
        raise ConfigFileError("not a YAML map")
    return value


def _load(text: str) -> object:
    """Do what yaml.safe_load does, and stop at the limits."""
    from yaml import Node, SafeLoader, ScalarNode

    class Loader(SafeLoader):
        nodes = depth = 0

        def count(self, more: int) -> None:
            self.nodes += more
            if self.nodes > MAX_NODES:
                raise ConfigFileError(f"larger than {MAX_NODES} keys and values")

        def compose_node(self, parent: Node | None, index: int) -> Node | None:
            self.count(1)
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise ConfigFileError("not valid YAML, or nested too deeply")
            node = super().compose_node(parent, index)
            self.depth -= 1
            if isinstance(node, ScalarNode) and node.tag != _STRING and len(node.value) > _LONGEST:
                raise ConfigFileError("not valid YAML: a value is too long")
            return node

        def flatten_mapping(self, node: Any) -> None:
            before = len(node.value)
            super().flatten_mapping(node)
            self.count(len(node.value) - before)

    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
