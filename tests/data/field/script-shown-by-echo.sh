# expect 0.16.0: none
echo "exec vllm serve small/dense" > /dev/null
echo "exec vllm serve small/dense" >&2
