#!/bin/bash
# expect 0.16.0: exposed 2
# Of two that start it, one does not hand the limit on.
export NCCL_MAX_CTAS=8
srun ./serve.sh &
ssh other ./serve.sh
