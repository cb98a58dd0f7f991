# expect 0.16.0: exposed 4
SPREAD=(--tensor-parallel-size 8)
[ "$WIDE" != 1 ] || SPREAD=(-dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency)
vllm serve big/moe "${SPREAD[@]}"
