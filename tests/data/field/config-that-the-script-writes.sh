# expect 0.16.0: exposed 8
cat > serve.yaml <<'YAML'
data-parallel-size: 16
enable-eplb: true
eplb-config: {use_async: true}
all2all-backend: deepep_low_latency
YAML
exec vllm serve big/moe --config serve.yaml
