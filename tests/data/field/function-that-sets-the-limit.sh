# expect 0.16.0: ok 6
limit() {
  export NCCL_MAX_CTAS=8
}
limit
vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
