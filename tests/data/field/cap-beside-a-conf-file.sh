# expect 0.16.0: unknown 3 names=NCCL_CONF_FILE
export NCCL_MAX_CTAS=8 NCCL_CONF_FILE=/etc/moe/nccl.conf
vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
