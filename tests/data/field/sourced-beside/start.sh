#!/bin/bash
# expect 0.16.0: exposed 4
. "$(dirname "${BASH_SOURCE[0]}")/library.sh"
vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
