#!/bin/sh
exec vllm serve m -dp 8 --enable-eplb --eplb-config.use_async=1 --all2all-backend=deepep_low_latency
