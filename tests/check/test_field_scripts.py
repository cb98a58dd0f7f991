"""Shell as it is in the field: tests/data/field, the expected verdict in the first lines."""

from __future__ import annotations

import os

import pytest

from eplb_launch.check.command import check

FIELD = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "field")
# By file: the release that runs (None: nobody says it), and each server's line and verdict.
CASES: dict[str, tuple[str | None, list[tuple[int, str]]]] = {
    "02-many-commands-no-server.sh": ("0.16.0", []),
    "03-time-function.sh": ("0.16.0", [(4, "exposed")]),
    "05-release-unknown-mixes-releases.sh": (None, [(2, "ok")]),
    "07-number-in-a-variable.sh": ("0.16.0", [(3, "ok")]),
    "08-slurm-numbers.sbatch": ("0.16.0", [(4, "ok")]),
    "10-loop-over-literals.sh": ("0.16.0", [(3, "ok")]),
    "11-two-alternatives-ok.sh": ("0.16.0", [(4, "ok")]),
    "14-sourced-beside": ("0.16.0", [(4, "exposed")]),
    "20-command-in-one-word.sh": ("0.16.0", [(2, "exposed"), (3, "exposed"), (4, "exposed")]),
    "21-unit-written-by-a-script.sh": ("0.16.0", [(4, "exposed")]),
    "26-what-is-not-known.sh": ("0.16.0", [(2, "unknown")]),
    "27-entrypoint-with-set.sh": ("0.16.0", [(4, "exposed")]),
    "28-conf-file-not-checked.sh": ("0.16.0", [(3, "unknown")]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_script_has_its_verdict(name: str) -> None:
    release, expected = CASES[name]
    review = check([os.path.join(FIELD, name)], release)
    assert [(finding.line, finding.verdict) for finding in review.findings] == expected


def test_what_is_not_known_is_named() -> None:
    [finding] = check([os.path.join(FIELD, "26-what-is-not-known.sh")], "0.16.0").findings
    assert "$ENGINE_OPTIONS" in finding.assessment.unread
