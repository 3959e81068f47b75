"""Even micro-batches over pipeline stages.

A pipeline runs as many batches at once as it has stages, and a request is in one
of them at a time. If one batch takes all decodes, the others have none, and
stages idle in turn (SARATHI, arXiv 2308.16369, section 3.2).
"""


def decode_share(num_ready: int, num_decodes: int, num_stages: int) -> int:
    """How many decodes the next micro-batch takes.

    Those left out are ready for the next micro-batch, one stage time later.

    Args:
        num_ready: decodes that could run now.
        num_decodes: all decodes, those in flight included.
        num_stages: pipeline stages.
    """
    return min(num_ready, -(-num_decodes // num_stages))
