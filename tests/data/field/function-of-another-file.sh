# expect 0.16.0: exposed 3
wait_for_port 8000 &
vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
