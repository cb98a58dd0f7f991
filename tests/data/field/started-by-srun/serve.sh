#!/bin/bash
exec vllm serve big/moe -dp 8 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
