# expect 0.16.0: none
kubectl apply -f - <<'EOF'
spec: {containers: [{name: v, image: "vllm/vllm-openai:v0.16.0", args: [big/moe, -dp, "4"]}]}
EOF
