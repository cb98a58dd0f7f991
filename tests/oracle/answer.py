"""Answer command lines with vLLM's own code: run by an interpreter that has what vLLM imports.

    python answer.py FOLDER

FOLDER holds the sources of one release. The first line written says the option strings of its
`vllm serve`; after that each line read is a row (see `generate`) and each line written its answer.
All rows of a release are answered in one process, as importing vLLM takes longer than a hundred
answers, and each is answered from a fresh start: arguments and defaults are copied after parsing,
and the environment and the working directory are those of the row.

What of vLLM does not run: the model's configuration is not loaded (a mixture of experts is
assumed), and nothing is started. Its platform is the CPU, but says that it has GPUs enough.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.machinery
import inspect
import io
import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
import types
from typing import Any
from unittest.mock import MagicMock

# More is wrong with the interpreter than a few packages that parsing does not need.
MAX_STAND_INS = 40
MANY = 1 << 20  # GPUs
QUIET = {
    "HF_HUB_OFFLINE": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",
}


class Made(Exception):  # noqa: N818 - not an error
    """The ParallelConfig is made: no more of the engine's configuration is needed."""


def load(name: str) -> Any:
    """Import a module of vLLM, with stand-ins for what it imports and what is not there.

    One environment serves all releases, so it lacks some packages, compiled modules, and names
    that newer packages no longer have. None of them takes part in parsing arguments.
    """
    for _ in range(MAX_STAND_INS):
        try:
            return importlib.import_module(name)
        except ImportError as error:  # not one that vLLM is prepared for: it catches these
            missing = str(error.name)
            lost = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
            if lost:
                setattr(sys.modules[lost[2]], lost[1], _stand_in(lost[1]))
                missing = f"{lost[2]}.{lost[1]}"
            elif isinstance(error, ModuleNotFoundError) and not f"{name}.".startswith(
                f"{missing}."
            ):
                sys.modules[missing] = _module(missing)
            else:
                raise
            print(f"not there, and stood in for: {missing}", file=sys.stderr)
    raise RuntimeError(f"{name} cannot be imported")


def _stand_in(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {"__getattr__": lambda _, inner: _stand_in(inner)})


def _module(name: str) -> Any:
    module: Any = types.ModuleType(name)
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__getattr__ = _stand_in
    return module


class Release:
    """One release of vLLM, imported."""

    def __init__(self) -> None:
        """Import it and make its parser."""
        load("vllm.platforms.cpu").CpuPlatform.import_kernels = lambda *_: None
        self.arguments = load("vllm.engine.arg_utils")
        self.serve = load("vllm.entrypoints.cli.serve")
        self._claim_gpus()
        argparse = load("vllm.utils.argparse_utils")
        self.command = self.serve.ServeSubcommand()
        self.parser = argparse.FlexibleArgumentParser(prog="vllm")
        subparsers = self.parser.add_subparsers(required=False, dest="subparser")
        serve = self.command.subparser_init(subparsers)
        self.options = serve._option_string_actions  # noqa: SLF001 - argparse has no other list
        self._replace()
        try:
            rule = importlib.import_module("vllm.distributed.eplb.eplb_utils")
            self.override = rule.override_envs_for_eplb
        except (ImportError, AttributeError):  # before 0.17
            self.override = None
        self.kernel = self._kernel_statements()

    def _claim_gpus(self) -> None:
        platform = type(importlib.import_module("vllm.platforms").current_platform)
        for name, value in {
            **dict.fromkeys(("is_cuda", "is_cuda_alike"), True),
            **dict.fromkeys(("is_cpu", "is_rocm", "is_xpu", "is_tpu"), False),
            "device_count": MANY,
        }.items():
            setattr(platform, name, lambda *_, value=value: value)
        for module in ("vllm.config.parallel", "vllm.utils.torch_utils"):  # up to 0.19
            load(module).cuda_device_count_stateless = lambda: MANY

    def _replace(self) -> None:
        """Replace what would look at the machine or the model, or start something."""
        engine = self.arguments.EngineArgs
        engine.create_model_config = lambda _: MagicMock(is_moe=True)
        for name in dir(engine):
            if name.startswith("_set_default_"):
                setattr(engine, name, _set_defaults)
        replaced = {
            "maybe_override_with_speculators": lambda model, tokenizer, **options: (
                (model, tokenizer, options.get("vllm_speculative_config"))
            ),
            "resolve_kv_cache_dtype_string": lambda *_: "auto",
            "is_interleaved": lambda *_: False,
            "CacheConfig": MagicMock(),
            "ParallelConfig": self._parallel_config(self.arguments.ParallelConfig),
        }
        for name, value in replaced.items():
            if hasattr(self.arguments, name):
                setattr(self.arguments, name, value)
        self.serve.run_server = self.serve.run_multi_api_server = self._engine
        self.serve.run_headless = lambda args: self._engine(args, headless=True)
        if hasattr(self.serve, "run_dp_supervisor"):
            self.serve.run_dp_supervisor = self._engine
        self.serve.uvloop = types.SimpleNamespace(run=lambda _: None)
        with contextlib.suppress(ImportError):
            nixl: Any = importlib.import_module("vllm.distributed.nixl_utils")
            nixl.is_nixl_available = lambda: self.nixl

    def _parallel_config(self, original: Any) -> Any:
        def make(*args: Any, **options: Any) -> None:
            self.parallel = original(*args, **options)
            raise Made

        class Stand(type):  # its defaults are read from the class
            def __getattr__(cls, name: str) -> Any:
                return getattr(original, name)

        return Stand("ParallelConfig", (), {"__new__": lambda _, *a, **o: make(*a, **o)})

    def _engine(self, args: Any, *, headless: bool = False) -> None:
        self.engine = self.arguments.AsyncEngineArgs.from_cli_args(args)
        with contextlib.suppress(Made):
            self.engine.create_engine_config(headless=headless)

    def _kernel_statements(self) -> Any:
        """Return those statements of create_engine_config that decide on the MoE backend."""
        source = textwrap.dedent(inspect.getsource(self.arguments.EngineArgs.create_engine_config))
        function = ast.parse(source).body[0]
        assert isinstance(function, ast.FunctionDef)
        wanted = ("kernel_config =", "kernel_config.moe_backend =")
        body = [node for node in function.body if any(w in ast.unparse(node) for w in wanted)]
        return compile(ast.Module(body, []), "create_engine_config", "exec") if body else None

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return what vLLM makes of a row."""
        self.nixl = row["nixl"]
        self.engine = self.parallel = None
        said = io.StringIO()
        stage = "parser"
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                args = copy.deepcopy(self.parser.parse_args(list(row["argv"])))
                if getattr(args, "subparser", None) != "serve":
                    return {"accepted": False, "error": "parser: not vllm serve"}
                stage = "config"
                self.command.validate(args)
                self.command.cmd(args)
                if self.parallel is None:
                    raise RuntimeError("no ParallelConfig")  # noqa: TRY301 - a bug of ours
                return self._settings()
        except SystemExit:
            return {"accepted": False, "error": f"{stage}: {_last_line(said.getvalue())}"}
        except Exception as error:  # noqa: BLE001 - whatever it is, vLLM does not start
            return {"accepted": False, "error": f"{stage}: {_of(error)}"}

    def _settings(self) -> dict[str, Any]:
        parallel, names = self.parallel, {"self": self.engine}
        if self.kernel:
            exec(self.kernel, vars(self.arguments), names)
        moe_backend = getattr(names.get("kernel_config"), "moe_backend", None)
        if self.override:
            takes = inspect.signature(self.override).parameters
            self.override(parallel, *([moe_backend] if "moe_backend" in takes else []))
        return {
            "accepted": True,
            "nccl_max_ctas": os.environ.get("NCCL_MAX_CTAS"),
            "data_parallel_size": parallel.data_parallel_size,
            "enable_eplb": parallel.enable_eplb,
            "use_async": parallel.eplb_config.use_async,
            "all2all_backend": parallel.all2all_backend,
            "communicator": getattr(parallel.eplb_config, "communicator", None),
            "moe_backend": moe_backend,
        }


def _set_defaults(engine: Any, *_: Any, **__: Any) -> None:
    """Do what vLLM's own ask for afterwards; they need the model's configuration."""
    engine.enable_prefix_caching = bool(engine.enable_prefix_caching)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:100]


def _of(error: Exception) -> str:
    lines = str(error).splitlines()
    # pydantic: "1 validation error for X", the field, what is wrong.
    return f"{type(error).__name__}: {' '.join(line.strip() for line in lines[:3])}"[:100]


def main(folder: str) -> None:
    """Answer the rows on stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    sys.path[:1] = [folder]
    for name in [name for name in os.environ if name.startswith(("VLLM_", "NCCL_"))]:
        del os.environ[name]
    os.environ.update(QUIET)
    release = Release()
    plain = dict(os.environ)
    options = {name: action.dest for name, action in sorted(release.options.items())}
    print(json.dumps({"options": options}), file=answers, flush=True)
    for line in sys.stdin:
        row = json.loads(line)
        place = tempfile.mkdtemp()
        try:
            os.chdir(place)
            for name, text in row["files"].items():
                with open(name, "w", encoding="utf-8", errors="surrogatepass") as file:
                    file.write(text)
            os.environ.update(row["env"])
            print(json.dumps(release.answer(row)), file=answers, flush=True)
        finally:
            os.chdir("/")
            shutil.rmtree(place)
            os.environ.clear()
            os.environ.update(plain)


if __name__ == "__main__":
    main(sys.argv[1])
