"""Generate offline under the SARATHI scheduler: python examples/offline.py MODEL."""

import sys

from vllm import LLM, SamplingParams


def main(model: str) -> None:
    llm = LLM(model, scheduler_cls="sarathi", max_model_len=2048)
    prompts = ["The capital of France is", "Water boils at"]
    for answer in llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=24)):
        print(answer.prompt, "->", answer.outputs[0].text)


if __name__ == "__main__":
    main(sys.argv[1])
