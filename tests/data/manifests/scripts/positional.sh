#!/bin/bash
# usage: positional.sh IP EXTRA
vllm serve m --data-parallel-address $1 --data-parallel-size $2 --enable-eplb \
    --eplb-config.use_async=true --all2all-backend deepep_low_latency ${@:3}
docker run --gpus all vllm/vllm-openai:v0.16.0 --model m -dp 8 --enable-eplb --eplb-config.use_async=true --all2all-backend deepep_low_latency
vllm bench serve --model m
vllm serve tp-only -tp 4 --enable-eplb --eplb-config.use_async=true --all2all-backend deepep_low_latency
