# expect 0.16.0: unknown 9
cat > serve.yaml <<'YAML'
data-parallel-size: 16
enable-eplb: true
eplb-config: {use_async: true}
all2all-backend: deepep_low_latency
YAML
yq -i '.data-parallel-size = 1' serve.yaml
exec vllm serve big/moe --config serve.yaml
