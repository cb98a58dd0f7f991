#!/bin/bash
# expect 0.16.0: ok 4
source "$(dirname "$0")/limits.sh"
vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
