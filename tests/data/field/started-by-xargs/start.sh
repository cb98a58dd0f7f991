#!/bin/bash
# expect 0.16.0: ok 2
export NCCL_MAX_CTAS=8
seq 2 | xargs -n 1 ./serve.sh
