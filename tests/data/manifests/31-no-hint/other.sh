#!/bin/bash
exec vllm serve service --data-parallel-size 8 --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
