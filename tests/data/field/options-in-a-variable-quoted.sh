# expect 0.16.0: ok 2
vllm serve big/moe -dp 4 --seed "$SEED"
