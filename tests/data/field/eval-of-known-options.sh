#!/bin/bash
# expect 0.16.0: ok 4
LOG_ARGS="--disable-uvicorn-access-log"
eval "exec vllm serve big/moe --enable-eplb ${LOG_ARGS}"
