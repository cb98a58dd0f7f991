# expect 0.16.0: ok 4
SPREAD=(--tensor-parallel-size 8)
[ "$WIDE" != 1 ] || SPREAD=(-dp 8 --enable-expert-parallel)
vllm serve big/moe "${SPREAD[@]}"
