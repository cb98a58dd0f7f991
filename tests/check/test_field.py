"""Files from the field, and near misses of each: tests/data/field.

The first lines of a file say what is expected: `# expect [RELEASE]: VERDICT LINE, …`, with
`names=WORD` if the message must name what could not be read, or `none` for no server.
"""

from __future__ import annotations

import os
import re

import pytest

from eplb_launch.check.command import check

FIELD = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "field")
_EXPECT = re.compile(r"^# expect ?([\d.]*): (.*)$", re.MULTILINE)


def _case(name: str) -> tuple[str | None, str]:
    """Return the release of a case, and the expected lines."""
    path = os.path.join(FIELD, name)
    with open(os.path.join(path, "start.sh") if os.path.isdir(path) else path) as file:
        match = _EXPECT.search(file.read())
    assert match, f"{name} does not say what is expected"
    return match[1] or None, match[2]


@pytest.mark.parametrize("name", sorted(os.listdir(FIELD)))
def test_a_file_from_the_field_has_the_expected_verdicts(name: str) -> None:
    release, expected = _case(name)
    review = check([os.path.join(FIELD, name)], release)
    said = []
    for one, wanted in zip(review.findings, [*expected.split(", "), *[""] * 9], strict=False):
        line = f"{'not-asked-for' if one.not_asked_for else one.verdict} {one.line}"
        _, names, word = wanted.partition(" names=")
        if names:
            assert word in one.assessment.reason
            assert any(word in item for item in one.missing)
        said.append(line + names + word)
    assert (", ".join(said) or "none") == expected
    assert not review.troubles
