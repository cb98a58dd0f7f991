#!/bin/bash
# expect 0.16.0: ok 2
# Who starts a script limits NCCL for it: line 2 of the other one.
#SBATCH --nodes=2
export NCCL_MAX_CTAS=8
srun --export=ALL ./serve.sh
