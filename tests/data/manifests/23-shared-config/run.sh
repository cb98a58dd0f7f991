vllm serve m --config serve.yaml
