"""Scripts in files: the variables that Slurm sets by the options in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eplb_launch.check.command import check

if TYPE_CHECKING:
    from pathlib import Path

EPLB = "--enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
SERVE = f"vllm serve m -dp $SLURM_NNODES {EPLB}"


@pytest.mark.parametrize(
    ("options", "command", "verdict"),
    [
        ("#SBATCH --nodes=2", SERVE, "exposed"),
        ("#SBATCH -N 2", SERVE, "exposed"),
        ("#SBATCH -N2", SERVE, "exposed"),
        ("#SBATCH --nodes 2", SERVE, "exposed"),
        ("#SBATCH --job-name=decode\n#SBATCH --nodes=4\n", SERVE, "exposed"),
        ("#SBATCH --nodes=1", SERVE, "ok"),
        (
            "#SBATCH --nodes=1",
            SERVE.replace("$SLURM_NNODES", "$((SLURM_JOB_NUM_NODES * 8))"),
            "exposed",
        ),
        ("#SBATCH --nodes=2-4", SERVE, "unknown"),
        # Near misses: a later line, or another option.
        ("hostname\n#SBATCH --nodes=2", SERVE, "unknown"),
        ("# SBATCH --nodes=2", SERVE, "unknown"),
        ("#SBATCH --nodelist=a,b", SERVE, "unknown"),
        ("#SBATCH --nodes=2", SERVE.replace("true", "false"), "ok"),
    ],
)
def test_sbatch_options_tell_the_number_of_nodes(
    tmp_path: Path, options: str, command: str, verdict: str
) -> None:
    path = tmp_path / "job.sbatch"
    path.write_text(f"#!/bin/bash\n{options}\n{command}\n")
    assert [one.verdict for one in check([str(path)], "0.16.0").findings] == [verdict]
