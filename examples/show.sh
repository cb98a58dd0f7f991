#!/bin/sh
# Shows what arrives at a server: with all conditions of the hang, with one missing, with a value set.
# It needs `eplb-launch` on PATH. The server is a stand-in. It fails if anything else arrives.

set -eu
PATH=$(dirname "$0")/stand-in:$PATH
unset NCCL_MAX_CTAS

# show EXPECTED COMMAND...: run a command line as a user would type it.
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

echo 'Async EPLB with DeepEP low-latency can hang: the launcher sets the variable and starts the command.'
show 8 eplb-launch --vllm-version 0.16.0 -- vllm serve deepseek-ai/DeepSeek-V3 \
    --data-parallel-size 8 --enable-expert-parallel --enable-eplb \
    --eplb-config.use_async true --all2all-backend deepep_low_latency

printf '\nThe same without --enable-eplb: nothing is set, and nothing is printed.\n'
show 'is not set' eplb-launch --vllm-version 0.16.0 -- vllm serve deepseek-ai/DeepSeek-V3 \
    --data-parallel-size 8 --enable-expert-parallel \
    --eplb-config.use_async true --all2all-backend deepep_low_latency

printf '\nThe launcher keeps a number that is set already.\n'
show 4 NCCL_MAX_CTAS=4 eplb-launch --vllm-version 0.16.0 -- vllm serve deepseek-ai/DeepSeek-V3 \
    --data-parallel-size 8 --enable-expert-parallel --enable-eplb \
    --eplb-config.use_async true --all2all-backend deepep_low_latency
