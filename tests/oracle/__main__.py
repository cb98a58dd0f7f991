"""`make oracle` and `make oracle-new`: see CONTRIBUTING.md, "When vLLM makes a release"."""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import shlex
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from eplb_launch.vllm import arguments
from eplb_launch.vllm.releases import minor_release
from oracle import option_table, rows, sources
from oracle.ask import Release
from oracle.compare import differences
from oracle.generate import Generator
from oracle.shrink import shrink, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Row = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "oracle"
OPTIONS = ROOT / "eplb_launch" / "vllm" / "options.py"


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="oracle", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("new", help="list the releases that are not covered")
    release = commands.add_parser("release", help="compare with a release, and keep the rows")
    release.add_argument("--rows", type=int, help="compare this number of rows, and keep none")
    again = commands.add_parser("again", help="ask a release again for the rows that are kept")
    for command in (release, again):
        command.add_argument("version", help="X.Y.Z")
        command.add_argument("--python", required=True, help="an interpreter with vLLM's packages")
        command.add_argument("--sources", type=Path, required=True, help="where to keep sources")
    given = parser.parse_args()
    if given.command == "new":
        return new()
    version = given.version.removeprefix("v")
    folder = sources.fetch(version, given.sources)
    log = given.sources / f"{version}.log"
    with contextlib.closing(Release(given.python, folder, log)) as vllm:
        if given.command == "again":
            return ask_again(vllm, version)
        return compare(vllm, version, given.rows)


def new() -> int:
    """List the releases that have no data file: of each minor release the newest patch."""
    covered: dict[int | None, str] = {}
    for path in sorted(DATA.glob("vllm-*.jsonl")):
        version = path.stem.split("-")[1]
        minor = minor_release(version)
        covered[minor] = max(covered.get(minor, version), version, key=sources.key)
    newest = {minor_release(found): found for found in sources.releases(sources.files_of_index())}
    for minor, version in newest.items():
        if minor not in covered:
            print(version)
        elif covered[minor] != version:
            print(f"{version} ({covered[minor]} is covered)")
    return 0


def compare(vllm: Release, version: str, number: int | None) -> int:
    """Compare drawn rows; 200 for the data file, or any number."""
    minor = minor_release(version) or 0
    new_spellings = spellings_not_read(vllm.settings)
    if new_spellings:
        print(f"arguments.OPTIONS lacks {', '.join(new_spellings)}")
    generator = Generator(Random(f"{version} {number}"), minor, vllm.options)
    if number is None:
        changed = option_table.bring_up_to_date(OPTIONS, minor, vllm.options)
        print(f"options of 0.{minor}:", *(changed or ["as known"]))
        answered: Iterable[Row] = rows.balanced(generator.row, vllm.answer, version)
        rows.write(DATA / f"vllm-{version}.jsonl", list(answered))
    else:
        drawn = (generator.row() for _ in range(number))
        answered = ({**row, "vllm": vllm.answer(row)} for row in drawn)
    return report(vllm, version, answered) or int(bool(new_spellings))


def spellings_not_read(settings: Mapping[str, str]) -> list[str]:
    """Return the options that set what we read, and that `arguments.OPTIONS` does not have.

    `settings` are all options of a release with what each sets. No drawn row would have them.
    """
    read = {setting for setting, _ in arguments.OPTIONS.values()}
    return sorted(
        name
        for name, setting in settings.items()
        if setting in read and name not in arguments.OPTIONS
    )


def ask_again(vllm: Release, version: str) -> int:
    """Answer the rows that are kept of a release, and say which answers are others now."""
    answered: list[Row] = []
    changed = 0
    for path in sorted(DATA.glob(f"vllm-{version}*.jsonl")):
        for number, row in enumerate(rows.read(path), 1):
            now = vllm.answer(row)
            if any(now[name] != row["vllm"].get(name) for name in now if name != "error"):
                changed += 1
                print(f"{path.name}:{number}: {row['vllm']}\n    now {now}")
            answered.append({**row, "vllm": now})
    print(f"{changed} of {len(answered)} answers changed")
    return report(vllm, version, answered) or int(changed > 0)


def report(vllm: Release, version: str, answered: Iterable[Row]) -> int:
    """Print where the plan differs, each as small as it gets; return the exit status."""
    kinds: collections.Counter[str] = collections.Counter()
    wrong: dict[str, list[Row]] = {}  # by what differs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for row in answered:
            kinds[rows.kind(row, version)] += 1
            if found := kinds_of(differences(row, version, folder)):
                wrong.setdefault(found[0], []).append(row)
        for what, alike in wrong.items():

            def differs(row: Row, what: str = what) -> bool:
                answered = {**row, "vllm": vllm.answer(row)}
                return what in kinds_of(differences(answered, version, folder))

            small = shrink(min(alike, key=size), differs)
            small["vllm"] = vllm.answer(small)
            print(f"{what}: {len(alike)} such as\n    {shown(small)}")
            print(*(f"    {text}" for text in differences(small, version, folder)), sep="\n")
    counts = ", ".join(f"{kinds[name]} {name}" for name in rows.QUOTA)
    differ = sum(map(len, wrong.values()))
    print(f"vLLM {version}: {kinds.total()} rows ({counts}), {differ} differ")
    return 1 if wrong else 0


def kinds_of(found: list[str]) -> list[str]:
    """Return what differs, without how: the setting, or the code of the warning."""
    return [re.split(" is |: ", text)[0] for text in found]


def shown(row: Row) -> str:
    """Return a row as a person would write it."""
    env = [f"{name}={shlex.quote(value)}" for name, value in row["env"].items()]
    files = "".join(f"\n    {name}: {text!r}" for name, text in row["files"].items())
    nixl = "\n    with NIXL" if row["nixl"] else ""
    return " ".join([*env, "vllm", shlex.join(row["argv"])]) + files + nixl


if __name__ == "__main__":
    sys.exit(main())
