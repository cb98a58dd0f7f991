#!/bin/bash
# expect 0.16.0: ok 2
NCCL_MAX_CTAS=8 sbatch --nodes 2 serve.sh
