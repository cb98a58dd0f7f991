#!/bin/bash
CMD="VLLM_LOGGING_LEVEL=DEBUG vllm serve m -dp 8 --enable-eplb --eplb-config.use_async=true --all2all-backend deepep_low_latency"
echo "$CMD"
eval $CMD
VLLM_BIN=/opt/vllm/bin/vllm
"$VLLM_BIN" serve wrong-key -dp 8 --enable-eplb --eplb-config '{"async": true}' --all2all-backend deepep_low_latency
