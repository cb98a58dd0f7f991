"""How a release is asked: a small package that is built like vLLM, in a process of its own."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from oracle.ask import Release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Each row asks it to see what the one before left behind.
LIKE_VLLM = {
    "vllm/platforms/__init__.py": "from .cpu import CpuPlatform\ncurrent_platform = CpuPlatform()",
    "vllm/platforms/cpu.py": """
class CpuPlatform:
    def is_cuda_alike(self): return False
    def device_count(self): return 0
""",
    "vllm/utils/__init__.py": "",
    "vllm/utils/torch_utils.py": "",
    "vllm/utils/argparse_utils.py": """
import argparse
class FlexibleArgumentParser(argparse.ArgumentParser):
    pass
""",
    "vllm/config/parallel.py": """
import os
import not_installed_here.inner
from json import NoSuchName
class EPLBConfig:
    use_async = True
    communicator = None
class ParallelConfig:
    data_parallel_size = 1
    def __init__(self, data_parallel_size, eplb_config):
        from vllm.distributed import nixl_utils
        from vllm.platforms import current_platform
        if not current_platform.is_cuda_alike() or current_platform.device_count() < 8:
            raise ValueError("no GPU")
        if "VLLM_PLUGINS" not in os.environ or "PATH" not in os.environ:
            raise ValueError("the environment is lost")
        if data_parallel_size > 64:
            raise ValueError("64 ranks\\nat most\\nhere\\nand no more")
        self.data_parallel_size = data_parallel_size
        self.eplb_config = eplb_config
        self.enable_eplb = os.path.exists("here")
        self.all2all_backend = os.environ.get("VLLM_ALL2ALL_BACKEND")
        if eplb_config.communicator is None:
            nixl = nixl_utils.is_nixl_available()
            eplb_config.communicator = "nixl" if nixl else "torch_gloo"
""",
    "vllm/distributed/nixl_utils.py": "def is_nixl_available(): return False",
    "vllm/distributed/eplb/eplb_utils.py": """
import os
def override_envs_for_eplb(parallel_config, moe_backend=None):
    if moe_backend == "mega":
        os.environ["NCCL_MAX_CTAS"] = "8"
""",
    "vllm/engine/arg_utils.py": """
import types
from vllm.config.parallel import EPLBConfig, ParallelConfig
DEFAULT = EPLBConfig()
class EngineArgs:
    enable_prefix_caching = None
    @classmethod
    def from_cli_args(cls, args):
        engine = cls()
        vars(engine).update(vars(args))
        return engine
    def _set_default_args(self):
        raise RuntimeError("needs the model")
    def create_model_config(self):
        raise RuntimeError("needs the model")
    def create_engine_config(self, headless=False):
        model_config = self.create_model_config()
        assert model_config.is_moe
        self._set_default_args()
        assert self.enable_prefix_caching is not None
        parallel_config = ParallelConfig(self.data_parallel_size, eplb_config=self.eplb_config)
        kernel_config = types.SimpleNamespace(moe_backend="auto")
        if self.moe_backend != "auto":
            kernel_config.moe_backend = self.moe_backend
        raise RuntimeError("not needed")
class AsyncEngineArgs(EngineArgs):
    pass
""",
    "vllm/entrypoints/cli/serve.py": """
import uvloop_that_is_not_there as uvloop
from vllm.engine.arg_utils import DEFAULT
async def run_server(args): raise RuntimeError("started")
def run_multi_api_server(args): raise RuntimeError("started")
def run_headless(args): raise RuntimeError("started")
class ServeSubcommand:
    def subparser_init(self, subparsers):
        serve = subparsers.add_parser("serve")
        serve.add_argument("--data-parallel-size", "-dp", type=int, default=1)
        serve.add_argument("--moe-backend", default="auto")
        serve.add_argument("--eplb-config", default=DEFAULT)
        serve.add_argument("--way", default="one", choices=("one", "many", "headless", "none"))
        return serve
    def validate(self, args):
        if args.moe_backend == "bad":
            raise ValueError("bad")
    def cmd(self, args):
        print("what vLLM prints is no answer")
        if args.way == "one": uvloop.run(run_server(args))
        if args.way == "many": run_multi_api_server(args)
        if args.way == "headless": run_headless(args)
""",
}
PLAIN: dict[str, Any] = {"argv": ["serve"], "env": {}, "files": {}, "nixl": False}
ACCEPTED = {
    "accepted": True,
    "nccl_max_ctas": None,
    "data_parallel_size": 1,
    "enable_eplb": False,
    "use_async": True,
    "all2all_backend": None,
    "communicator": "torch_gloo",
    "moe_backend": "auto",
}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder: Path = tmp_path_factory.mktemp("sources")
    for name, text in LIKE_VLLM.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with contextlib.closing(Release(sys.executable, folder, folder / "log")) as release:
        yield release
    assert release.process.returncode == 0


def test_it_says_the_options_and_what_it_stood_in_for(vllm: Release) -> None:
    names = {"-dp", "--data-parallel-size", "--eplb-config", "--moe-backend", "--way"}
    assert vllm.options == names | {"-h", "--help"}
    assert vllm.settings["-dp"] == vllm.settings["--data-parallel-size"] == "data_parallel_size"
    said = vllm.log.read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in said] == [
        "not_installed_here",
        "not_installed_here.inner",
        "json.NoSuchName",
        "uvloop_that_is_not_there",
    ]


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "arguments": ({"argv": ["serve", "-dp", "4"]}, {"data_parallel_size": 4}),
    "several servers": ({"argv": ["serve", "--way", "many"]}, {}),
    "no server": ({"argv": ["serve", "--way", "headless"]}, {}),
    "NIXL": ({"nixl": True}, {"communicator": "nixl"}),
    "a file": ({"files": {"here": "x"}}, {"enable_eplb": True}),
    "a variable": ({"env": {"VLLM_ALL2ALL_BACKEND": "x"}}, {"all2all_backend": "x"}),
    "the rule": (
        {"argv": ["serve", "--moe-backend=mega"]},
        {"moe_backend": "mega", "nccl_max_ctas": "8"},
    ),
    "the variable": ({"env": {"NCCL_MAX_CTAS": "4"}}, {"nccl_max_ctas": "4"}),
}


@pytest.mark.parametrize(("row", "expected"), ROWS.values(), ids=ROWS)
def test_every_row_is_answered_from_a_fresh_start(
    row: dict[str, Any], expected: dict[str, Any], vllm: Release
) -> None:
    for _ in range(2):
        assert vllm.answer({**PLAIN, **row}) == {**ACCEPTED, **expected}
        assert vllm.answer(PLAIN) == ACCEPTED


REFUSED = {
    "by the parser": (["serve", "-dp", "x"], r"parser: .*invalid int value: 'x'"),
    "by its check": (["serve", "--moe-backend", "bad"], r"config: ValueError: bad"),
    "by ParallelConfig": (["serve", "-dp", "65"], r"config: ValueError: 64 ranks at most here"),
    "help": (["serve", "-h"], r"parser: .*"),
    "nothing": ([], r"parser: not vllm serve"),
    "another command": (["bench"], r"parser: .*invalid choice.*"),
    "no configuration": (["serve", "--way", "none"], r"config: RuntimeError: no ParallelConfig"),
}


@pytest.mark.parametrize(("argv", "error"), REFUSED.values(), ids=REFUSED)
def test_what_vllm_refuses(argv: list[str], error: str, vllm: Release) -> None:
    answer = vllm.answer({**PLAIN, "argv": argv})
    assert set(answer) == {"accepted", "error"}
    assert not answer["accepted"]
    assert re.fullmatch(error, answer["error"])
    assert vllm.answer(PLAIN) == ACCEPTED


def test_a_release_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"vLLM ended: see .*said"):
        Release(sys.executable, tmp_path, tmp_path / "said")
    assert "No module named 'vllm'" in (tmp_path / "said").read_text()
