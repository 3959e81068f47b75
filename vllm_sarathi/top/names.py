"""Every metric that is shown. Counters as they are sampled, histograms without their suffixes."""

from enum import StrEnum


class Vllm(StrEnum):
    """What each vLLM server has."""

    RUNNING = "vllm:num_requests_running"
    WAITING = "vllm:num_requests_waiting"
    KV_CACHE = "vllm:kv_cache_usage_perc"
    PROMPT_TOKENS = "vllm:prompt_tokens_total"
    OUTPUT_TOKENS = "vllm:generation_tokens_total"
    FINISHED = "vllm:request_success_total"
    PREEMPTIONS = "vllm:num_preemptions_total"
    TTFT = "vllm:time_to_first_token_seconds"
    TPOT = "vllm:request_time_per_output_token_seconds"
    TBT = "vllm:inter_token_latency_seconds"


class Sarathi(StrEnum):
    """What a server with this scheduler adds."""

    SETTINGS = "vllm_sarathi:settings_info"
    ATTAINED = "vllm_sarathi:objectives_attained_total"
    MISSED = "vllm_sarathi:objectives_missed_total"
    SLACK = "vllm_sarathi:deadline_slack_seconds"
    TBT_OBJECTIVE = "vllm_sarathi:tbt_objective_seconds"
    BUDGET = "vllm_sarathi:step_budget_tokens"
    PREFILL_TOKENS = "vllm_sarathi:step_prefill_tokens"
    DECODE_TOKENS = "vllm_sarathi:step_decode_tokens"
    PREDICTED = "vllm_sarathi:predicted_step_seconds"
    MEASURED = "vllm_sarathi:measured_step_seconds"
    RATIO = "vllm_sarathi:step_time_ratio"
    LIMIT = "vllm_sarathi:steps_total"
    ADMISSION_BLOCKED = "vllm_sarathi:admission_blocked_steps_total"
    RELEGATED = "vllm_sarathi:relegated_requests_total"
    SHED = "vllm_sarathi:shed_requests_total"
    FAULTS = "vllm_sarathi:faults_total"


class Setting(StrEnum):
    """Labels of the settings' metric."""

    PRESET = "preset"
    TTFT = "ttft_slo_ms"
    TPOT = "tpot_slo_ms"


SHOWN = (*Vllm, *Sarathi)
