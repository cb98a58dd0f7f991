"""Command lines for `vllm serve`, random but seeded: every spelling that vLLM takes, and some more.

A row is what an oracle answers: `argv` (what follows `vllm`), `env`, `files` (name to text, in the
working directory) and `nixl` (whether NIXL is installed).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

MODELS = ["deepseek-ai/DeepSeek-V3", "/models/Qwen3-30B-A3B", "m"]
TRUE = ["true", "True", "TRUE", "yes", "on", "1", "t", "y", "Y"]
FALSE = ["false", "False", "no", "off", "0", "f", "N"]
ODD_BOOLEANS = [
    "01",
    "+1",
    " 1",
    "1 ",
    "1.0",
    "0.0",
    "maybe",
    "2",
    "null",
    '"true"',
    "0k",
    "1_0",
    "",
]
BACKENDS = [
    *(["deepep_low_latency"] * 6),
    "deepep_high_throughput",
    "allgather_reducescatter",
    "naive",
    "pplx",
    "nixl_ep",
    "mori_low_latency",
    "flashinfer_all2allv",
    "None",
    "deepep-low-latency",
    "DEEPEP_LOW_LATENCY",
]
COMMUNICATORS = ["torch_nccl", "pynccl", "torch_nccl", "pynccl", "torch_gloo", "nixl", "null"]
MOE = ["deep_gemm_mega_moe", "deep-gemm-mega-moe", "DEEP_GEMM_MEGA_MOE", "triton", "auto"]
SIZES = ["2", "4", "8", "16", "8", "1"]
ODD_SIZES = ["0", "-1", "+2", " 4", "4 ", "0x4", "1_6", "08", "٨", "4.0", "", "2k", "-2"]
CURRENT = [
    "",
    "0",
    "8",
    "08",
    "4",
    "16",
    "64",
    "0x8",
    " 8",
    "8 ",
    "-1",
    "abc",
    "٨",
    "²",
    "+8",
    "1_0",
]
# Other options, with values that try to look like something else.
NOISE: list[list[str]] = [
    ["--trust-remote-code"],
    ["--async-scheduling"],
    ["--enable-prefix-caching"],
    ["--no-enable-prefix-caching"],
    ["--enforce-eager"],
    ["--enable-dbo"],
    ["--max-model-len", "16k"],
    ["--max-num-seqs", "256"],
    ["--gpu-memory-utilization", "0.9"],
    ["--gpu-memory-util=.85"],
    ["--seed", "-1"],
    ["--port", "8000"],
    ["--host", "::"],
    ["--api-key", "secret one"],
    ["--api-key=--no-enable-eplb"],
    ["--served-model-name", "a", "b", "c"],
    ["--served-model-name", "deepep_low_latency"],
    ["--quantization", "fp8"],
    ["-O3"],
    ["-O", "2"],
    ["-O=1"],
    ["-O0"],
    ["-tp", "8"],
    ["-tp=2"],
    ["--tensor_parallel_size", "2"],
    ["-n1"],
    ["-cc.cudagraph_mode", "NONE"],
    ["--compilation-config", '{"cudagraph_mode":"FULL_DECODE_ONLY"}'],
    ["--compilation-config.cudagraph_capture_sizes+", "1,2"],
    ["--hf-overrides", '{"all2all_backend":"deepep_low_latency"}'],
    ["--additional-config", '{"note":"--enable-eplb --data-parallel-size 64"}'],
    ["--additional-config.a.b", "--enable-eplb"],
    ["--speculative-config.num_speculative_tokens", "1", "--speculative-config.method", "mtp"],
    ["--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'],
    ["--data-parallel-size-local", "1"],
    ["-dpl", "0"],
    ["--data-parallel-address", "10.0.0.1"],
    ["--data-parallel-rpc-port=13345"],
    ["--data-parallel-backend", "mp"],
    ["--data-parallel-backend", "ray"],
    ["--distributed-executor-backend", "mp"],
    ["--headless"],
    ["--chat-template", "- not an option"],
    ["--chat-template", "-"],
]
ODD_NOISE: list[list[str]] = [
    ["--api-key", "--enable-eplb-not"],
    ["--api-key", "--enable-eplb"],
    ["--chat-template", "--", "x"],
    ["-dp8"],
    ["--repetition.penalty"],
    ["-0.5"],
    ["--eplb-config."],
    ["--model"],
]


class Generator:
    """Rows from one random source."""

    def __init__(self, random: Random, minor: int, *, odd: float = 0.1) -> None:
        """Make rows for vLLM 0.`minor`; `odd` is the chance of a spelling that it may refuse."""
        self.random = random
        self.minor = minor
        self.odd = odd

    def chance(self, probability: float) -> bool:
        """Toss a coin."""
        return self.random.random() < probability

    def pick(self, usual: list[str], odd: list[str] | None = None) -> str:
        """Pick one of the usual values, or now and then an odd one."""
        return self.random.choice(odd if odd and self.chance(self.odd) else usual)

    def name(self, option: str) -> str:
        """Spell an option: with underscores, partly, or abbreviated."""
        if self.chance(0.25):
            option = option.replace("-", "_").replace("__", "--", 1)
        elif self.chance(0.1):
            head, _, tail = option[2:].rpartition("-")
            option = "--" + (head.replace("-", "_") + "-" + tail if head else tail)
        if self.chance(self.odd / 2):
            option = option[: self.random.randint(max(3, len(option) - 8), len(option))]
        return option

    def valued(self, option: str, value: str) -> list[str]:
        """Spell an option with a value."""
        return [f"{option}={value}"] if self.chance(0.4) else [option, value]

    def size(self) -> list[list[str]]:
        """Spell --data-parallel-size."""
        if self.chance(0.08):
            return []
        value = self.pick(SIZES, ODD_SIZES)
        name = "-dp" if self.chance(0.35) else self.name("--data-parallel-size")
        return [self.valued(name, value)]

    def eplb(self) -> list[list[str]]:
        """Spell --enable-eplb."""
        if self.chance(0.07):
            return []
        result = [[self.name("--enable-eplb")]]
        if self.chance(0.06):
            result.append([self.name("--no-enable-eplb")])
        if self.chance(0.04 if self.minor >= 33 else self.odd / 16):
            result.append([self.name("--disable-eplb")])
        if self.chance(self.odd / 8):
            result.append(["--enable-eplb=true"])
        return result

    def eplb_keys(self) -> dict[str, str]:
        """Choose keys of EPLBConfig with their values as JSON."""
        keys = {}
        if self.chance(0.8):
            value = self.pick(TRUE if self.chance(0.75) else FALSE, ODD_BOOLEANS)
            keys["use_async"] = value
        if self.chance(0.45 if self.minor >= 20 else self.odd / 4):
            keys["communicator"] = self.random.choice(COMMUNICATORS)
        if self.chance(0.3):
            keys["window_size"] = self.pick(["100", "1000"], ["1k", "1K", "0"])
        if self.chance(0.2):
            keys["num_redundant_experts"] = self.pick(["0", "32"], ["1.5"])
        if self.chance(self.odd / 4):
            keys[self.random.choice(["async", "use-async", "policy"])] = "default"
        return keys

    def backends(self) -> list[str]:
        """Return the all2all backends that this release has, the one of the rule most often."""
        since = {"nixl_ep": 20, "mori_low_latency": 22}
        return [b for b in BACKENDS[:13] if since.get(b, 0) <= self.minor]

    def as_json(self, keys: dict[str, str]) -> str:
        """Write keys as a JSON object, in one of its layouts."""
        parts = []
        for key, value in keys.items():
            bare = value in ("true", "false", "null", "0", "1", "1.0", "0.0") or value.isdecimal()
            quoted = not bare or self.chance(0.2)
            if value in ("1k", "1K", "0k") and self.chance(0.5):
                quoted = False
            if value == "null":
                quoted = False
            text = json.dumps(value) if quoted and not value.startswith('"') else value
            parts.append(f'"{key}":{" " if self.chance(0.5) else ""}{text}')
            if self.chance(self.odd / 6):
                parts.append(f'"{key}": {self.random.choice(["true", "false", "null"])}')
        text = "{" + self.random.choice([",", ", ", ",\n "]).join(parts) + "}"
        if self.chance(self.odd / 6):
            text = self.random.choice(
                [text[:-1], f" {text} ", f"[{text}]", "null", "{}", text + ","]
            )
        return text

    def eplb_config(self) -> list[list[str]]:
        """Spell --eplb-config, as JSON or as dotted options, or both."""
        result: list[list[str]] = []
        for _ in range(2 if self.chance(0.15) else 1):
            keys = self.eplb_keys()
            if not keys:
                continue
            if self.chance(0.5):
                result.append(self.valued(self.name("--eplb-config"), self.as_json(keys)))
            else:
                name = self.name("--eplb-config")
                result += [self.valued(f"{name}.{key}", value) for key, value in keys.items()]
        return result

    def moe(self) -> list[list[str]]:
        """Spell --moe-backend or --kernel-config."""
        result: list[list[str]] = []
        if self.minor < 20 and not self.chance(self.odd / 4):
            return result
        if self.chance(0.4):
            result.append(self.valued(self.name("--moe-backend"), self.random.choice(MOE)))
        if self.chance(0.12):
            value = json.dumps({"moe_backend": self.random.choice(MOE)})
            result.append(self.valued(self.name("--kernel-config"), value))
        elif self.chance(0.05):
            result.append(self.valued("--kernel-config.moe_backend", self.random.choice(MOE)))
        if self.chance(0.12):
            result.append([self.name("--enable-elastic-ep")])
        return result

    def config(self) -> str:
        """Write a YAML file."""
        lines: list[str] = []
        entries: list[tuple[str, str]] = [
            (
                "data-parallel-size",
                self.pick(["2", "8", "1"], ["0x8", "0o10", "1_6", "2.0", '"4"', "~"]),
            ),
            ("enable-eplb", self.pick(["true", "false"], ["yes", "on", "True", '"true"', "1"])),
            (
                "all2all-backend",
                self.pick(["deepep_low_latency", '"deepep_low_latency"'], ["naive", "~"]),
            ),
            (
                "eplb-config",
                self.pick(
                    [
                        "{use_async: true}",
                        '{"use_async": true, "communicator": "torch_nccl"}',
                        "'{\"use_async\": true}'",
                        "\n  use_async: true\n  window_size: 100",
                        "{use_async: false, communicator: pynccl}",
                    ],
                    ["[1]", "true", "~", "{use_async: yes}"],
                ),
            ),
            ("enable-expert-parallel", "true"),
            ("served-model-name", '["x", "y"]'),
            *([("moe-backend", self.random.choice(MOE))] if self.minor >= 20 else []),
            ("eplb-config.use_async", self.pick(['"true"', "1"], ["true"])),
            ("max-model-len", "4096"),
        ]
        for key, value in entries:
            if self.chance(0.35):
                spelled = key.replace("-", "_") if self.chance(0.3) else key
                lines.append(f"{spelled}: {value}")
        if self.chance(0.1):
            lines.append(f"model: {self.random.choice(MODELS)}")
        if self.chance(self.odd / 6):
            lines.append(self.random.choice(["? x", "a: b: c", "1: 2", "\tx: 1", "- a"]))
        self.random.shuffle(lines)
        return "\n".join(lines) + "\n"

    def row(self) -> dict[str, Any]:
        """Make one row."""
        options = [*self.size(), *self.eplb(), *self.eplb_config(), *self.moe()]
        if self.chance(0.9):
            value = self.pick(self.backends(), BACKENDS)
            options.append(self.valued(self.name("--all2all-backend"), value))
        if self.chance(0.93):
            ways = ["-ep", self.name("--enable-expert-parallel")]
            options.append([self.random.choice(ways)])
        options += self.random.choices(NOISE, k=self.random.randint(0, 6))
        if self.chance(self.odd / 8):
            options.append(self.random.choice(ODD_NOISE))
        if self.chance(0.1):
            options += self.size() + self.eplb()
        files: dict[str, str] = {}
        if self.chance(0.2):
            name = self.random.choice(["serve.yaml", "serve.yml"])
            files[name] = self.config()
            options.append(["--config", name] if self.chance(0.93) else [f"--config={name}"])
        self.random.shuffle(options)
        argv = [word for option in options for word in option]
        model = self.random.choice(MODELS)
        if self.chance(0.15):
            place = self.random.randrange(len(options) + 1)
            options.insert(place, self.valued("--model", model))
            argv = [word for option in options for word in option]
        elif not (files and self.chance(0.1)):
            argv = [model, *argv] if self.chance(0.97) else [*argv, "--", model]
        env: dict[str, str] = {}
        if self.chance(0.3):
            env["NCCL_MAX_CTAS"] = self.random.choice(CURRENT)
        if self.chance(0.2):
            env["VLLM_ALL2ALL_BACKEND"] = self.pick(self.backends(), [*BACKENDS, "", "x"])
        if self.chance(0.12):
            env["VLLM_DP_SIZE"] = self.pick(["1", "8"], ["", "x", "0"])
        return {"argv": ["serve", *argv], "env": env, "files": files, "nixl": self.chance(0.35)}
