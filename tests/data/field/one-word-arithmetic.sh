# expect 0.16.0: ok 3
OFFSET=$(( GROUP * 4 ))
vllm serve big/moe -dp 8 --data-parallel-start-rank $OFFSET
