# expect 0.16.0: exposed 8
cat > moe.yaml <<'EOF'
data-parallel-size: 4
enable-eplb: true
eplb-config: {use_async: true}
all2all-backend: deepep_low_latency
EOF
vllm serve big/moe --config moe.yaml
