"""The page about the papers' results."""

from support.papers_experiments import BATCH, CHUNK, EXPERIMENTS, ORCA, Figures

from vllm_sarathi.simulator.results.comparison import interval, paired_ratio
from vllm_sarathi.simulator.results.tables import table


def pipeline_table(found: Figures) -> str:
    """Throughput and bubbles, beside Orca's."""
    base = found[ORCA]
    rows = [
        [
            name,
            interval(figures["tokens_per_s"]),
            paired_ratio(figures["tokens_per_s"], base["tokens_per_s"]),
            interval(figures["idle_share"]),
            paired_ratio(base["bubble_s"], figures["bubble_s"]),
        ]
        for name, figures in found.items()
    ]
    header = ("scheduler", "tokens/s", "throughput ratio", "stages idle", "bubble less by")
    return table(header, rows)


def pd_table(gains: Figures) -> str:
    """The gain at each ratio, its peak marked."""
    best = max(gains, key=gains.__getitem__)
    rows = [[f"{ratio}{' <- peak' * (ratio == best)}", gain] for ratio, gain in gains.items()]
    return table(("P:D", "gain over prefill-first"), rows)


def capacity_table(found: Figures) -> str:
    """Capacities, and as ratios to the first scheduler."""
    rows = []
    for workload, by_engine in found.items():
        base = next(iter(by_engine.values()))
        for name, rates in by_engine.items():
            rows.append([workload, name, interval(rates), paired_ratio(rates, base)])
    return table(("load", "scheduler", "capacity req/s", "ratio"), rows)


TEXT = """# The papers' results, in virtual time

Written by `python benchmarks/paper_tables.py`; figures as JSON in `paper_tables.json`.
Means over seeds with 95 % confidence. Costs are those of
`vllm_sarathi.simulator.machine.gpus`;
every scheduler is a real vLLM class.

## Pipeline bubbles: GPT-3, TP8-PP8 (SARATHI, section 5.3)

Published: 1.91x throughput and 6.29x less bubble than unchunked scheduling (Orca), at P:D = 10,
lengths by Zipf's law from 1K to 4K, 27 requests in a micro-batch.

{pipeline}
{of_pipeline}
Measured with decode-maximal batches of C = 256: **{throughput:.2f}x** throughput (published 1.91x)
and **{bubble:.1f}x** less bubble time (published 6.29x).

Why they differ. Orca is here vLLM's scheduler held to whole prompts and micro-batches of 27; vLLM
has no such mode, and "stock, unchunked" fills one micro-batch with every decode that is ready. The
papers' measure of bubbles is the median of a request, ours is the idle time of all stages, filling
and draining the pipeline included. In our costs a prompt of 4K tokens holds a stage for 125 ms, a
batch of decodes for 4.6 ms: the further these are apart, the longer an uneven pipeline idles, and
the more even batches gain. How much each of these weighs was not separated. Our own default, "slo",
is given no objective and no chunk size here: it sizes the chunks for the pipeline by the step times
that it learns.

## The best P:D ratio (SARATHI, section 5.1.2)

Published: the gain of decode-maximal batches peaks where a chunk of prefill comes with exactly the
decodes that it yields, at P:D = C / (B - 1). Here C = {chunk}, B = {batch}, 2048 tokens a request:
predicted {predicted:.1f}, measured peak at **{peak}**.

{pd}
{of_pd}
The chunk is C - (B - 1) = {net} tokens of prefill, so that chunk and decodes fill two tiles.
The prediction counts decodes that ride along, not what attention costs as the context grows, and
the sweep has steps: a peak within one step of it is agreement.

## Serving capacity: Mistral-7B, one A100, P99 TBT 100 ms (Sarathi-Serve, section 5.1)

Published: up to 2.6x the capacity of vLLM as it then was, which ran prefills first.

{capacity}
{of_capacity}
Why they differ. "Up to 2.6x" is the best of the paper's loads; ours lie on both sides of it. Our
prefill-first class runs today's kernels and cache manager, which the vLLM of then had not. P99 TBT
tolerates one late gap in a hundred, so prefill-first, which stalls all decodes at once but rarely,
does better than today's default of 2048 tokens, which delays them a little all the time: both are
limited by the objective, not by the GPU. vLLM's sliding window for Mistral is not modelled.
"""


def origin(figures: Figures, section: str) -> str:
    """What a section was run with; nothing where old files did not keep it."""
    found = figures.get("origins", {}).get(section)
    if found is None:
        return ""
    parameters = (
        f"{name.replace('_', ' ')} {value}" for name, value in found["parameters"].items()
    )
    of = found["provenance"]
    return "\n" + ", ".join([*parameters, f"`{of['command']}`", f"commit {of['commit']}"]) + ".\n"


def render(figures: Figures) -> str:
    """The whole text."""
    ours, base = figures["pipeline"]["decode-maximal, C = 256"], figures["pipeline"][ORCA]
    throughput = paired_ratio(ours["tokens_per_s"], base["tokens_per_s"])
    bubble = paired_ratio(base["bubble_s"], ours["bubble_s"])
    assert throughput is not None
    assert bubble is not None
    return TEXT.format(
        **{f"of_{name}": origin(figures, name) for name in EXPERIMENTS},
        pipeline=pipeline_table(figures["pipeline"]),
        throughput=throughput.mean,
        bubble=bubble.mean,
        chunk=CHUNK,
        batch=BATCH,
        net=CHUNK - BATCH + 1,
        predicted=CHUNK / (BATCH - 1),
        peak=max(figures["pd"], key=figures["pd"].__getitem__),
        pd=pd_table(figures["pd"]),
        capacity=capacity_table(figures["capacity"]),
    )
