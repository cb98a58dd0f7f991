#!/bin/sh
# What arrives at a server: with all conditions of the hang, with one missing, with a value set.
# Needs `eplb-launch` on PATH; the server is a stand-in. Fails if anything else arrives.

set -eu
PATH=$(dirname "$0")/stand-in:$PATH
unset NCCL_MAX_CTAS

# show EXPECTED COMMAND...: runs a command line as it would be typed.
show() {
    expected=$1
    shift
    printf '\n$ %s\n' "$*"
    output=$(env "$@" 2>&1) || { echo "$output"; exit 1; }
    echo "$output"
    case $output in
    *"NCCL_MAX_CTAS $expected") ;;
    *) echo "FAILED: expected NCCL_MAX_CTAS $expected"; exit 1 ;;
    esac
}

echo 'Async EPLB with DeepEP low-latency can hang: the variable is set, and the command is started.'
show 8 eplb-launch --vllm-version 0.16.0 -- vllm serve deepseek-ai/DeepSeek-V3 \
    --data-parallel-size 8 --enable-expert-parallel --enable-eplb \
    --eplb-config.use_async true --all2all-backend deepep_low_latency

printf '\nThe same without --enable-eplb: there is nothing to set, and nothing is said.\n'
show 'is not set' eplb-launch --vllm-version 0.16.0 -- vllm serve deepseek-ai/DeepSeek-V3 \
    --data-parallel-size 8 --enable-expert-parallel \
    --eplb-config.use_async true --all2all-backend deepep_low_latency

printf '\nA number that was set before stays.\n'
show 4 NCCL_MAX_CTAS=4 eplb-launch --vllm-version 0.16.0 -- vllm serve deepseek-ai/DeepSeek-V3 \
    --data-parallel-size 8 --enable-expert-parallel --enable-eplb \
    --eplb-config.use_async true --all2all-backend deepep_low_latency
