"""A review as a person, a program, a workflow of GitHub and a code scanner read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eplb_launch import __version__, model, terminal
from eplb_launch.assessment import UNKNOWN
from eplb_launch.check import sarif
from eplb_launch.check.model import VERDICTS, WORDS, Finding, Review, Trouble
from eplb_launch.model import UNKNOWN as UNREADABLE
from eplb_launch.render.explain import warning_as_dict

# Raised when a key changes its meaning or goes; new keys do not raise it.
SCHEMA = 2


def text(review: Review, *, verbose: bool = False) -> str:
    """For a person: a line for each server, what to do below it, and a summary."""
    lines: list[str] = []
    for finding in review.shown:
        lines += _lines(finding)
    for trouble in review.troubles:
        place = f"{trouble.file}:{trouble.line}" if trouble.line else trouble.file
        lines.append(f"{place}: not read: {trouble.message}")
    lines += _ends(review, verbose=verbose)
    return "".join(f"{printable(line)}\n" for line in lines)


def _ends(review: Review, *, verbose: bool) -> list[str]:
    return [*(_mentions(review) if verbose else ()), _summary(review)]


def _lines(finding: Finding) -> list[str]:
    who = f"{finding.name}: " if finding.name else ""
    lines = [f"{finding.file}:{finding.line}: {finding.verdict}: {who}{finding.assessment.reason}"]
    lines += [f"    {line}" for line in finding.missing]
    for number, fix in enumerate(finding.fixes):
        lines.append(f"    {'' if number else 'fix: '}{fix.how}:")
        lines += [f"        {line}" for line in fix.text.split("\n")]
    lines += [f"    warning: {w.message}; {w.remedy}" for w in finding.assessment.warnings]
    lines += [f"    note: {note}" for note in finding.notes]
    return lines


def _mentions(review: Review) -> list[str]:
    """Return the servers that do not ask for EPLB, and the lines that are no server."""
    apart = []
    for one in review.not_asked_for:
        said = ": ".join(part for part in (one.name, one.assessment.reason) if part)
        apart.append(f"{one.file}:{one.line}: does not ask for EPLB: {said}")
        apart += [f"    {line}" for line in one.missing]
    return apart + [f"{one.file}:{one.line}: no server: {one.why}" for one in review.mentions]


def _summary(review: Review) -> str:
    counts = review.counts
    total = len(review.shown)
    apart = len(review.not_asked_for)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS]
    parts[0] += " to the EPLB hang"
    if counts[WORDS[UNKNOWN]]:
        parts[1] += (
            " (counts as exposed: --strict)" if review.strict else " (--strict: counts as exposed)"
        )
    servers, files = _plural(total, "server"), _plural(review.files, "file")
    line = f"{servers} in {files}: {', '.join(parts)}"
    if not review.files:
        line = "nothing was checked: no file that check reads is there; name a file itself"
    elif not total and not apart:
        line = f"{servers} in {files}: nothing there starts vLLM, as far as check reads it"
    if apart:
        does = "do" if apart > 1 else "does"
        line += f"; {_plural(apart, 'more server')} {does} not ask for EPLB"
        line += ", but what they read at run time could (--verbose)"
    if review.mentions:
        many = "start" if len(review.mentions) > 1 else "starts"
        line += (
            f"; {_plural(len(review.mentions), 'line')} with an entry point {many} none (--verbose)"
        )
    if review.troubles:
        line += f"; {_plural(len(review.troubles), 'part')} not read"
    return line


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(line: str) -> str:
    """Return a line without what a terminal would act on."""
    line = line.replace(UNREADABLE, "?")
    return "\t".join(map(model.printable, line.split("\t")))


def as_dict(review: Review) -> dict[str, Any]:
    """Return a review as JSON-ready values; README.md documents the keys."""
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


def as_json(review: Review, *, verbose: bool = False) -> str:
    """For a program, which is always told all of it."""
    del verbose
    return terminal.json_text(as_dict(review)) + "\n"


def github(review: Review, *, verbose: bool = False) -> str:
    """For a workflow of GitHub Actions: annotations at the lines, and the summary in its log.

    docs.github.com/actions/reference/workflow-commands-for-github-actions.
    """
    lines = [
        _annotation("error" if one.severe else "warning", one.finding, one.title, one.message)
        for one in review.issues
    ]
    lines += [_annotation("error", t, "not read", t.message) for t in review.troubles]
    lines += map(printable, _ends(review, verbose=verbose))
    return "".join(f"{line}\n" for line in lines)


def _annotation(kind: str, at: Finding | Trouble, title: str, message: str) -> str:
    place = f"file={_property(at.file)}" + (f",line={at.line}" if at.line else "")
    return f"::{kind} {place},title={_property('eplb-launch ' + title)}::{_data(message)}"


def _data(value: str) -> str:
    lines = [printable(line).replace("%", "%25") for line in value.split("\n")]
    return "%0A".join(lines)


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def as_sarif(review: Review, *, verbose: bool = False) -> str:
    """For a code scanner, to which a line without a server is no result."""
    del verbose
    return terminal.json_text(sarif.log(review)) + "\n"


STYLES: Mapping[str, Callable[..., str]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "sarif": as_sarif,
}
