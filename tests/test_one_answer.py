"""A launch, explain, env, ps and check give the same assessment for each row.

The server is a stand-in for a known release of vLLM. It starts with and without the launcher.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import pytest
from conftest import SCRIPT
from house import HAZARD, House, seen
from typer.testing import CliRunner

from eplb_launch.assessment import CAPPED, EXPOSED, NOT_NEEDED, UNKNOWN
from eplb_launch.check.command import check
from eplb_launch.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from eplb_launch.assessment import Assessment

CAP = "NCCL_MAX_CTAS"


class Row(NamedTuple):
    """A command with its environment, and the assessment of its server."""

    environ: dict[str, str]
    launched: tuple[str, str, str | None]  # state, cause, value if the launcher starts it
    bare: tuple[str, str, str | None]  # the same without the launcher
    arguments: str = HAZARD
    release: str = "0.16.0"
    options: str = ""  # of the launcher
    before: str = ""  # the wrapper between the launcher and the server
    sets: str | None = None  # what the launcher sets
    warns: bool = False


BY_LAUNCHER = (CAPPED, "eplb-launch", "8")
NO_LIMIT = (EXPOSED, "no-limit", None)
NEEDS_NONE = (NOT_NEEDED, "not-needed", None)


def kept(value: str) -> tuple[str, str, str]:
    return CAPPED, "environment", value


def void(cause: str) -> tuple[str, str, None]:
    return EXPOSED, cause, None


ROWS = {
    "nothing is set": Row({}, BY_LAUNCHER, NO_LIMIT, sets="8"),
    "not needed": Row({}, NEEDS_NONE, NEEDS_NONE, arguments="serve m -dp 8"),
    "not needed, and a value that is no limit": Row(
        {CAP: "0"}, NEEDS_NONE, NEEDS_NONE, arguments="serve m"
    ),
    "vLLM has the rule": Row({}, BY_LAUNCHER, (CAPPED, "vllm", "8"), release="0.19.1", sets="8"),
    "vLLM has the rule, and a minimum defeats it": Row(
        {"NCCL_MIN_NCHANNELS": "16"},
        void("min-nchannels"),
        void("min-nchannels"),
        release="0.19.1",
        sets="8",
        warns=True,
    ),
    "no async EPLB yet": Row({}, NEEDS_NONE, NEEDS_NONE, release="0.11.2"),
    "4": Row({CAP: "4"}, kept("4"), kept("4")),
    "8": Row({CAP: "8"}, kept("8"), kept("8")),
    "9": Row({CAP: "9"}, void("value-too-high"), void("value-too-high"), warns=True),
    "16": Row({CAP: "16"}, void("value-too-high"), void("value-too-high"), warns=True),
    "64": Row({CAP: "64"}, void("value-too-high"), void("value-too-high"), warns=True),
    "0": Row({CAP: "0"}, void("value-not-a-limit"), void("value-not-a-limit"), warns=True),
    "0x8": Row({CAP: "0x8"}, BY_LAUNCHER, kept("0x8"), sets="8", warns=True),
    "empty": Row({CAP: ""}, BY_LAUNCHER, NO_LIMIT, sets="8", warns=True),
    "no number": Row({CAP: "many"}, BY_LAUNCHER, NO_LIMIT, sets="8"),
    "a minimum": Row(
        {"NCCL_MIN_P2P_NCHANNELS": "32"},
        void("min-p2p-nchannels"),
        NO_LIMIT,
        sets="8",
        warns=True,
    ),
    "batch invariant: vLLM itself sets the minimum to 1": Row(
        {"VLLM_BATCH_INVARIANT": "1", "NCCL_MIN_NCHANNELS": "16"}, BY_LAUNCHER, NO_LIMIT, sets="8"
    ),
    "batch invariant behind env": Row(
        {"VLLM_BATCH_INVARIANT": "1", "NCCL_MIN_NCHANNELS": "16"},
        BY_LAUNCHER,
        NO_LIMIT,
        before="env A=1",
        sets="8",
    ),
    "overwritten on the way": Row(
        {},
        void("variable-overwritten"),
        NO_LIMIT,
        before=f"env {CAP}=x",
        sets="8",
        warns=True,
    ),
    "set on the way": Row({}, kept("4"), kept("4"), before=f"env {CAP}=4"),
    "another cap": Row(
        {}, (CAPPED, "eplb-launch", "4"), NO_LIMIT, options="--max-ctas 4", sets="4"
    ),
    "a cap that is too high": Row(
        {}, void("max-ctas-too-high"), NO_LIMIT, options="--max-ctas 16", sets="16", warns=True
    ),
    "arguments that vLLM refuses": Row(
        {},
        (UNKNOWN, "command-not-understood", None),
        (UNKNOWN, "command-not-understood", None),
        arguments="serve m -dp eight",
        warns=True,
    ),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("house"))
    model = house.root / "many-experts"
    model.mkdir()
    (model / "config.json").write_text('{"n_routed_experts": 264}')  # two for each of 132 SMs
    return house


@pytest.fixture
def house(built: House) -> Iterator[House]:
    yield built
    built.end()


def short(found: Assessment) -> tuple[str, str, str | None]:
    return found.state, found.cause, found.value


class Asked:
    """A row, with a method for each sub-command."""

    def __init__(self, house: House, row: Row) -> None:
        self.house = house
        self.row = row
        house.install(row.release)
        self.command = shlex.split(f"{row.before} {house.vllm} {row.arguments}")
        self.environ = {"PATH": f"{house.root}/bin:/usr/bin:/bin", "HOME": "/", **row.environ}

    def launch(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *words, *shlex.split(self.row.options), "--", *self.command],
            env={**self.environ, "STAND_IN": "{}"},
            cwd=self.house.root,
            capture_output=True,
            text=True,
            check=False,
        )

    def ask(self, *words: str) -> Result:
        """Run a sub-command in this process."""
        options = [*words, *shlex.split(self.row.options)]
        with mock.patch.dict(os.environ, self.environ, clear=True):
            return CliRunner().invoke(app, options, obj=self.command)

    def started(self, *program: str) -> Assessment:
        words = [*program, *self.command]
        pid = self.house.start([], program=words, environ=self.environ)
        return seen(pid).assessment

    def checked(self, folder: Path, *program: str) -> tuple[str, str, str | None]:
        path = folder / "start.sh"
        lines = [f"export {name}={shlex.quote(v)}" for name, v in self.row.environ.items()]
        path.write_text("\n".join([*lines, shlex.join([*program, *self.command]), ""]))
        (finding,) = check([str(path)], self.row.release).findings
        return short(finding.assessment)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_all_agree_on_a_server(house: House, row: Row, tmp_path: Path) -> None:
    asked = Asked(house, row)
    explained = json.loads(asked.ask("explain", "--json").stdout)
    found = explained["assessment"]
    assert (found["state"], found["cause"], found["value"]) == row.launched
    assert explained["set"] == ({CAP: row.sets} if row.sets else {})
    assert bool(explained["warnings"]) == row.warns
    assert asked.ask("env").stdout == (f"export {CAP}={row.sets}\n" if row.sets else "")
    # The server that runs, and the same server in a file.
    assert short(asked.started()) == row.bare
    assert asked.checked(tmp_path) == row.bare
    options = shlex.split(row.options)
    launched = asked.started(SCRIPT, "--quiet", *options, "--")
    assert launched.state == row.launched[0]
    if "fit" not in row.options:  # the GPU is only known where the server starts
        assert asked.checked(tmp_path, "eplb-launch", *options, "--") == row.launched


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_strict_refuses_what_is_warned_of(house: House, row: Row) -> None:
    asked = Asked(house, row)
    for words in (("explain", "--strict"), ("--strict", "explain"), ("env", "--strict")):
        assert asked.ask(*words).exit_code == (125 if row.warns else 0), words
    if row.warns:
        done = asked.launch("--strict")
        assert (done.returncode, done.stdout) == (125, "")
        assert "not started (--strict)" in done.stderr
        assert asked.ask("env", "--strict").stdout == ""
    else:
        asked.started(SCRIPT, "--strict", *shlex.split(row.options), "--")
