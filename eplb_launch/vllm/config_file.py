"""Read the YAML file of vLLM's --config, as vLLM does, within bounds.

Imported only where a command names such a file: yaml costs two interpreter starts.
"""

from __future__ import annotations

from eplb_launch.files import DISK, NotRegularError
from eplb_launch.vllm.arguments import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from eplb_launch.files import Files

# A real one has some 50 lines. Larger ones would take seconds to read.
MAX_BYTES = 128 * 1024
MAX_NODES = 4000  # keys and values, those that "<<" copies too
MAX_DEPTH = 50
_NUMBER = 100  # characters of a value that is no text: to read it takes their square
_TEXT = "tag:yaml.org,2002:str"

_OF_A_SCALAR = (ValueError, LookupError, AttributeError, ArithmeticError)


class ConfigFileError(RefusedError):
    """The file cannot be read; the message says why and holds nothing of its content."""

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
    # PyYAML's own, and what it raises of a scalar that is not of its tag, such as `!!bool x`. How
    # deep is too deep depends on its release and on the interpreter's limit: one message for both.
    except (yaml.YAMLError, RecursionError, *_OF_A_SCALAR) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", at line {mark.line + 1}" if mark else ""
        raise ConfigFileError(f"not valid YAML, or nested too deeply{where}") from None
    if not isinstance(value, dict):
        raise ConfigFileError("not a YAML map")
    return value


def _load(text: str) -> object:
    """Do what yaml.safe_load does, and stop where there is too much."""
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
            if isinstance(node, ScalarNode) and len(node.value) > _NUMBER and node.tag != _TEXT:
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
