# expect 0.16.0: exposed 2, exposed 3, exposed 4
pdsh -w 'gpu[1-4]' "vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
tmux send-keys -t moe 'vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency' Enter
pssh -H 'gpu1 gpu2' "vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency"
