# expect 0.16.0: ok 3
wait_for_port 8000 &
vllm serve small/dense
