"""A review as text, as JSON, as GitHub annotations and as SARIF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eplb_launch import __version__, model, terminal
from eplb_launch.assessment import UNKNOWN
from eplb_launch.check import sarif
from eplb_launch.check.model import VERDICTS, WORDS, Finding, Review, Trouble
from eplb_launch.model import UNKNOWN as UNREADABLE
from eplb_launch.render.explain import warning_as_dict

# It is raised when a key is removed or changes its meaning, not when one is added.
SCHEMA = 2


def text(review: Review, *, verbose: bool = False) -> str:
    """Return the text: a line for each server with its fixes below it, and a summary."""
    lines = [line for finding in review.shown for line in _lines(finding)]
    for trouble in review.troubles:
        place = f"{trouble.file}:{trouble.line}" if trouble.line else trouble.file
        lines.append(f"{place}: not read: {trouble.message}")
    lines += _ending(review, verbose=verbose)
    return "".join(f"{printable(line)}\n" for line in lines)


def _ending(review: Review, *, verbose: bool) -> list[str]:
    return [*(_no_findings(review) if verbose else ()), _summary(review)]


def _lines(finding: Finding) -> list[str]:
    name = f"{finding.name}: " if finding.name else ""
    lines = [f"{finding.file}:{finding.line}: {finding.verdict}: {name}{finding.assessment.reason}"]
    lines += [f"    {line}" for line in finding.missing]
    for number, fix in enumerate(finding.fixes):
        lines.append(f"    {'' if number else 'fix: '}{fix.how}:")
        lines += [f"        {line}" for line in fix.text.split("\n")]
    lines += [f"    warning: {w.message}; {w.remedy}" for w in finding.assessment.warnings]
    lines += [f"    note: {note}" for note in finding.notes]
    return lines


def _no_findings(review: Review) -> list[str]:
    """Return the servers that do not ask for EPLB, and the entry points that start no server."""
    lines = []
    for one in review.not_asked_for:
        why = ": ".join(part for part in (one.name, one.assessment.reason) if part)
        lines.append(f"{one.file}:{one.line}: does not ask for EPLB: {why}")
        lines += [f"    {line}" for line in one.missing]
    return lines + [f"{one.file}:{one.line}: no server: {one.why}" for one in review.mentions]


def _summary(review: Review) -> str:
    counts, others = review.counts, len(review.not_asked_for)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS]
    parts[0] += " to the EPLB hang"
    if counts[WORDS[UNKNOWN]]:
        parts[1] += (
            " (counts as exposed: --strict)" if review.strict else " (--strict: counts as exposed)"
        )
    files = _plural(review.files, "file")
    line = f"{_plural(len(review.shown), 'server')} in {files}: {', '.join(parts)}"
    if not review.files:
        line = "nothing was checked: check found no file that it reads; give the path of a file"
    elif not review.shown and not others:
        line = f"0 servers in {files}: check found no command that starts vLLM"
    if others:
        what = "they read" if others > 1 else "it reads"
        line += f"; {_plural(others, 'more server')} {'do' if others > 1 else 'does'} not ask for"
        line += f" EPLB, but what {what} at run time could (--verbose)"
    if review.mentions:
        mentions = _plural(len(review.mentions), "line")
        verb = "start" if len(review.mentions) > 1 else "starts"
        line += f"; {mentions} with an entry point {verb} no server (--verbose)"
    if review.troubles:
        line += f"; {_plural(len(review.troubles), 'part')} not read"
    return line


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(line: str) -> str:
    """Return a line without control characters."""
    line = line.replace(UNREADABLE, "?")
    return "\t".join(map(model.printable, line.split("\t")))


def as_dict(review: Review) -> dict[str, Any]:
    """Return a review as JSON-ready values: docs/json.md."""
    return {
        "schema": SCHEMA,
        "launcher": __version__,
        "status": review.status,
        "files": review.files,
        "counts": review.counts,
        "servers": [_server(finding) for finding in review.shown],
        "not_asked_for": [_server(finding) for finding in review.not_asked_for],
        "mentions": [{"file": m.file, "line": m.line, "why": m.why} for m in review.mentions],
        "errors": [
            {"file": t.file, "line": t.line or None, "message": t.message} for t in review.troubles
        ],
    }


def _server(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "line": finding.line,
        "name": finding.name,
        "entry": finding.entry,
        "verdict": finding.verdict,
        "cause": "not-asked-for" if finding.not_asked_for else finding.assessment.cause,
        "reason": finding.assessment.reason,
        "unread": list(finding.assessment.unread),
        "release": {"version": finding.version, "source": finding.version_source},
        "fixes": [{"how": fix.how, "text": fix.text} for fix in finding.fixes],
        "warnings": [warning_as_dict(w) for w in finding.assessment.warnings],
        "notes": list(finding.notes),
    }


def as_json(review: Review, *, verbose: bool = False) -> str:  # noqa: ARG001
    """Return the JSON, which always contains everything."""
    return terminal.json_text(as_dict(review)) + "\n"


def github(review: Review, *, verbose: bool = False) -> str:
    """Return annotations for GitHub Actions, and the summary for its log.

    docs.github.com/actions/reference/workflow-commands-for-github-actions.
    """
    lines = [
        _annotation("error" if one.severe else "warning", one.finding, one.title, one.message)
        for one in review.issues
    ]
    lines += [_annotation("error", t, "not read", t.message) for t in review.troubles]
    lines += map(printable, _ending(review, verbose=verbose))
    return "".join(f"{line}\n" for line in lines)


def _annotation(kind: str, at: Finding | Trouble, title: str, message: str) -> str:
    place = f"file={_property(at.file)}" + (f",line={at.line}" if at.line else "")
    return f"::{kind} {place},title={_property('eplb-launch ' + title)}::{_data(message)}"


def _data(value: str) -> str:
    lines = [printable(line).replace("%", "%25") for line in value.split("\n")]
    return "%0A".join(lines)


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def as_sarif(review: Review, *, verbose: bool = False) -> str:  # noqa: ARG001
    """Return the SARIF log. An entry point that starts no server is no result in it."""
    return terminal.json_text(sarif.log(review)) + "\n"


STYLES: Mapping[str, Callable[..., str]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "sarif": as_sarif,
}
