# expect 0.16.0: not-asked-for 2 names=$ENGINE_OPTIONS
vllm serve big/moe -dp 4 $ENGINE_OPTIONS
