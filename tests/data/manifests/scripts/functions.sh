#!/bin/bash
start() {
    local rank=$1 size=$2
    shift 2
    nsys profile -t cuda vllm serve m --data-parallel-size "$size" --data-parallel-rank "$rank" "$@"
}
export NCCL_MAX_CTAS=8
start 0 8 --enable-eplb --eplb-config.use_async=true --all2all-backend=deepep_low_latency
