# expect 0.16.0: none
cat <<'EOF'
usage: vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
EOF
