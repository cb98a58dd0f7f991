# expect 0.16.0: none
cat <<'EOF'
spec: {containers: [{name: v, image: "vllm/vllm-openai:v0.16.0", args: [big/moe, -dp, "4", --enable-eplb]}]}
EOF
