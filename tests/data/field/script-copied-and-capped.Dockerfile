# expect: ok 6
FROM vllm/vllm-openai:v0.16.0
ENV NCCL_MAX_CTAS=8
COPY <<one <<two /srv/
#!/bin/bash
exec vllm serve big/moe -dp 8 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency
one
nothing that starts one
two
ENTRYPOINT ["bash", "/srv/one"]
