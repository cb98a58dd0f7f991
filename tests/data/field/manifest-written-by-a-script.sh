# expect: exposed 8
kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: experts}
spec:
  containers:
  - {name: server, image: "vllm/vllm-openai:v0.16.0", args: [--model, big/moe, -dp, "4", --enable-eplb, --eplb-config.use_async, "true", --all2all-backend, deepep_low_latency]}
EOF
