#!/bin/bash
# expect 0.16.0: exposed 2
export NCCL_MAX_CTAS=8
docker run -v .:/work -w /work vllm/vllm-openai:v0.16.0 ./serve.sh
