"""A review as a SARIF 2.1.0 log: docs.oasis-open.org/sarif/sarif/v2.1.0."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from eplb_launch import __version__
from eplb_launch.assessment import EXPOSED, UNKNOWN
from eplb_launch.check.model import Issue, Review
from eplb_launch.model import UNKNOWN as UNREADABLE

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_RULES = {
    EXPOSED: (
        "error",
        "A vLLM server that can hang",
        "Expert-parallel load balancing over NCCL can deadlock with MoE kernels; no cap is set.",
    ),
    UNKNOWN: (
        "warning",
        "A vLLM server that may hang",
        "The files do not say whether NCCL has to be capped.",
    ),
    "warning": (
        "warning",
        "A cap that may not hold",
        "Another setting of the server may make the cap of NCCL void.",
    ),
}


def log(review: Review) -> dict[str, Any]:
    """Return a log with a result for each server that is not ok, and for each warning."""
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver()},
                "columnKind": "unicodeCodePoints",
                "invocations": [_invocation(review)],
                "results": [_result(issue) for issue in review.issues],
            }
        ],
    }


def _driver() -> dict[str, Any]:
    rules = [
        {
            "id": name,
            "name": title.title().replace(" ", ""),
            "shortDescription": {"text": title},
            "fullDescription": {"text": text},
            "defaultConfiguration": {"level": level},
        }
        for name, (level, title, text) in _RULES.items()
    ]
    return {"name": "eplb-launch", "semanticVersion": __version__, "rules": rules}


def _invocation(review: Review) -> dict[str, Any]:
    return {
        "executionSuccessful": not review.troubles,
        "toolExecutionNotifications": [
            {
                "level": "error",
                "message": {"text": _text(trouble.message)},
                "locations": [_location(trouble.file, trouble.line)],
            }
            for trouble in review.troubles
        ],
    }


def _result(issue: Issue) -> dict[str, Any]:
    finding = issue.finding
    about = issue.title if issue.rule == "warning" else finding.name
    return {
        "ruleId": issue.rule,
        "ruleIndex": list(_RULES).index(issue.rule),
        "level": "error" if issue.severe else _RULES[issue.rule][0],
        "message": {"text": _text(f"{about}: {issue.message}" if about else issue.message)},
        "locations": [_location(finding.file, finding.line)],
        "properties": {"cause": finding.assessment.cause},
    }


def _location(file: str, line: int) -> dict[str, Any]:
    path = os.path.abspath(file) if file.startswith("..") else os.path.normpath(file)
    uri = quote(os.fsencode(path))
    place: dict[str, Any] = {
        "artifactLocation": {"uri": "file://" + uri if path.startswith("/") else uri}
    }
    if line:
        place["region"] = {"startLine": line}
    return {"physicalLocation": place}


def _text(message: str) -> str:
    return message.replace(UNREADABLE, "?")
