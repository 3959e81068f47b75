"""Stream one chat from a running server and show its latency.

python examples/client.py http://127.0.0.1:8000 "Why is the sky blue?" qos=interactive

Words after the question are what the request asks of its latency: qos, ttft_slo_ms,
tpot_slo_ms, tbt_slo_ms, e2e_slo_ms. A server with another scheduler ignores them.
"""

import json
import sys
import time
from itertools import pairwise

from openai import OpenAI


def main(url: str, question: str, *objectives: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    model = client.models.list().data[0].id
    times = [time.monotonic()]
    for event in client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=100,
        stream=True,
        extra_body={"vllm_xargs": dict(map(field_of, objectives))} if objectives else {},
    ):
        if event.choices and event.choices[0].delta.content:
            times.append(time.monotonic())
            print(event.choices[0].delta.content, end="", flush=True)
    worst = max((later - earlier for earlier, later in pairwise(times[1:])), default=0.0)
    mean = (times[-1] - times[1]) / max(len(times) - 2, 1)
    print(
        f"\nfirst token after {times[1] - times[0]:.3f} s, then one every {mean:.3f} s, "
        f"longest gap {worst:.3f} s"
    )


def field_of(word: str) -> tuple[str, str | float]:
    name, _, value = word.partition("=")
    return name, value if name == "qos" else json.loads(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
