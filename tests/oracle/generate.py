"""Command lines for `vllm serve`, random but seeded: every spelling that vLLM takes, and some more.

A row is what real vLLM answers: `argv` (what follows `vllm`), `env`, `files` (name to text, in the
working directory) and `nixl` (whether NIXL is installed). Half of the rows are aimed: the rule of
the release is meant to hold, however odd the spelling.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from oracle import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    Option = list[str]  # the words of one


class Generator:
    """Rows from one random source."""

    def __init__(
        self, random: Random, minor: int, options: Iterable[str], *, odd: float = 0.12
    ) -> None:
        """Make rows for vLLM 0.`minor`, whose parser has these option strings.

        `odd` is the chance of a spelling that vLLM may refuse, at each of its places.
        """
        self.random = random
        self.minor = minor
        self.options = sorted(options)
        self.base = odd
        self.odd = odd
        self.aimed = True
        self.noise = [option for option in words.NOISE if self._has(option[0])]
        # Which of the two rules: the one of low latency, and from 0.23 that of mega MoE.
        self.rules = ["low latency"] * (minor <= 23) + ["mega moe"] * (minor >= 23)
        self.rule = self.rules[0]

    def _has(self, word: str) -> bool:
        name = word.partition("=")[0].partition(".")[0].replace("_", "-")
        return name in self.options or (word[:2] in self.options and word[1] != "-") or name == "-O"

    def chance(self, probability: float) -> bool:
        """Toss a coin."""
        return self.random.random() < probability

    def pick(self, usual: Sequence[str], odd: Sequence[str] = ()) -> str:
        """Pick one of the usual values, or now and then an odd one."""
        return self.random.choice(odd if odd and self.chance(self.odd) else usual)

    def name(self, option: str) -> str:
        """Spell an option: with underscores, partly, or abbreviated about as far as it goes."""
        if self.chance(0.15):
            option = self._abbreviated(option)
        if self.chance(0.25):
            option = "--" + option[2:].replace("-", "_")
        elif self.chance(0.1):
            head, _, tail = option[2:].rpartition("-")
            option = "--" + (head.replace("-", "_") + "-" + tail if head else tail)
        return option

    def _abbreviated(self, option: str) -> str:
        unique = next(
            (
                end
                for end in range(3, len(option))
                if sum(name.startswith(option[:end]) for name in self.options) == 1
            ),
            len(option),
        )
        shortest = unique - 1 if self.chance(self.odd) else unique
        return option[: self.random.randint(shortest, min(unique + 3, len(option)))]

    def valued(self, option: str, value: str) -> Option:
        """Spell an option with a value."""
        return [f"{option}={value}"] if self.chance(0.4) else [option, value]

    def size(self) -> list[Option]:
        """Spell --data-parallel-size."""
        if not self.aimed and self.chance(0.1):
            return []
        value = self.pick(words.SIZES, words.ODD_SIZES)
        if not self.aimed and self.chance(self.odd):
            value = self.random.choice(words.WRONG_SIZES)
        name = "-dp" if self.chance(0.35) else self.name("--data-parallel-size")
        return [self.valued(name, value)]

    def eplb(self) -> list[Option]:
        """Spell --enable-eplb, and sometimes its inverse."""
        result = [[self.name("--enable-eplb")]]
        if not self.aimed and self.chance(0.25):
            inverses = ["--no-enable-eplb", *["--disable-eplb"] * (self.minor >= 33)]
            result.append([self.name(self.random.choice(inverses))])
        if not self.aimed and self.chance(0.1):
            del result[0]
        return result

    def eplb_keys(self) -> dict[str, str]:
        """Choose keys of EPLBConfig with their values as JSON."""
        keys: dict[str, str] = {}
        async_ = self.rule == "low latency" or (self.minor == 23 and self.chance(0.5))
        if not self.aimed:
            async_ = self.chance(0.6)
        if self.aimed or self.chance(0.8):
            odd = [*words.ODD_BOOLEANS] if not self.aimed or self.chance(0.1) else ()
            keys["use_async"] = self.pick(words.TRUE if async_ else words.FALSE, odd)
        if self.minor >= 20 and (self.aimed or self.chance(0.5)):
            usual = words.COMMUNICATORS[:2] if self.aimed else words.COMMUNICATORS
            keys["communicator"] = self.pick(usual, words.ODD_COMMUNICATORS)
        for key, values in words.KEYS:
            if self.chance(0.12):
                keys[key] = self.random.choice(values[: None if self.chance(self.odd) else 2])
        if self.chance(self.odd / 6):
            keys[self.random.choice(words.ODD_KEYS)] = "true"
        return dict(self.random.sample(sorted(keys.items()), len(keys)))

    def as_json(self, keys: dict[str, str]) -> str:
        """Write keys as a JSON object, in one of its layouts."""
        parts = []
        for key, value in keys.items():
            try:
                json.loads(value)
                quoted = not value.startswith('"') and value != "null" and self.chance(0.2)
            except ValueError:
                quoted = not (value[-1:] in ("k", "K") and self.chance(0.5))
            text = json.dumps(value, ensure_ascii=self.chance(0.5)) if quoted else value
            name = json.dumps(key)
            if self.chance(self.odd / 4):
                name = name.replace("_", "\\u005f")
            if self.chance(self.odd / 4):
                parts.append(f"{name}: {self.random.choice(['true', 'false', 'null', '{}'])}")
            parts.append(f"{name}:{' ' if self.chance(0.5) else ''}{text}")
        text = "{" + self.random.choice([",", ", ", ",\n "]).join(parts) + "}"
        if self.chance(self.odd / 8):
            broken = [text[:-1], f"[{text}]", "null", "{}", text[:-1] + ",}", "\ufeff" + text, ""]
            text = self.random.choice([*broken, text.replace('"', "'")])
        return f" {text}\t" if self.chance(self.odd / 6) else text

    def eplb_config(self) -> list[Option]:
        """Spell --eplb-config, as JSON or as dotted options, or both."""
        result: list[Option] = []
        for _ in range(2 if self.chance(0.15) else 1):
            keys = self.eplb_keys()
            if not keys:
                continue
            name = self.name("--eplb-config")
            if self.chance(0.5):
                result.append(self.valued(name, self.as_json(keys)))
            else:
                result += [self.valued(f"{name}.{key}", value) for key, value in keys.items()]
        return result

    def moe(self) -> list[Option]:
        """Spell --moe-backend and --kernel-config."""
        result: list[Option] = []
        aimed = self.aimed and self.rule == "mega moe"
        if "--moe-backend" not in self.options or not (aimed or self.chance(0.25)):
            return result
        value = self.random.choice(words.MEGA if aimed or self.chance(0.4) else words.MOE)
        way = self.random.random()
        if way < 0.6:
            result.append(self.valued(self.name("--moe-backend"), value))
        if way < 0.1 or 0.6 <= way < 0.8:
            text = json.dumps({"moe_backend": value if way > 0.1 else "triton"})
            result.append(self.valued(self.name("--kernel-config"), text))
        elif way >= 0.8:
            result.append(self.valued(f"{self.name('--kernel-config')}.moe_backend", value))
        return result

    def elastic(self) -> list[Option]:
        """Spell --enable-elastic-ep, where the release has it."""
        if "--enable-elastic-ep" not in self.options or not self.chance(0.08):
            return []
        return [[self.name("--enable-elastic-ep")]]

    def all2all(self) -> list[Option]:
        """Spell --all2all-backend."""
        if self.aimed and self.rule == "low latency":
            value = "deepep_low_latency"
        elif self.chance(0.5):
            return []
        else:
            value = self.pick(["deepep_low_latency", *words.BACKENDS], words.ODD_BACKENDS)
        return [self.valued(self.name("--all2all-backend"), value)]

    def expert_parallel(self) -> list[Option]:
        """Spell --enable-expert-parallel, which EPLB asks for."""
        if not self.aimed and self.chance(0.1):
            return []
        short = "-ep" in self.options and self.chance(0.5)
        return [["-ep" if short else self.name("--enable-expert-parallel")]]

    def config(self) -> str:
        """Write a YAML file."""
        lines: list[str] = []
        for key, usual, odd in words.YAML:
            if "--" + key.partition(".")[0] in self.options and self.chance(0.2):
                spelled = key.replace("-", "_") if self.chance(0.3) else key
                lines.append(f"{spelled}: {self.pick(usual, odd)}")
        if self.chance(self.odd / 3):
            lines.append(self.random.choice(words.ODD_LINES))
        self.random.shuffle(lines)
        return ("\r\n" if self.chance(self.odd / 6) else "\n").join([*lines, ""])

    def environment(self) -> dict[str, str]:
        """Choose variables."""
        env: dict[str, str] = {}
        if self.chance(0.25):
            env["NCCL_MAX_CTAS"] = self.random.choice(words.CURRENT)
        if self.chance(0.15):
            usual = words.BACKEND_VARIABLE[: 1 if self.aimed else None]
            env["VLLM_ALL2ALL_BACKEND"] = self.pick(usual, words.ODD_BACKEND_VARIABLE)
        for name, usual, odd in words.VARIABLES:
            if self.chance(0.1 if name == "VLLM_DP_SIZE" else 0.01):
                env[name] = self.pick(usual, odd)
        return env

    def row(self) -> dict[str, Any]:
        """Make one row."""
        self.aimed = self.chance(0.5)
        self.rule = self.random.choice(self.rules)
        self.odd = self.base * self.random.choice((0, 1, 2))
        options = [*self.size(), *self.eplb(), *self.eplb_config(), *self.moe(), *self.elastic()]
        options += self.all2all() + self.expert_parallel()
        options += self.random.choices(self.noise, k=self.random.choice((0, 0, 1, 1, 2, 4)))
        if self.chance(self.odd / 2):
            options.append(self.random.choice(words.ODD_NOISE))
        if self.chance(0.1):
            options += self.size() + self.eplb()
        # Some leave out what the others need.
        if not self.aimed and self.chance(0.3) and options:
            options = self.random.sample(options, self.random.randint(0, len(options)))
        files: dict[str, str] = {}
        if self.chance(0.2):
            name = self.random.choice(["serve.yaml", "serve.yml"])
            files[name] = self.config()
            options.append(["--config", name])
            if self.aimed and self.chance(0.5):
                options = self.random.sample(options, len(options) - 1)
        self.random.shuffle(options)
        argv = self._with_model(options)
        if self.chance(self.odd):
            argv = self._misplaced(argv)
        if argv and self.chance(self.odd):
            place = self.random.randrange(len(argv))
            argv[place] = self._mistyped(argv[place])
        if self.chance(self.odd):
            files = {name: self._mistyped(text) for name, text in files.items()}
        return {
            "argv": ["serve", *argv],
            "env": self.environment(),
            "files": files,
            "nixl": self.chance(0.35),
        }

    def _misplaced(self, argv: list[str]) -> list[str]:
        """Move a word, leave one out or write one twice."""
        if not argv:
            return argv
        place, to = (self.random.randrange(len(argv)) for _ in range(2))
        word = argv[place]
        rest = argv[:place] + argv[place + 1 :]
        return self.random.choice([rest, [*argv, word], [*rest[:to], word, *rest[to:]]])

    def _mistyped(self, text: str) -> str:
        """Put a character in, leave one out or change one."""
        place = self.random.randint(0, len(text))
        after = text[place + self.random.choice((0, 1)) :]
        return text[:place] + self.random.choice(words.CHARACTERS) + after

    def _with_model(self, options: list[Option]) -> list[str]:
        model = self.pick(words.MODELS, words.ODD_MODELS)
        way = self.random.random()
        if way < 0.1:
            place = self.random.randrange(len(options) + 1)
            options.insert(place, self.valued("--model", model))
        elif way < 0.12:
            options.append(["--", model])
        elif way < 0.15:
            options.append([model])
        elif way > 0.16:
            options.insert(0, [model])
        return [word for option in options for word in option]
