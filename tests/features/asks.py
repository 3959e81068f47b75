"""What the rows ask of an engine in this process, and what it answers.

Each function returns what both sides must answer alike, and counts that must not be 0: they
show that the feature was at work.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tests.features.tiny_models import VOCABULARY

LENGTHS = (5, 40, 300, 9, 150, 23, 260, 70, 12, 180, 33, 64)
MAX_TOKENS = 16
EVERY_STEPS = 2


class Result(NamedTuple):
    """What an engine answered, and how often the feature was at work."""

    answers: list[Any]
    counts: dict[str, float]


class Asked(NamedTuple):
    """A request and what goes with it."""

    prompt: Any
    params: Any
    options: dict[str, Any] = {}  # noqa: RUF012  # never written


def token_prompts(lengths: Iterable[int] = LENGTHS, seed: int = 0) -> list[list[int]]:
    """Prompts of random tokens."""
    random_ = random.Random(seed)
    return [random_.choices(range(VOCABULARY), k=length) for length in lengths]


def greedy(**chosen: Any) -> Any:
    """Sampling parameters; the output that ends a request holds all of its choices."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    common = {"temperature": 0.0, "max_tokens": MAX_TOKENS, "ignore_eos": True}
    return SamplingParams(**common | {"output_kind": RequestOutputKind.FINAL_ONLY} | chosen)


def drive(
    llm: Any, asked: Sequence[Asked], each_step: Callable[[int], None] = lambda step: None
) -> list[Any]:
    """Add a request every other step while those before it run; their finished outputs."""
    engine, names = llm.llm_engine, [str(i) for i in range(len(asked))]
    done: dict[str, Any] = {}
    step = 0
    while step < EVERY_STEPS * len(asked) or engine.has_unfinished_requests():
        index, rest = divmod(step, EVERY_STEPS)
        if not rest and index < len(asked):
            prompt, params, options = asked[index]
            given = prompt if isinstance(prompt, str) else {"prompt_token_ids": prompt}
            engine.add_request(names[index], given, params, **options)
        each_step(step)
        done |= {output.request_id: output for output in engine.step() if output.finished}
        step += 1
    return [done[name] for name in names if name in done]


def said(output: Any) -> list[Any]:
    """Tokens and end of every choice."""
    return [
        [list(choice.token_ids), choice.finish_reason, choice.stop_reason]
        for choice in sorted(output.outputs, key=lambda choice: choice.index)
    ]


def all_said(outputs: Iterable[Any]) -> list[Any]:
    """Tokens and ends of all."""
    return [said(output) for output in outputs]


def text(llm: Any, folders: dict[str, str]) -> Result:
    """Prompts of all lengths that come while others run."""
    return Result(all_said(drive(llm, [Asked(p, greedy()) for p in token_prompts()])), {})


def shared_prefixes(llm: Any, folders: dict[str, str]) -> Result:
    """Prompts that begin alike."""
    (head,) = token_prompts([160], seed=1)
    asked = [Asked(head + prompt, greedy()) for prompt in token_prompts()]
    outputs = drive(llm, asked)
    return Result(all_said(outputs), {"cached tokens": sum(o.num_cached_tokens for o in outputs)})


def stored(llm: Any, folders: dict[str, str]) -> Result:
    """The same twice, with vLLM's own prefix cache emptied in between: a connector has it."""
    first = shared_prefixes(llm, folders).answers
    assert llm.reset_prefix_cache()
    again, counts = shared_prefixes(llm, folders)
    return Result([first, again], counts)


def logprobs(llm: Any, folders: dict[str, str]) -> Result:
    """Three likely tokens beside each."""
    outputs = drive(llm, [Asked(p, greedy(logprobs=3)) for p in token_prompts()])
    return Result([[said(o), _likely(o.outputs[0].logprobs)] for o in outputs], {})


def prompt_logprobs(llm: Any, folders: dict[str, str]) -> Result:
    """Two likely tokens beside each of the prompt."""
    outputs = drive(llm, [Asked(p, greedy(prompt_logprobs=2)) for p in token_prompts()])
    return Result([[said(o), _likely(o.prompt_logprobs[1:])] for o in outputs], {})


def _likely(places: Iterable[Any]) -> list[Any]:
    return [sorted([token, found.logprob] for token, found in place.items()) for place in places]


def several_choices(llm: Any, folders: dict[str, str]) -> Result:
    """Three choices of a prompt, each the likeliest: vLLM has no greedy ``n``."""
    likeliest = greedy(n=3, temperature=1.0, top_k=1)
    outputs = drive(llm, [Asked(prompt, likeliest) for prompt in token_prompts()])
    assert all(len(output.outputs) == likeliest.n for output in outputs)
    return Result(all_said(outputs), {"choices": sum(len(o.outputs) for o in outputs)})


def aborts(llm: Any, folders: dict[str, str]) -> Result:
    """Every third request goes while it waits, is prefilled or decodes; the others stay whole."""
    gone = [str(i) for i in range(len(LENGTHS)) if i % 3 == 2]

    def leave(step: int) -> None:
        due = [name for i, name in enumerate(gone) if step == EVERY_STEPS * int(name) + 1 + 2 * i]
        llm.llm_engine.abort_request(due)

    outputs = drive(llm, [Asked(p, greedy()) for p in token_prompts()], leave)
    kept = [o for o in outputs if o.request_id not in gone]
    return Result(all_said(kept), {"requests that left": len(LENGTHS) - len(kept)})


def reset_prefix_cache(llm: Any, folders: dict[str, str]) -> Result:
    """Running requests are preempted and computed anew."""
    resets = []

    def reset(step: int) -> None:
        if step % 10 == 9:
            resets.append(llm.llm_engine.reset_prefix_cache(reset_running_requests=True))

    outputs = drive(llm, [Asked(p, greedy()) for p in token_prompts()], reset)
    return Result(all_said(outputs), {"resets": sum(resets)})


def repetitive(llm: Any, folders: dict[str, str]) -> Result:
    """Prompts that repeat themselves, so that n-grams are found."""
    prompts = [(prompt[:7] * len(prompt))[: len(prompt)] for prompt in token_prompts()]
    outputs = drive(llm, [Asked(p, greedy(max_tokens=48)) for p in prompts])
    return Result(all_said(outputs), {"drafts": counted("vllm:spec_decode_num_drafts")})


def drafted(llm: Any, folders: dict[str, str]) -> Result:
    """Tokens that a second model drafts."""
    answers = text(llm, folders).answers
    return Result(answers, {"drafts": counted("vllm:spec_decode_num_drafts")})


def adapters(llm: Any, folders: dict[str, str]) -> Result:
    """Two adapters in turn."""
    return _adapted(llm, folders, 2)


def adapters_and_none(llm: Any, folders: dict[str, str]) -> Result:
    """Two adapters and none in turn; then each prompt without an adapter alone, too."""
    adapted, counts = _adapted(llm, folders, 3)
    alone = [drive(llm, [Asked(prompt, greedy())]) for prompt in token_prompts()[2::3]]
    assert [all_said(outputs)[0] for outputs in alone] == adapted[2::3]
    return Result(adapted, counts)


def _adapted(llm: Any, folders: dict[str, str], num_kinds: int) -> Result:
    from vllm.lora.request import LoRARequest

    kinds: list[Any] = [LoRARequest(f"adapter {i}", i, folders[f"adapter {i}"]) for i in (1, 2)]
    kinds = [*kinds, None][:num_kinds]
    prompts = token_prompts()

    def answers(chosen: list[Any]) -> list[Any]:
        asked = [
            Asked(prompt, greedy(), {"lora_request": chosen[i % len(chosen)]})
            for i, prompt in enumerate(prompts)
        ]
        return all_said(drive(llm, asked))

    found = answers(kinds)
    others = answers(kinds[1:] + kinds[:1])
    different = sum(one != other for one, other in zip(found, others, strict=True))
    return Result(found, {"answers that another adapter changes": different})


def priorities(llm: Any, folders: dict[str, str]) -> Result:
    """Later requests before earlier ones."""
    asked = [Asked(p, greedy(), {"priority": -i}) for i, p in enumerate(token_prompts())]
    return Result(all_said(drive(llm, asked)), {})


def preemption(llm: Any, folders: dict[str, str]) -> Result:
    """More than the KV cache holds."""
    asked = [
        Asked(p, greedy(max_tokens=100), {"priority": -i}) for i, p in enumerate(token_prompts())
    ]
    outputs = drive(llm, asked)
    return Result(all_said(outputs), {"preemptions": counted("vllm:num_preemptions")})


def embeddings(llm: Any, folders: dict[str, str]) -> Result:
    """The embedding of each prompt."""
    from vllm import PoolingParams

    outputs = drive(llm, [Asked(p, PoolingParams(task="embed")) for p in token_prompts()])
    return Result([output.outputs.data.tolist() for output in outputs], {})


QUESTIONS = ("Hello", "The capital of France is", "Once upon a time " * 40, "def main():" * 25)


def beam_search(llm: Any, folders: dict[str, str]) -> Result:
    """Two beams."""
    from vllm.sampling_params import BeamSearchParams

    params = BeamSearchParams(beam_width=2, max_tokens=8, ignore_eos=True)
    found = llm.beam_search([{"prompt": question} for question in QUESTIONS], params)
    return Result([[beam.tokens for beam in output.sequences] for output in found], {})


def stop_strings(llm: Any, folders: dict[str, str]) -> Result:
    """An end at a letter."""
    params = greedy(stop=["a", "e"], max_tokens=40)
    outputs = drive(llm, [Asked(question, params) for question in QUESTIONS * 3])
    stopped = sum(o.outputs[0].finish_reason == "stop" for o in outputs)
    return Result(all_said(outputs), {"answers that a string stopped": stopped})


def structured(llm: Any, folders: dict[str, str]) -> Result:
    """A pattern, a choice and a schema."""
    from vllm.sampling_params import StructuredOutputsParams

    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer"}, "ok": {"type": "boolean"}},
        "required": ["age", "ok"],
    }
    shapes: list[dict[str, Any]] = [
        {"regex": r"[a-c]{4}-[0-9]{3}"}, {"choice": ["red", "green"]}, {"json": schema},
    ]  # fmt: skip
    asked = [
        Asked(
            question,
            greedy(structured_outputs=StructuredOutputsParams(**shape), ignore_eos=False),
        )
        for question in QUESTIONS
        for shape in shapes
    ]
    outputs = drive(llm, asked)
    chosen = sum(o.outputs[0].text in ("red", "green") for o in outputs)
    return Result(all_said(outputs), {"answers that are a choice": chosen})


def counted(name: str) -> float:
    """A counter of vLLM's."""
    from prometheus_client import REGISTRY

    return sum(
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == name
        for sample in metric.samples
        if sample.name == f"{name}_total"
    )
