# Node 0
vllm serve deepseek-ai/DeepSeek-V3-0324 \
    --tensor-parallel-size 1 \
    --enable-expert-parallel \
    --all2all-backend deepep_low_latency \
    --data-parallel-size 16 \
    --data-parallel-size-local 8 \
    --data-parallel-address 192.168.1.100 \
    --enable-eplb \
    --eplb-config.use_async true

# A comment after a backslash cuts the command short: what follows is a command of its own.
vllm serve cut \
    --all2all-backend deepep_low_latency --data-parallel-size 16 \ # nodes
    --enable-eplb --eplb-config.use_async true

VLLM_ALL2ALL_BACKEND="deepep_low_latency" vllm serve prefixed -tp 1 -dp 4 \
    --enable-eplb --eplb-config.use_async true
