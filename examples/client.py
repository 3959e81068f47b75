"""Stream one chat from a running server and show its latency.

python examples/client.py http://127.0.0.1:8000 "Why is the sky blue?"
"""

import sys
import time
from itertools import pairwise

from openai import OpenAI


def main(url: str, question: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    model = client.models.list().data[0].id
    times = [time.monotonic()]
    for event in client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=100,
        stream=True,
    ):
        if event.choices and event.choices[0].delta.content:
            times.append(time.monotonic())
            print(event.choices[0].delta.content, end="", flush=True)
    worst = max((later - earlier for earlier, later in pairwise(times[1:])), default=0.0)
    print(f"\nfirst token after {times[1] - times[0]:.3f} s, longest gap {worst:.3f} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
