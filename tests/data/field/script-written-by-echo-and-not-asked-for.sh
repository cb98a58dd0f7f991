# expect 0.16.0: not-asked-for 2
echo "exec vllm serve small/dense" > /opt/start.sh
