"""What every sub-command says, frozen, so that a large change can be made safely.

- `python -m golden.record NAME…` prints what sub-commands say now, as JSON lines
- `python -m golden.record --renew` writes it to `launch.txt`, `explain.txt` … (`make golden`), and
  says what became worse

A record is one line, the name of a case and JSON. What is long in it stands once, in `texts.txt`,
and its key here. The version of the launcher is left out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import zlib
from typing import TYPE_CHECKING, Any

from eplb_launch import __version__
from golden import cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from golden.frozen import Machine

    Records = dict[str, Any]

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = "texts.txt"
LONG = 44  # what is longer than that stands in TEXTS
_KEY = "@"
_RELEASE: tuple[str, ...] = ("--vllm-version", "0.16.0")
NAMED = 8  # cases with the same difference
_SET = re.compile(r"export NCCL_MAX_CTAS=|NCCL_MAX_CTAS=\d+ will be set")
EXPOSED = "exposed"


def launch(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Start each command; the rows of the oracle too."""
    for case in (*cases.by_hand(), *cases.lines(), *cases.oracle(12)):
        yield case["id"], _run(machine, case, [*case.get("options", ()), "--", *case["command"]])


def explain(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Explain each command, in JSON; some as text."""
    for case in (*cases.by_hand(), *cases.lines(), *cases.oracle(100)):
        yield f"{case['id']} --json", _run(machine, case, _sub("explain", case, "--json"))
        if zlib.crc32(case["id"].encode()) % 8 == 0:
            yield case["id"], _run(machine, case, _sub("explain", case))


def env(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Print the variables for each command, for some in every format."""
    for case in (*cases.by_hand(), *cases.lines()):
        yield case["id"], _run(machine, case, _sub("env", case))
        if case["id"] in ("hangs", "four", "no-eplb", "env-overwrites"):
            for name in cases.FORMATS:
                words = _sub("env", case, "--format", name)
                yield f"{case['id']} {name}", _run(machine, case, words)


def ps(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Look at the processes, as root and as somebody else."""
    from golden.proc import start

    found = start(machine)
    for user in (0, 1000):
        machine.user = user
        machine.denied = frozenset(found.denied if user else ())
        seen = _as_json(machine.run(["ps", "--json"], cases.ENVIRON))
        for server in _servers_of(seen):
            yield f"{user} {found.names[server['pid']]} {server['pid']}", server
        yield f"{user} --json", seen
        yield (
            f"{user} --strict",
            {"status": machine.run(["ps", "--strict"], cases.ENVIRON)["status"]},
        )
        styles = ((), ("--all",), ("20", "60", "999", "1"))
        for words in styles if user == 0 else styles[:1]:
            yield (
                " ".join((str(user), *words)),
                _as_text(machine.run(["ps", *words], cases.ENVIRON)),
            )


def check(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Check the folders at once and each file by itself, and the generated lines as scripts."""
    folders = {"manifests": f"{cases.TESTS}/data/manifests", "field": f"{cases.TESTS}/data/field"}
    folders["examples"] = f"{os.path.dirname(cases.TESTS)}/examples"
    for name, source in folders.items():
        for folder, _, files in os.walk(source):
            for file in files:
                path = os.path.join(folder, file)
                with open(path, "rb") as opened:
                    machine.write(f"/work/{name}/{os.path.relpath(path, source)}", opened.read())
    for case in cases.lines():
        machine.write(f"/work/lines/{case['id']}.sh", _script(case))
    for name in folders:
        for words in ((name,), ("--format", "github", name)):
            yield " ".join(words), _as_text(machine.run(["check", *words], cases.ENVIRON))
        seen = machine.run(["check", "--strict", name], cases.ENVIRON)
        yield f"--strict {name}", {"status": seen["status"]}
        seen = machine.run(["check", "--format", "sarif", name], cases.ENVIRON)
        yield f"--format sarif {name}", _as_json(seen)
        for path in sorted(_files(machine.folder + "/work", name)):
            release = _RELEASE if name == "field" else ()
            seen = machine.run(["check", "--json", *release, path], cases.ENVIRON)
            yield path, _as_json(seen)
    for name in (*folders, "lines"):
        release = _RELEASE if name in ("field", "lines") else ()
        seen = _as_json(machine.run(["check", "--json", *release, name], cases.ENVIRON))
        for server in _servers_of(seen):
            yield f"{name}: {server['file']}:{server['line']} {server['name']}", server
        yield f"{name}: all", seen


COMMANDS: dict[str, Callable[[Machine], Iterator[tuple[str, Any]]]] = {
    "launch": launch,
    "explain": explain,
    "env": env,
    "ps": ps,
    "check": check,
}


def _sub(name: str, case: dict[str, Any], *more: str) -> list[str]:
    options = [o for o in case.get("options", ()) if o not in ("--strict", "--quiet", "--verbose")]
    return [name, *more, *options, "--", *case["command"]]


def _run(machine: Machine, case: dict[str, Any], argv: list[str]) -> Any:
    files = case.get("files", {})
    for path, text in files.items():
        machine.write(path, text)
    seen = machine.run(argv, {**cases.ENVIRON, **case.get("environ", {})})
    for path in files:
        machine.remove(path)
    return _as_json(seen) if "--json" in argv[: argv.index("--")] else _as_text(seen)


def _as_text(seen: dict[str, Any]) -> Any:
    for name in ("out", "err"):
        seen[name] = seen[name].splitlines()
    return {name: value for name, value in seen.items() if value != []}


def _as_json(seen: dict[str, Any]) -> Any:
    text = seen["out"].replace(json.dumps(__version__), '"X.Y.Z"')
    try:
        return {**_as_text({**seen, "out": ""}), "out": json.loads(text)}
    except ValueError:  # it has failed
        return _as_text(seen)


def _servers_of(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the servers out of what has been said in JSON."""
    out = seen.get("out") or {}
    lists = ("servers", "not_asked_for") if isinstance(out, dict) else ()
    return [server for name in lists for server in out.pop(name, [])]


def _files(place: str, folder: str) -> Iterator[str]:
    for above, _, names in os.walk(os.path.join(place, folder)):
        yield from (os.path.relpath(os.path.join(above, name), place) for name in names)


def _script(case: dict[str, Any]) -> str:
    number = int(case["id"][5:])
    lines = ["#!/bin/bash"]
    lines += [f"export {name}={shlex.quote(v)}" for name, v in case.get("environ", {}).items()]
    front = "eplb-launch -- " if number % 4 == 0 else ""
    command = case["command"]
    if number % 3 == 0 and "-c" in command[1:2]:
        return "\n".join((*lines, front + command[2], ""))
    return "\n".join((*lines, front + shlex.join(command), ""))


def now(names: Sequence[str] = tuple(COMMANDS)) -> dict[str, Records]:
    """Return what the sub-commands say now, from a process of its own."""
    command = [sys.executable, "-m", "golden.record", *names]
    environ = {"PYTHONPATH": os.path.dirname(HERE), "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True)
    recorded: dict[str, Records] = {name: {} for name in names}
    for line in done.stdout.decode().split("\n")[:-1]:
        name, case, record = json.loads(line)
        if case in recorded[name]:
            raise KeyError(f"{name} has two cases {case!r}")
        recorded[name][case] = record
    return recorded


def kept(name: str, folder: str = HERE) -> Records:
    """Return what a sub-command said when it was recorded."""
    texts = {}
    records: Records = {}
    try:
        with open(os.path.join(folder, TEXTS), encoding="utf-8") as file:
            texts = {line[:9]: json.loads(line[10:]) for line in file}
        with open(os.path.join(folder, f"{name}.txt"), encoding="utf-8") as file:
            for line in file:
                case, _, text = line.partition("\t")
                records[case] = _expanded(json.loads(text), texts)
    except FileNotFoundError:
        pass  # nothing is recorded yet
    return records


def _expanded(value: Any, texts: dict[str, Any]) -> Any:
    if isinstance(value, str) and value.startswith(_KEY):
        return _expanded(texts[value], texts)
    if isinstance(value, list):
        return [_expanded(item, texts) for item in value]
    if isinstance(value, dict):
        return {name: _expanded(item, texts) for name, item in value.items()}
    return value


def _count(value: Any, seen: dict[str, int]) -> None:
    """Count how often each long thing is there; what is inside of another, once for that."""
    if len(text := json.dumps(value)) > LONG:
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 1 and isinstance(value, (dict, list)):
            for item in value.values() if isinstance(value, dict) else value:
                _count(item, seen)


def _shortened(value: Any, seen: dict[str, int], texts: dict[str, str]) -> Any:
    """Put what is long and there more than once into `texts`, the inner things first."""
    text = json.dumps(value)
    if isinstance(value, list):
        value = [_shortened(item, seen, texts) for item in value]
    elif isinstance(value, dict):
        value = {name: _shortened(item, seen, texts) for name, item in value.items()}
    elif isinstance(value, str) and value.startswith(_KEY):
        raise ValueError(f"{value!r} would be taken for a key")
    if seen.get(text, 0) < 2:
        return value
    key = _KEY + hashlib.sha256(text.encode()).hexdigest()[:8]
    short = json.dumps(value)
    if texts.setdefault(key, short) != short:
        raise KeyError(f"two texts have the key {key}")
    return key


def write(recorded: dict[str, Records], folder: str = HERE) -> None:
    """Write the records of all sub-commands."""
    texts: dict[str, str] = {}
    seen: dict[str, int] = {}
    for records in recorded.values():
        for record in records.values():
            _count(list(record.values()), seen)
    for name, records in recorded.items():
        with open(os.path.join(folder, f"{name}.txt"), "w", encoding="utf-8") as file:
            for case, record in records.items():
                short = {key: _shortened(value, seen, texts) for key, value in record.items()}
                print(f"{case}\t{json.dumps(short)}", file=file)
    with open(os.path.join(folder, TEXTS), "w", encoding="utf-8") as file:
        for text, key in sorted((text, key) for key, text in texts.items()):
            print(key, text, file=file)


def differences(old: Records, new: Records) -> list[str]:
    """Return what is different, for people: the cases, the key, what was and what is.

    Cases in which the same thing is different stand together.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for case in {**old, **new}:
        if case not in new:
            found.setdefault(("is gone",), []).append(case)
        elif case not in old:
            found.setdefault(("is new",), []).append(case)
        else:
            was, now = dict(_flat(old[case])), dict(_flat(new[case]))
            for key in sorted({*was, *now}):
                if was.get(key) != now.get(key):
                    changes = _changes(was.get(key, []), now.get(key, []))
                    found.setdefault((key, *changes), []).append(case)
    lines = []
    for (key, *changes), where in found.items():
        more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
        lines += [f"{', '.join(where[:NAMED])}{more}: {key}", *changes]
    return lines


def _changes(old: list[str], new: list[str]) -> list[str]:
    lines = list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]
    return [f"  {line[0]} {line[1:]}" for line in lines if line[0] != "@"]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the keys of what is inside, and its lines."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield key, value
    elif isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value.split("\n") if isinstance(value, str) else [json.dumps(value)]


def worse(old: Records, new: Records) -> list[str]:
    """Return what needs a named bug: exposed is not any more, a server is none, set is unset."""
    lines = []
    for case, was in old.items():
        record = new.get(case, {})
        if _is_set(was) and not _is_set(record):
            lines.append(f"{case}: set is unset")
        servers = dict(_servers(record))
        for name, verdict in _servers(was):
            if name not in servers:
                lines.append(f"{case}: server {name} is none")
            elif verdict.lower() == EXPOSED != servers[name].lower():
                lines.append(f"{case}: server {name} was exposed, is {servers[name]}")
    return lines


def _is_set(record: Any) -> bool:
    """Whether a launch sets the variable, or explain or env say so."""
    out = record.get("out")
    if isinstance(out, dict):
        return bool(out.get("set"))
    # What env prints for a shell begins with it, and what explain says.
    return bool(record.get("set")) or (bool(out) and _SET.match(out[0]) is not None)


def _servers(record: Any) -> Iterator[tuple[str, str]]:
    """Yield the servers in a record of ps or check, with their verdicts."""
    out = record.get("out")
    lists = ("servers", "not_asked_for") if isinstance(out, dict) else ()
    for server in (record, *(one for name in lists for one in out.get(name, ()))):
        if "verdict" in server:
            yield str(server.get("pid") or f"{server['line']} {server['name']}"), server["verdict"]


def renew() -> None:
    """Record all again; say what is different, and last what is worse."""
    recorded = now()
    before = {name: kept(name) for name in recorded}
    write(recorded)
    bad = []
    for name, records in recorded.items():
        old = before[name]
        changed = differences(old, records) if old else []
        for line in changed:
            print(f"{name} {line}" if line[0] != " " else line)
        bad += [f"{name} {line}" for line in worse(old, records)]
        print(f"{name}: {len(records)} records, {len(changed)} lines of differences")
    print(f"{len(bad)} changes that need a named bug{':' if bad else ''}", *bad, sep="\n  ")


def main(names: list[str]) -> None:
    """Print the records of sub-commands, or renew the files."""
    if names == ["--renew"]:
        renew()
        return
    from golden.frozen import Machine

    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # thousands of small files
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for name in names:
            machine = Machine(os.path.join(folder, name))
            cases.furnish(machine)
            for case, record in COMMANDS[name](machine):
                print(json.dumps((name, case, record)))


if __name__ == "__main__":
    main(sys.argv[1:])
