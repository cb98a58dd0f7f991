# expect 0.16.0: exposed 4
install -d /etc/systemd/system
tee /etc/systemd/system/moe.service >/dev/null <<'EOF'
ExecStart=/opt/moe/bin/vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
EOF
systemctl enable --now moe
