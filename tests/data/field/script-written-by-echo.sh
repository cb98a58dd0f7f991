# expect 0.16.0: exposed 2
echo 'exec vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency' > /opt/start.sh
