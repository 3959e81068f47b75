"""One server for all tests that only ask it something."""

from collections.abc import Iterator

import pytest
from support.server import Server, serve

FLAGS = (
    *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager"),
    *("--scheduler", "sarathi", "--sarathi-preset", "stall-free", "--sarathi-shed"),
    *("--sarathi-config", '{"token_budget": 128, "order": "edf"}'),
)


@pytest.fixture(scope="session")
def server(model: str) -> Iterator[Server]:
    """A server of ours that sheds."""
    with serve(model, FLAGS) as started:
        yield started
