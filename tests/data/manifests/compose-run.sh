#!/bin/bash
exec /usr/local/bin/vllm serve m -dp 8 --enable-eplb \
    --eplb-config.use_async=true --all2all-backend=deepep_low_latency
