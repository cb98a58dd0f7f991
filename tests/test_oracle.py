"""What real vLLM decided, command line by command line, and what the plan says."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle.compare import differences
from oracle.rows import LARGEST, QUOTA, kind, read

DATA = Path(__file__).parent / "data" / "oracle"
ORACLE = sorted(DATA.glob("vllm-*.jsonl"))


@pytest.mark.parametrize("path", ORACLE, ids=lambda path: path.stem)
def test_the_plan_is_what_vllm_decided(path: Path, tmp_path: Path) -> None:
    version = path.stem.split("-")[1]
    rows = list(read(path))
    assert len(rows) == 200
    assert sum(row["vllm"]["accepted"] for row in rows) == 170
    wrong = {
        number: found
        for number, row in enumerate(rows, 1)
        if (found := differences(row, version, tmp_path))
    }
    assert wrong == {}


@pytest.mark.parametrize("path", ORACLE, ids=lambda path: path.stem)
def test_every_file_is_small_and_has_rows_of_every_kind(path: Path) -> None:
    version = path.stem.split("-")[1]
    kinds = [kind(row, version) for row in read(path)]
    assert path.stat().st_size <= LARGEST
    if path.stem.endswith("independent"):
        assert set(kinds) == set(QUOTA)
    else:
        assert {name: kinds.count(name) for name in QUOTA} == QUOTA
