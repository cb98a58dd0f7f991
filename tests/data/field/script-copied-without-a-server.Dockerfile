# expect: none
FROM vllm/vllm-openai:v0.16.0
COPY <<EOF /etc/motd
# vllm serve big/moe -dp 8 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
EOF
RUN <<EOF
pip install numactl
EOF
