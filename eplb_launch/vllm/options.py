"""Every option of `vllm serve`, release by release: an abbreviation has to be unique among them.

They are read from the parsers of vLLM 0.12 to 0.33, one release of each minor (0.15: the wheel).
This is imported only if a command abbreviates an option, or has a word that is not known.
"""

from __future__ import annotations

from eplb_launch.model import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eplb_launch.vllm.releases import Release

# From 0.33 each switch --enable-x is --disable-x too, and the other way round.
BOTH_WAYS = 33
# By the first and the last minor release (0.N) that has them; None: up to the newest known here.
# --[no-]x is a switch: --x and --no-x.
OPTIONS: Mapping[tuple[int, int | None], str] = {
    (12, 12): """
        --cuda-graph-sizes --disable-mm-preprocessor-cache --enable-multimodal-encoder-data-parallel
        --task
    """,
    (12, 16): "--[no-]disable-log-requests --logits-processor-pattern",
    (12, 17): "--swap-space",
    (12, 18): "--[no-]disable-frontend-multiprocessing",
    (12, 26): "--max-long-partial-prefills --max-num-partial-prefills",
    (12, 27): "--[no-]calculate-kv-scales --override-attention-dtype",
    (12, None): """
        --additional-config --aggregate-engine-logging --all2all-backend --[no-]allow-credentials
        --allowed-headers --allowed-local-media-path --allowed-media-domains --allowed-methods
        --allowed-origins --api-key --api-server-count -asc --[no-]async-scheduling --block-size -cc
        --chat-template --chat-template-content-format --code-revision --collect-detailed-traces
        --compilation-config --config --config-format --convert --cp-kv-cache-interleave-size
        --cpu-offload-gb --cudagraph-capture-sizes --data-parallel-address --data-parallel-backend
        --[no-]data-parallel-external-lb --[no-]data-parallel-hybrid-lb --data-parallel-rank
        --data-parallel-rpc-port --data-parallel-size --data-parallel-size-local
        --data-parallel-start-rank --dbo-decode-token-threshold --dbo-prefill-token-threshold -dcp
        --dcp-kv-cache-interleave-size --decode-context-parallel-size --default-mm-loras
        --[no-]disable-cascade-attn --[no-]disable-chunked-mm-input --[no-]disable-custom-all-reduce
        --[no-]disable-fastapi-docs --[no-]disable-hybrid-kv-cache-manager --disable-log-stats
        --[no-]disable-nccl-for-dp-synchronization --[no-]disable-sliding-window
        --[no-]disable-uvicorn-access-log --distributed-executor-backend --download-dir -dp -dpa
        -dpb -dpe -dph -dpl -dpn -dpp -dpr --dtype --ec-transfer-config
        --[no-]enable-auto-tool-choice --[no-]enable-chunked-prefill --[no-]enable-dbo
        --[no-]enable-eplb --[no-]enable-expert-parallel --[no-]enable-force-include-usage
        --[no-]enable-log-outputs --[no-]enable-log-requests --[no-]enable-lora
        --[no-]enable-mm-embeds --[no-]enable-prefix-caching --[no-]enable-prompt-embeds
        --[no-]enable-prompt-tokens-details --[no-]enable-request-id-headers
        --[no-]enable-server-load-tracking --[no-]enable-sleep-mode --[no-]enable-ssl-refresh
        --[no-]enable-tokenizer-info-endpoint --[no-]enforce-eager --eplb-config
        --[no-]exclude-tools-when-tool-choice-none --expert-placement-strategy
        --[no-]fully-sharded-loras --generation-config --gpu-memory-utilization -h
        --h11-max-header-count --h11-max-incomplete-event-size --headless --help --hf-config-path
        --hf-overrides --hf-token --host --ignore-patterns --[no-]interleave-mm-strings
        --io-processor-plugin --kv-cache-dtype --kv-cache-memory-bytes --[no-]kv-cache-metrics
        --kv-cache-metrics-sample --kv-events-config --kv-offloading-backend --kv-offloading-size
        --[no-]kv-sharing-fast-prefill --kv-transfer-config --limit-mm-per-prompt --load-format
        --log-config-file --[no-]log-error-stack --logits-processors --logprobs-mode
        --long-prefill-token-threshold --lora-dtype --lora-modules --mamba-block-size
        --mamba-cache-dtype --mamba-ssm-cache-dtype --master-addr --master-port --max-cpu-loras
        --max-cudagraph-capture-size --max-log-len --max-logprobs --max-lora-rank --max-loras
        --max-model-len --max-num-batched-tokens --max-num-seqs --max-parallel-loading-workers
        --media-io-kwargs --middleware --mm-encoder-attn-backend --mm-encoder-tp-mode
        --mm-processor-cache-gb --mm-processor-cache-type --mm-processor-kwargs
        --mm-shm-cache-max-object-size-mb --model --model-impl --model-loader-extra-config -n
        --nnodes --node-rank --num-gpu-blocks-override --optimization-level --otlp-traces-endpoint
        --override-generation-config -pcp --pipeline-parallel-size --pooler-config --port -pp
        --prefill-context-parallel-size --prefix-caching-hash-algo --pt-load-map-location -q
        --quantization -r --[no-]ray-workers-use-nsight --reasoning-parser --reasoning-parser-plugin
        --response-role --[no-]return-tokens-as-token-ids --revision --root-path --runner
        --safetensors-load-strategy --scheduler-cls --scheduling-policy --seed --served-model-name
        --show-hidden-metrics-for-version --[no-]skip-mm-profiling --[no-]skip-tokenizer-init
        --speculative-config --ssl-ca-certs --ssl-cert-reqs --ssl-certfile --ssl-keyfile
        --stream-interval --structured-outputs-config --tensor-parallel-size --tokenizer
        --tokenizer-mode --tokenizer-revision --[no-]tokens-only --tool-call-parser
        --tool-parser-plugin --tool-server -tp --[no-]trust-remote-code
        --[no-]trust-request-chat-template --uds --[no-]use-tqdm-on-load --uvicorn-log-level
        --video-pruning-rate --worker-cls --worker-extension-cls
    """,
    (13, None): """
        -ac --attention-backend --attention-config --[no-]cudagraph-metrics
        --[no-]enable-layerwise-nvtx-tracing --profiler-config
    """,
    (14, None): """
        --[no-]allow-deprecated-quantization --default-chat-template-kwargs --[no-]enable-log-deltas
        --[no-]enable-logging-iteration-details --[no-]enable-mfu-metrics --[no-]enable-offline-docs
        --[no-]enable-return-routed-experts --[no-]enable-tower-connector-lora -ep --ubatch-size
    """,
    (15, None): "--mamba-cache-mode --[no-]mm-encoder-only --ssl-ciphers",
    (16, None): """
        --disable-access-log-for-endpoints --[no-]enable-flashinfer-autotune --kernel-config
        --[no-]specialize-active-lora --weight-transfer-config
    """,
    (17, 17): "--[no-]use-gpu-for-pooling-score",
    (17, None): """
        --cpu-offload-params --[no-]enable-elastic-ep --[no-]fail-on-environ-validation
        --[no-]language-model-only --moe-backend --offload-backend --offload-group-size
        --offload-num-in-group --offload-params --offload-prefetch-step --performance-mode
    """,
    (18, None): """
        --dcp-comm-backend --distributed-timeout-seconds --[no-]enable-ep-weight-filter
        --gdn-prefill-backend --grpc --shutdown-timeout
    """,
    (19, None): """
        --kv-cache-dtype-skip-layers --lora-target-modules --mm-tensor-ipc --reasoning-config
        --renderer-num-workers -sc --[no-]scheduler-reserve-full-isl
    """,
    (20, None): """
        --[no-]enable-flash-late-interaction --[no-]enable-mamba-cache-stochastic-rounding
        --ir-op-priority --mamba-backend --mamba-cache-philox-rounds --[no-]numa-bind
        --numa-bind-cpus --numa-bind-nodes
    """,
    (21, None): """
        --fingerprint-mode --fingerprint-value --mm-encoder-attn-dtype --mm-encoder-fp8-scale-path
        --mm-encoder-fp8-scale-save-margin --mm-encoder-fp8-scale-save-path
        --safetensors-prefetch-block-size --safetensors-prefetch-num-threads
    """,
    (22, None): """
        --cpu-distributed-timeout-seconds --data-parallel-multi-port-external-lb
        --data-parallel-supervisor-port --dp-supervisor-probe-failure-threshold
        --dp-supervisor-probe-interval-s --dp-supervisor-probe-timeout-s -dpm
        --[no-]enable-cumem-allocator --[no-]enable-mixed-moe-lora-format --linear-backend
        --quantization-config --spec-method --spec-model --spec-tokens --[no-]use-fp64-gumbel
    """,
    (24, None): """
        -dc --device-ids --diffusion-config --[no-]jit-monitor-verbose --prefill-schedule-interval
        --watermark
    """,
    (25, None): """
        --[no-]enable-per-request-metrics --jit-monitor-mode --mm-ipc-gpu-memory-gb
        --model-class-overrides
    """,
    (26, 29): "--[no-]enable-bf16x3-router-gemm",
    (26, None): "--[no-]enable-moe-shared-loras --max-num-scheduled-tokens --prefix-match-unit",
    (27, None): """
        --cohere-format --[no-]cohere-is-reasoning-model --[no-]enable-fault-tolerance
        --fault-tolerance-config --kda-prefill-backend --mamba-ssu-algorithm --mm-hasher-algorithm
        --replayssm-buffer-len --[no-]use-replayssm --video-pruning-method
    """,
    (28, None): """
        --ec-manager-config --[no-]mm-device-do-normalize --mm-processor-device
        --[no-]return-sampling-mask
    """,
    (29, None): """
        --[no-]dcp-q-replicate --[no-]enable-batch-sharded-sampling --[no-]enable-trace-replay
        --max-num-queued-reqs --max-num-queued-tokens --per-request-spec-decode-metrics
        --prefix-cache-retention-interval --sse-keep-alive-interval
    """,
    (30, 30): "--[no-]enable-mamba-fine-grained-prefix-cache",
    (30, None): """
        --dp-sync-interval --elastic-ep-max-dp-size --[no-]enable-nccl-comm-suspend
        --[no-]enable-scale-out --engram-config --kda-decode-backend --sparse-indexer-topk-backend
        --watermark-config
    """,
    (31, None): """
        --anthropic-disabled-thinking-effort --aux-output-config --device-memory-utilization
        --[no-]enable-mamba-shared-prefix-checkpoint --log-level --logging-config
        --[no-]long-prefill-token-threshold-adaptive --max-lora-cls-labels --max-num-active-seqs
        --sleep-preserve-parameter-names --[no-]swa-bounded-replay --tool-strict-level
        --[no-]trust-request-mm-kwargs
    """,
    (32, None): """
        --custom-histogram-buckets --[no-]enable-hc-sp --[no-]enable-shm-tensor-arena --grpc-port
        --[no-]sleep-mode-offload-cudagraph
    """,
    (33, None): "--[no-]monokernel --reasoning-effort-map --sleep-mode-backend --watchdog-config",
}


def newest() -> int:
    """Return N of the newest release 0.N in the table: the last one that differs."""
    return max(since if until is None else until + 1 for since, until in OPTIONS)


def options(minor: int | None) -> frozenset[str]:
    """Return the options of vLLM 0.`minor`: of the newest release if it is None or newer."""
    release = newest() if minor is None else min(minor, newest())
    return frozenset(
        spelling
        for (since, until), names in OPTIONS.items()
        if since <= release and (until is None or release <= until)
        for name in names.split()
        for spelling in _spellings(name, release)
    )


def of_any_release() -> frozenset[str]:
    return frozenset().union(*(options(since) for since, _ in OPTIONS))


def _spellings(name: str, release: int) -> tuple[str, ...]:
    if not name.startswith("--[no-]"):
        return (name,)
    plain = f"--{name[7:]}"
    more = opposite(plain) if release >= BOTH_WAYS else ()
    return (plain, f"--no-{name[7:]}", *more)


def opposite(switch: str) -> tuple[str, ...]:
    """Return the option with the opposite meaning, for --enable-x and --disable-x."""
    for one, other in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
        if switch.startswith(one):
            return (other + switch[len(one) :],)
    return ()


_SHORT_FLAGS = frozenset(("-dpe", "-dph", "-ep", "-h"))


def may_be_options(words: Sequence[str], release: Release, *, takes_model: bool) -> bool:
    """Whether a word that is not known may be an option.

    It is none if it is the value of an option, or the model (`takes_model`): that is the only
    positional argument.
    """
    known = options(release.minor)
    unknown = 0
    has_model = not takes_model
    before = ""
    for word in words:
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            before = "flag" if _stands_alone(word, known) else "option"
        elif before == "option":
            before = "value"  # it may have several
        elif word.startswith(UNKNOWN) and "/" not in word:
            unknown += 1
        elif before != "value":
            has_model = True
    return unknown > (not has_model)


def _stands_alone(word: str, known: frozenset[str]) -> bool:
    """Whether an option takes nothing from the next word."""
    if "=" in word or (word.startswith("-O") and len(word) > 2):
        return True
    name = word.replace("_", "-")
    if not name.startswith("--"):
        return name in _SHORT_FLAGS
    names = [name] if name in known else [other for other in known if other.startswith(name)]
    return bool(names) and all(
        other.startswith("--no-") or f"--no-{other[2:]}" in known for other in names
    )
