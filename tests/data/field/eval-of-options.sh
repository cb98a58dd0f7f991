#!/bin/bash
# expect: unknown 5 names=$MORE_ARGS
# The variable is named, although `eval` puts it in.
LOG_ARGS="--disable-uvicorn-access-log"
eval "exec vllm serve big/moe --enable-eplb ${LOG_ARGS} ${MORE_ARGS} $@"
