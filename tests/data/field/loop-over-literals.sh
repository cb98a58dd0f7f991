# expect 0.16.0: ok 3
for rank in 0 1 2 3; do
  vllm serve big/moe -dp 4 --data-parallel-rank $rank &
done
wait
