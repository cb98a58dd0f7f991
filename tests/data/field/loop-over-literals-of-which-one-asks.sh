# expect 0.16.0: exposed 3
for more in --enforce-eager --enable-eplb; do
  vllm serve big/moe $more -dp 4 --eplb-config.use_async true --all2all-backend deepep_low_latency
done
