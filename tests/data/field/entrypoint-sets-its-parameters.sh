#!/bin/sh -e
# expect 0.16.0: exposed 5
case "${1-}" in
"" | -*)
  set -- vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency "$@"
  ;;
esac
exec "$@"
