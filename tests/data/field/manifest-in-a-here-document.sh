# expect 0.16.0: unknown 6
kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: prefill}
spec: {containers: [{name: v, image: "vllm/vllm-openai:v0.16.0", args: [big/moe, -dp, "4", --enable-eplb, --all2all-backend, deepep_low_latency]}]}
EOF
