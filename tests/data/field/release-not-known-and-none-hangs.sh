# expect: ok 2
VLLM_ALL2ALL_BACKEND=deepep_low_latency vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb
