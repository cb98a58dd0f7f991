"""A target for each reader of foreign bytes: what it is fed with, and what has to hold.

A target returns nothing. Whatever it raises is a finding.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eplb_launch.assessment import assess
from eplb_launch.check.command import check
from eplb_launch.check.reports import STYLES
from eplb_launch.command import find_server
from eplb_launch.deepep import cap
from eplb_launch.files import InMemory
from eplb_launch.model import printable
from eplb_launch.nccl.variables import readings
from eplb_launch.plans import plan
from eplb_launch.ps.processes import Process, _environ, _overwritten
from eplb_launch.render import explain
from eplb_launch.terminal import json_text
from eplb_launch.vllm.arguments import RefusedError
from eplb_launch.vllm.config_file import load
from eplb_launch.vllm.installed import look_up

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
SERVE = (
    *("vllm", "serve", "m", "-dp", "8", "--enable-eplb", "--all2all-backend"),
    *("deepep_low_latency", "--eplb-config.use_async", "true"),
)
# What is put in as it is, besides the pieces of other seeds.
WORDS = (
    *(" ".join(SERVE), "vllm serve", "--config", "/c.yaml", "NCCL_MAX_CTAS=8", "eplb-launch -- "),
    *('"$@"', "${A:-", "$(", "`", "<<E\n", "\nE\n", "eval ", "exec ", "set -- ", "; do\n", "case "),
    *("&a ", "*a", "<<: ", "- ", ": ", "|\n", ">-\n", "!!", "{", "[", "---\n", "'", '"', "{{ "),
    *("FROM ", "ENV A=", "RUN ", "CMD ", "COPY ", "ARG ", "\\\n", "# escape=`\n", "ENTRYPOINT ["),
    *("[Service]\n", "ExecStart=", "Environment=", "EnvironmentFile=", "%i", "%%", "ExecStart=\n"),
    *("services:", "extends:", "include:", "env_file:", "configMap:", "kind: Pod", "x-", "spec:"),
    *("\0", "\r\n", "\xff", "\u202e", "\x1b[", "\ufeff", "::error::", "=", ",", "/../", "\t", "\n"),
    *("99999999999999999999", "-1", "0x8", "1e9", "nan", "null", "true", "$((9**9))", "*", "?"),
)


class Broken(Exception):  # noqa: N818
    """Something that has to hold does not."""


@dataclass(frozen=True)
class Target:
    """A reader, and what it is fed with at first."""

    name: str
    feed: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def _commands() -> tuple[bytes, ...]:
    found = []
    for path in sorted(glob.glob(os.path.join(DATA, "oracle", "*.jsonl"))):
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        found += ["\0".join(["vllm", *row["argv"]]).encode() for row in rows[::40]]
    shell = [
        " ".join(SERVE),
        "A=1; for i in a b; do vllm serve m $i; done",
        'eval "$A"; x() { a; }',
    ]
    wrapped = ["sudo\0-E", "env\0-u\0A\0B=1", "numactl\0-N0", "uv\0run", "srun\0--export=ALL"]
    found += [f"bash\0-c\0{text}".encode() for text in shell]
    return (*found, *("\0".join([text, *SERVE]).encode() for text in wrapped))


def _files(*ends: str) -> tuple[bytes, ...]:
    found = []
    for folder in ("manifests", "field", "docs"):
        for path in sorted(glob.glob(os.path.join(DATA, folder, "**", "*"), recursive=True)):
            if os.path.isfile(path) and any(part in os.path.basename(path) for part in ends):
                with open(path, "rb") as file:
                    found.append(file.read())
    if not found:
        raise Broken(f"no seeds for {ends}")
    return tuple(found)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _shown(decided: Any) -> None:
    """Show a plan in each way, and see that it can be shown."""
    found = assess(decided)
    explained = json_text(explain.as_dict(decided, found))
    if not explained.isascii() or json.loads(explained)["schema"] != explain.SCHEMA:
        raise Broken("JSON")
    if len(explained) % 16:  # the table takes most of the time
        return
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        explain.show(decided, found)
    if not all(line.isprintable() for line in shown.getvalue().split("\n")):
        raise Broken("explain shows what a terminal acts on")


def command_line(content: bytes) -> None:
    """Words, as a launch and `explain` have them."""
    files = InMemory({"/c.yaml": "data-parallel-size: 8\n"})
    _shown(plan(_text(content).split("\0") or ["a"], {}, vllm_version="0.16.0", files=files))


def environ(content: bytes) -> None:
    """An environment, as the kernel shows it in /proc, and as a server has it."""
    _overwritten(content)
    found = _environ(content)
    for version in ("0.16.0", None):
        _shown(
            plan(SERVE, found, vllm_version=version, files=InMemory({"/etc/nccl.conf": "A=1\n"}))
        )


def title(content: bytes) -> None:
    """What a process calls itself."""
    name, _, cmdline = content.partition(b"\n")
    process = Process(1, 0, 1, 1, "S", 1, os.fsdecode(name[:15]), cmdline)
    if process.title and not printable(process.title.text).isprintable():
        raise Broken("a title")
    find_server(process.command, {})


def conf_file(content: bytes) -> None:
    """A conf file of NCCL's."""
    files = InMemory({"/etc/nccl.conf": _text(content), "/h/.nccl.conf": _text(content)}, 0)
    readings({"HOME": "/h"}, "0.16.0", files=files)
    readings({"HOME": "/h", "NCCL_CONF_FILE": "/etc/nccl.conf"}, None, files=files)
    _shown(plan(SERVE, {"HOME": "/h"}, vllm_version="0.16.0", files=files))


def config_file(content: bytes) -> None:
    """The YAML file of vLLM's --config."""
    files = InMemory({"/c.yaml": _text(content)})
    with contextlib.suppress(RefusedError):
        load("/c.yaml", files)
    _shown(plan(("vllm", "serve", "--config", "/c.yaml"), {}, vllm_version="0.16.0", files=files))


def dist_info(content: bytes) -> None:
    """An environment of Python's: the first line names a folder, the rest is all its files."""
    name, _, rest = content.partition(b"\n")
    folder = "/v/lib/python3.12/site-packages"
    text = _text(rest)
    package = _text(name).replace("/", "")[:255] or "a"
    files = InMemory(
        {
            "/v/bin/vllm": text,
            "/v/bin/python3": "",
            "/v/pyvenv.cfg": text,
            f"{folder}/{package}/RECORD": text,
            f"{folder}/vllm/_version.py": text,
            "/w/vllm": f"#!/v/bin/python3\n{text}",
        }
    )
    for program in ("/v/bin/vllm", "/w/vllm", "/v/bin/python3"):
        look_up(program, {"PATH": "/v/bin", "PYTHONPATH": text[:200]}, "/", files)
    _shown(plan(("/w/vllm", *SERVE[1:]), {}, files=files))


def gpus(content: bytes) -> None:
    """What the driver says of a GPU, and a model of its experts."""
    base = "/proc/driver/nvidia/gpus/0000:01:00.0/information"
    files = InMemory({base: _text(content), "/m/config.json": _text(content)})
    words = (*SERVE[:2], "/m", *SERVE[3:])
    decided = plan(words, {}, vllm_version="0.16.0", files=files, max_ctas="fit")
    _shown(cap.explain(decided, files))


class _Folder:
    """`check` on one file, in a folder of its own."""

    def __init__(self, name: str, beside: str = "") -> None:
        self.name = name
        self.beside = beside
        self.folder = ""

    def __call__(self, content: bytes) -> None:
        if not self.folder:
            self.folder = tempfile.mkdtemp(prefix="eplb-fuzz-", dir=_memory())
        with open(os.path.join(self.folder, self.name), "wb") as file:
            file.write(content)
        with open(os.path.join(self.folder, self.beside or "beside.txt"), "wb") as file:
            file.write(content)
        review = check([self.folder], "0.16.0")
        for trouble in review.troubles:
            if "bug of its own" in trouble.message:
                raise Broken(trouble.message)
        if any(finding.assessment.cause == "failed" for finding in review.findings):
            raise Broken("failed to make sense of it")
        for name, style in STYLES.items():
            text = style(review)
            if name in ("json", "sarif") and not (text.isascii() and json.loads(text)):
                raise Broken(name)
            if not all(c.isprintable() or c in "\n\t" for c in text):
                raise Broken(f"{name}: what a terminal acts on")
            if name == "text" and any(row.lstrip()[:2] == "::" for row in text.split("\n")):
                raise Broken("a workflow command")


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


TARGETS = (
    Target("command line", command_line, _commands()),
    Target(
        "environ",
        environ,
        (
            b"PATH=/bin\0HOME=/root\0NCCL_MAX_CTAS=8\0VLLM_DP_SIZE=2\0",
            b"NCCL_MIN_NCHANNELS=16\0NCCL_CONF_FILE=/etc/nccl.conf\0NCCL_MAX_CTAS= 0x8\0",
            b"VLLM_ALL2ALL_BACKEND=deepep_low_latency\0RAY_ADDRESS=x\0VLLM_BATCH_INVARIANT=1\0",
        ),
    ),
    Target("title", title, (b"VLLM::EngineCor\nVLLM::EngineCore_DP0\0\0\0", b"a\nvllm\0serve\0m")),
    Target("conf file", conf_file, (b"NCCL_MAX_CTAS=8\nNCCL_MIN_CTAS=4\n#a\nNCCL_DEBUG = INFO\n",)),
    Target(
        "--config",
        config_file,
        (
            b"data-parallel-size: 8\nenable-eplb: true\neplb-config: {use_async: true}\n",
            b"a: &a [1, 2]\nb: *a\nall2all_backend: deepep_low_latency\n<<: {c: 1}\n",
        ),
    ),
    Target(
        "dist-info",
        dist_info,
        (
            b"vllm-0.16.0.dist-info\n#!/v/bin/python3\nhome = /usr/bin\n__version__ = '0.16.0'\n",
            (
                b'vllm_x-1.dist-info\n#!/bin/sh\n\'\'\'exec\' "/v/bin/python3" "$0" "$@"\n'
                b"vllm/__init__.py,sha256=x,1\n"
            ),
        ),
    ),
    Target(
        "GPU",
        gpus,
        (b"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n", b'{"n_routed_experts": 256, "a": [1]}'),
    ),
    Target("YAML", _Folder("a.yaml", "base.yaml"), _files(".yaml", ".yml")),
    Target("compose", _Folder("compose.yaml", "vllm.env"), _files("compose")),
    Target("unit", _Folder("vllm.service", "limit.env"), _files(".service", ".conf")),
    Target("Dockerfile", _Folder("Dockerfile"), _files("Dockerfile")),
    Target("shell", _Folder("start.sh"), _files(".sh", ".sbatch")),
)
