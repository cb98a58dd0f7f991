# expect: exposed 8, not-asked-for 12
# The second script, which nothing starts, asks for nothing.
FROM vllm/vllm-openai:v0.16.0
WORKDIR /srv
# The words of a script that is written here are on its lines.
COPY --chmod=755 <<-"EOF" ./start.sh
	#!/bin/bash
	exec vllm serve big/moe -dp 8 --enable-expert-parallel --enable-eplb --eplb-config.use_async true --all2all-backend deepep_low_latency "$@"
	EOF
RUN mkdir -p /etc/other && \
    cat > /etc/other/run.sh <<EOT
vllm serve small/model $MORE_ARGS
EOT
ENTRYPOINT ["./start.sh"]
