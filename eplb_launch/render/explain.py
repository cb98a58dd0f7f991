"""The output of `explain`: a Plan and its Assessment as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eplb_launch import __version__
from eplb_launch.deepep.cap import calls_beside
from eplb_launch.model import cut, printable
from eplb_launch.nccl.checks import OVERWRITTEN
from eplb_launch.terminal import print_text
from eplb_launch.vllm.releases import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from eplb_launch.assessment import Assessment
    from eplb_launch.deepep.cap import Row
    from eplb_launch.model import PlanWarning, Record
    from eplb_launch.plans import Plan
    from eplb_launch.vllm.releases import RuleResult
    from eplb_launch.vllm.settings import Setting

# It rises when a key changes its meaning or is removed, not for a new key.
SCHEMA = 1
_OWN_RULE = {
    True: "its workers also set the cap",
    False: "its workers do not set the cap",
    None: "its workers may set the cap",
}
_RULE = {
    True: ("holds", "bold red"),
    False: ("does not hold", "green"),
    None: ("cannot be ruled out", "bold yellow"),
}
_HOLDS = {True: ("true", "bold"), False: ("false", "dim"), None: ("unknown", "bold yellow")}


def fields(record: Record, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def as_dict(plan: Plan, found: Assessment) -> dict[str, Any]:
    """Return the values for JSON. docs/json.md documents the keys."""
    server = plan.server
    return {
        "schema": SCHEMA,
        "launcher": __version__,
        "set": plan.environment,
        "needed": False if plan.decisive is None else plan.decisive.holds,
        "reason": plan.reason,
        "assessment": fields(found, "state", "cause", "reason", "value", "by", "unread", "settles"),
        "server": server
        and {
            **fields(server, "entry", "program"),
            "prefixes": [wrapper.name for wrapper in server.wrappers],
            "script": server.script or None,
            "elsewhere": server.remote or None,
            "complete": server.args_known,
        },
        "release": {
            "version": plan.vllm_version,
            "source": plan.vllm_source,
            "own_rule": plan.release.own_rule,
        },
        "settings": [setting_as_dict(setting) for setting in plan.settings.values()],
        "rules": [
            {
                **fields(result.rule, "name", "hazard", "source"),
                "holds": result.holds,
                "conditions": [
                    fields(condition, "text", "holds", "setting") for condition in result.conditions
                ],
            }
            for result in plan.results
        ],
        "current": {"value": plan.current, "outcome": outcome(plan, found)},
        "ctas": plan.ctas,
        "beside_deepep": [_row_as_dict(row) for row in plan.beside],
        "warnings": [warning_as_dict(warning) for warning in plan.warnings],
        "notes": [warning_as_dict(note) for note in plan.notes],
    }


def _row_as_dict(row: Row) -> dict[str, Any]:
    fit = row.fit
    return {
        "gpu": row.gpu,
        **fields(fit, "sms", "experts"),
        "dispatch": fit.dispatch if fit.experts else None,
        **fields(fit, "combine", "left"),
        "fits": fit.cap,
        "safe": fit.safe,
        "not_beside": {"padded": fit.padded, "ranges": fit.eager},
        "remedies": row.remedies,
    }


def setting_as_dict(setting: Setting) -> dict[str, Any]:
    value = setting.value if setting.known else None
    return {"name": setting.name, "value": value, **fields(setting, "known", "source", "given")}


def warning_as_dict(warning: PlanWarning) -> dict[str, Any]:
    return fields(warning, "code", "message", "remedy", "source")


def sentence(plan: Plan, found: Assessment) -> str:
    for warning in found.warnings:
        if warning.code == found.cause == OVERWRITTEN:
            return f"{warning.message}: {plan.reason}."
    if plan.environment:
        value = plan.environment[VARIABLE]
        return f"{VARIABLE}={value} will be set: {plan.reason}."
    return f"Nothing will be set: {plan.reason}."


def outcome(plan: Plan, found: Assessment) -> str:
    """Return what happens to the value that the server would get without us."""
    if found.cause == OVERWRITTEN:
        return "overwritten on the way to the server"
    if plan.current is None:
        kept = plan.decisive is not None and not plan.environment
        return "unset; the limit in a conf file stays" if kept else "unset"
    if plan.environment:
        return "replaced, as by vLLM's own rule: it is not a number"
    if plan.decisive is not None:
        return "stays, as by vLLM's own rule: it is a number"
    return "stays: nothing needs to be set"


def show(plan: Plan, found: Assessment) -> None:
    """Print the explanation to stdout. It has colour only if the terminal wants it."""
    console = Console(highlight=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(Group(*_lines(plan, found)))
    # Rich fills the cells of a table with trailing blanks.
    print_text("\n".join(line.rstrip() for line in captured.get().split("\n")), end="")


def _text(text: str, style: str = "") -> Text:
    """Return text that may come from a command or a file, safe to show."""
    return Text(printable(text), style=style)


def _lines(plan: Plan, found: Assessment) -> Iterator[RenderableType]:
    yield _text(sentence(plan, found), style="bold")
    yield Text()
    yield _facts(plan, found)
    if plan.settings:
        yield Text()
        yield _settings(plan.settings.values())
    for result in plan.results:
        yield Text()
        yield from _rule(result)
    if plan.beside:
        yield Text()
        yield from _beside(plan.beside)
    for title, entries in (("Warnings", plan.warnings), ("Notes", plan.notes)):
        if entries:
            yield Text()
            yield Text(title, style="bold")
            for entry in entries:
                yield _advice(entry)


def _facts(plan: Plan, found: Assessment) -> Table:
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    server = plan.server
    if server is None:
        table.add_row("Server", "none seen in the command")
        return table
    behind = ", ".join(wrapper.name for wrapper in server.wrappers)
    inside = f" in {cut(server.script)}" if server.script else ""
    entry = server.entry or "not found by name; the whole command was read"
    table.add_row("Server", _text(entry + inside + (f" (behind {cut(behind)})" if behind else "")))
    version = f"vLLM {plan.vllm_version}" if plan.vllm_version else "vLLM, release not known"
    table.add_row("Release", _text(f"{version} ({cut(plan.vllm_source)})"))
    if plan.decisive is not None and plan.vllm_version is None:
        table.add_row("", "say which one it is with --vllm-version X.Y.Z")
    if plan.results:
        table.add_row("", _OWN_RULE[plan.release.own_rule])
    value = "" if plan.current is None else f"{cut(plan.current)!r}, "
    table.add_row(VARIABLE, _text(value + outcome(plan, found)))
    table.add_row("Result", _text(_result(found)))
    if found.settles:
        table.add_row("To settle it", _text(found.settles))
    if plan.ctas is not None:
        table.add_row("NCCL takes", f"at most {plan.ctas} CTAs, as far as is known")
    return table


def _result(found: Assessment) -> str:
    at = "" if found.value is None else f" at {cut(found.value)} by {found.by}"
    cause = "" if found.by or found.state == found.cause.replace("-", " ") else f" ({found.cause})"
    return f"{found.state}{at}{cause}"


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)


def _settings(settings: Iterable[Setting]) -> Table:
    table = _table()
    for name in ("Setting", "Value", "From"):
        table.add_column(name, overflow="fold", no_wrap=name == "Setting")
    for setting in settings:
        style = "" if setting.given else "dim"
        table.add_row(setting.name, _text(setting.shown), _text(cut(setting.source)), style=style)
    return table


def _beside(rows: tuple[Row, ...]) -> Iterator[RenderableType]:
    """Yield a table of the SMs for DeepEP and NCCL, and what would make more room for NCCL."""
    table = _table()
    table.add_column("Beside DeepEP", overflow="fold")
    for name in ("SMs", "dispatch", "combine", "left", "fits"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("but not beside calls of (tokens)", overflow="fold")
    for row in rows:
        fit = row.fit
        cells = (
            row.gpu,
            str(fit.sms),
            str(fit.dispatch) if fit.experts else "?",
            str(fit.combine),
            str(fit.left),
            "nothing" if fit.cap is None else str(fit.cap),
            calls_beside(fit) or ("none: safe" if fit.safe else "none, by combine"),
        )
        table.add_row(*map(_text, cells))
    yield table
    for row in rows:
        if row.remedies:
            yield _text(f"  {row.fit.sms} SMs: {' or '.join(row.remedies)} makes room beside these")


def _rule(result: RuleResult) -> Iterator[RenderableType]:
    rule, word = result.rule, _RULE[result.holds]
    source = (f" ({rule.source})", "dim")
    yield Text.assemble(("Rule ", "bold"), f"{rule.hazard}: ", word, source)
    table = Table.grid(padding=(0, 2))
    for condition in result.conditions:
        holds, colour = _HOLDS[condition.holds]
        table.add_row(Text(holds, style=colour), _text(condition.text))
    yield Padding(table, (0, 0, 0, 2))


def _advice(entry: PlanWarning) -> RenderableType:
    text = Text.assemble((entry.code, "bold yellow"), f": {printable(entry.message)}")
    remedy = _text(f"→ {entry.remedy}")
    if entry.source:
        remedy.append(f" ({entry.source})", style="dim")
    return Padding(Group(text, Padding(remedy, (0, 0, 0, 2))), (0, 0, 0, 2))
