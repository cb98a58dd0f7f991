#!/usr/bin/env bash
set -euo pipefail
EXTRA_ARGS=("$@")
ARR=(
    --enable-eplb
    --eplb-config.use_async=true   # exchange while serving
    --all2all-backend deepep_low_latency
)
for i in {0..7}; do
    CUDA_VISIBLE_DEVICES=$i python3 -m dynamo.vllm --model m --data_parallel_size 8 "${ARR[@]}" 2>&1 | tee "log$i" &
done
wait
vllm serve m --data-parallel-size 8 "${EXTRA_ARGS[@]}"
args=(serve "$MODEL" -dp 8)
vllm "${args[@]}" "${ARR[@]}"
