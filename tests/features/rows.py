"""The rows of the feature matrix: what each runs, and what is expected of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Place = Literal["engine", "async engine", "server", "virtual time", "configuration", "not run"]

SIDES: dict[str, dict[str, Any]] = {
    "slo": {"tbt_slo_ms": 2.0, "ttft_slo_ms": 20.0, "e2e_slo_ms": 500.0},
    "token budget": {
        "preset": "stall-free",
        "token_budget": 48,
        "order": "hybrid",
        "ttft_slo_ms": 20.0,
    },
}
"""Our settings: objectives that no batch can keep, so that chunks and order change in every
step; and a small fixed budget."""


@dataclass(frozen=True, slots=True)
class Row:
    """A feature.

    Attributes:
        feature: what the table calls it.
        ask: what is asked: a function of ``asks``, ``async_asks``, ``served`` or ``virtual``.
        place: where it runs.
        engine: arguments of vLLM's ``LLM`` on both sides; a name in ``{}`` stands for a folder.
        flags: of ``vllm serve``.
        note: what a reader should know; of a row that is not run, the reason.
        refusal: what the user is told, where the feature is refused.
        sides: settings of ours.
        folders: environment variables of the server that name an empty folder.
        patched: whether vLLM needs this project's patches, on both sides.
        num_servers: servers that take turns, behind ``vllm-router`` if there are several.
    """

    feature: str
    ask: str = "text"
    place: Place = "engine"
    engine: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    note: str = ""
    refusal: str = ""
    sides: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: SIDES)
    folders: tuple[str, ...] = ()
    patched: bool = False
    num_servers: int = 1


def connector(name: str, **extra: Any) -> dict[str, Any]:
    """A KV connector that both saves and loads."""
    return {
        "kv_connector": name,
        "kv_role": "kv_both",
        "kv_connector_extra_config": extra,
    }


SPEAKS = {"model": "{llama with tokenizer}", "skip_tokenizer_init": False}
FILES = connector("ExampleConnector", shared_storage_path="{storage}")
LORA = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8}

METRICS = "beside tokens, `/metrics` shows all of stock's series, and ours once for each engine"

ROWS = (
    Row("prefix caching", "shared_prefixes"),
    Row("prefix caching off", "text", engine={"enable_prefix_caching": False}),
    Row("no async scheduling", "text", note="vLLM turns it off on CPUs, so each row is without"),
    Row("async scheduling", "prompts", "virtual time"),
    Row("log probabilities", "logprobs"),
    Row("prompt log probabilities", "prompt_logprobs"),
    Row("several choices (n > 1)", "several_choices",
        note="without seeds: a seeded request whose prompt is chunked ends vLLM's CPU engine, "
        "stock's too"),
    Row("aborted requests", "aborts"),
    Row("reset of the prefix cache while requests run", "reset_prefix_cache"),
    Row("beam search", "beam_search", engine=SPEAKS),
    Row("stop strings", "stop_strings", engine=SPEAKS),
    Row("structured output", "structured", engine=SPEAKS),
    Row("speculative decoding: n-grams", "repetitive", engine={
        "speculative_config": {
            "method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3,
            "prompt_lookup_min": 1,
        }}),
    Row("speculative decoding: draft model", "drafted", engine={
        "speculative_config": {
            "method": "draft_model", "model": "{draft}", "num_speculative_tokens": 3,
        }}),
    Row("two LoRA adapters", "adapters", engine=LORA),
    Row("more LoRA adapters than fit a batch", "adapters", engine=LORA | {"max_loras": 1}),
    Row("two LoRA adapters, and requests without one", "adapters_and_none", engine=LORA,
        patched=True,
        note="with this project's patch: vLLM's CPU kernels give a request without an adapter that "
        "of the last slot if it shares a batch with one that has an adapter"),
    Row("priorities", "priorities", engine={"scheduling_policy": "priority"}),
    Row("preemption", "preemption", engine={
        "num_gpu_blocks_override": 32, "enable_prefix_caching": False, "block_size": 32,
        "max_model_len": 512}),
    Row("preemption with priorities and prefix caching", "preemption", engine={
        "num_gpu_blocks_override": 32, "scheduling_policy": "priority", "block_size": 32,
        "max_model_len": 512}),
    Row("sliding windows, two groups of KV caches", "text", engine={"model": "{gemma}"}),
    Row("pooling: embeddings", "embeddings", engine=SPEAKS | {
        "runner": "pooling", "convert": "embed", "pooler_config": {"seq_pooling_type": "LAST"}}),
    Row("KV connector", "stored", engine={"kv_transfer_config": FILES},
        note="loads what stock stored: vLLM's example connector stores no more than the first "
        "chunk of a prompt, so that stock with 64 tokens a batch fails in it"),
    Row("KV connectors: several", "stored", engine={
        "kv_transfer_config": connector("MultiConnector", connectors=[FILES])}),
    Row("KV offloading to the CPU", place="not run",
        note="needs a GPU: `CPU Offloading is currently only supported on CUDA-alike and XPU "
        "GPUs`"),
    Row("`--max-num-active-seqs`", "text", engine={"max_num_active_seqs": 3},
        note="the smaller of it and what objectives admit"),
    Row("`--long-prefill-token-threshold`", "text", engine={"long_prefill_token_threshold": 32},
        note="no chunk is longer; the log says so"),
    Row("`--prefill-schedule-interval`", "throttled", "virtual time",
        note="vLLM 0.32 applies it with data-parallel mixture-of-experts models only: here the "
        "engine core's call is made; the interval wins, and the log says so"),
    Row("tensor parallelism", "text", engine={"tensor_parallel_size": 2}),
    Row("pipeline parallelism", "text", engine={"pipeline_parallel_size": 2},
        patched=True, note="with this project's patch, which eager mode on CPUs needs"),
    Row("pause and resume, requests kept", "paused", "async engine"),
    Row("sleep and wake", "asleep", "async engine",
        note="the scheduler's part: vLLM's CPU worker has no memory to give back"),
    Row("streaming input (resumable sessions)", "sessions", "async engine"),
    Row("data parallelism, one API server", "completions", "server",
        flags=("--data-parallel-size", "2", "--api-server-count", "1"), note=METRICS),
    Row("data parallelism, two API servers", "completions", "server",
        flags=("--data-parallel-size", "2", "--api-server-count", "2"), note=METRICS),
    Row("`--api-server-count 2`", "completions", "server", flags=("--api-server-count", "2"),
        note=METRICS),
    Row("`PROMETHEUS_MULTIPROC_DIR`", "completions", "server",
        folders=("PROMETHEUS_MULTIPROC_DIR",), note=METRICS),
    Row("`vllm-router` before two servers", "objectives", "server", num_servers=2,
        note="objectives pass through, in the body and in headers"),
    Row("`--max-num-queued-reqs`, `--max-num-queued-tokens`", "queue_limits", "server",
        flags=("--max-num-queued-reqs", "3", "--max-num-queued-tokens", "600"),
        note="the API server answers 503 before the scheduler sees a request; the log says so"),
    Row("decodes that pause", "pauses", "virtual time", sides={"slo": {"tbt_slo_ms": 120.0}},
        note="as vLLM's second model runner lets them, which the CPU has not"),
    Row("multimodal prompts with an encoder budget", "images", "virtual time"),
    Row("hybrid KV caches: Mamba", "text", "not run",
        note="needs a GPU: vLLM's CPU build lacks `selective_scan_fwd`, seen with a Jamba"),
    Row("pooling: classification with a bidirectional encoder", place="configuration",
        engine={"model": "{bert}", "runner": "pooling", "max_model_len": 512},
        refusal="enable_chunked_prefill=False: that contradicts preset='slo'"),
    Row("encoder-decoder models", place="configuration", engine={
        "model": "{whisper}", "max_model_len": 448},
        refusal="the model is an encoder-decoder, whose prefills vLLM does not chunk"),
    Row("`--no-enable-chunked-prefill`", place="configuration",
        engine={"enable_chunked_prefill": False, "max_num_batched_tokens": 2048},
        refusal="enable_chunked_prefill=False: that contradicts preset='slo'"),
    Row("Ray executor, Ray data parallelism", place="not run",
        note="needs a GPU: `current platform cpu does not support ray`, seen with both"),
)  # fmt: skip
