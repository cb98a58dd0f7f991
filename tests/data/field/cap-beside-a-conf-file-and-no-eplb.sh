# expect 0.16.0: ok 3
export NCCL_MAX_CTAS=8 NCCL_CONF_FILE=/etc/moe/nccl.conf
vllm serve big/moe -dp 4
