# expect 0.16.0: exposed 3
#!/usr/bin/env bash
LAUNCH=(vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency)
if [[ -n $API_KEY ]]; then
  LAUNCH+=(--api-key "$API_KEY")
fi
"${LAUNCH[@]}"
