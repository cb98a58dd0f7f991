# expect 0.16.0: exposed 3
serve() {
  vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
}
client() { curl -s localhost:8000/health; }
for step in serve client; do "$step"; done
