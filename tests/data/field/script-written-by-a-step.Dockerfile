# expect 0.16.0: exposed 3, not-asked-for 4
FROM vllm/vllm-openai:v0.16.0
RUN echo 'exec vllm serve big/moe -dp 4 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency' > /start.sh
ENTRYPOINT ["bash", "/start.sh"]
