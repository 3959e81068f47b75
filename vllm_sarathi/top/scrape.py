"""One look at a server's /metrics."""

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from vllm_sarathi.top.names import SHOWN

TIMEOUT_S = 5.0
_MAX_BYTES = 16 * 2**20
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_RESTARTS_AT_0 = ("_total", "_bucket")


class ScrapeError(Exception):
    """A server showed no metrics; says why."""


def address_of(text: str) -> str:
    """Where the server that a user named shows its metrics.

    Args:
        text: a URL, or a host with or without a port; the path's ``/metrics`` may be left out.

    Raises:
        ValueError: names the text and what is allowed.
    """
    wrong = ValueError(
        f"server {text!r} must be HOST:PORT, http://HOST:PORT or https://HOST:PORT, with a path "
        "or without; IPv6 as [::1]:8000"
    )
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:  # no port, or no IPv6 address
        raise wrong from None
    is_plain = text.isascii() and text.isprintable() and " " not in text and "@" not in url.netloc
    if url.scheme not in ("http", "https") or not has_host or not is_plain:
        raise wrong
    path = url.path.rstrip("/")
    path = path if path.endswith("/metrics") else f"{path}/metrics"
    return url._replace(path=path, fragment="").geturl()


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a server showed at a time.

    Attributes:
        at_s: when, on the monotonic clock.
        samples: those of metrics that are shown, by name.
    """

    at_s: float
    samples: Mapping[str, Sequence[Sample]]

    def select(self, name: str, **labels: str) -> list[Sample]:
        """The samples of a name with these labels, of all engines."""
        samples = self.samples.get(name, ())
        return [sample for sample in samples if labels.items() <= sample.labels.items()]

    def total(self, name: str, **labels: str) -> float | None:
        """Their sum; None if there are none."""
        found = self.select(name, **labels)
        return sum(sample.value for sample in found) if found else None

    def highest(self, name: str) -> float | None:
        """That of the engine with the highest value; None if there is none."""
        return max((sample.value for sample in self.select(name)), default=None)

    def values_of(self, label: str, *names: str) -> set[str]:
        """Values that a label has in metrics."""
        samples = (sample for name in names for sample in self.select(name))
        return {sample.labels[label] for sample in samples if label in sample.labels}

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """How many observations a histogram has at most at each of its bounds."""
        found: dict[float, float] = defaultdict(float)
        for sample in self.select(f"{name}_bucket", **labels):
            found[float(sample.labels["le"])] += sample.value
        return dict(sorted(found.items()))

    def is_before(self, later: "Scrape") -> bool:
        """Whether the server ran through until a later scrape: no counter began anew."""
        return all(
            (self.total(name) or 0) <= (later.total(name) or 0)
            for name in self.samples
            if name.endswith(_RESTARTS_AT_0)
        )


def scrape(address: str) -> Scrape:
    """Ask a server for its metrics.

    Raises:
        ScrapeError: it did not answer, or with something else.
    """
    try:
        text = _fetch(address)
        return parse(text, time.monotonic())
    except HTTPError as error:
        raise ScrapeError(f"HTTP {error.code} {error.reason}") from error
    except URLError as error:
        raise ScrapeError(_reason(error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:
        raise ScrapeError(_reason(error)) from error


def parse(text: str, at_s: float) -> Scrape:
    """Read metrics in Prometheus's text format.

    Raises:
        ValueError: none of vLLM is there, or one cannot be read.
    """
    # Only lines of what is shown: a server has thousands.
    lines = [line for line in text.split("\n") if line.startswith(SHOWN)]
    if not lines:
        raise ValueError("no metrics of vLLM there")
    samples: dict[str, list[Sample]] = defaultdict(list)
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                samples[sample.name].append(sample)
                if sample.name.endswith("_bucket"):
                    float(sample.labels["le"])
    except (ValueError, LookupError) as error:
        raise ValueError("metrics that are not in Prometheus's text format") from error
    return Scrape(at_s, dict(samples))


def _fetch(address: str) -> str:
    """The body of an answer: not more than a limit, nor later."""
    deadline_s, body = time.monotonic() + TIMEOUT_S, b""
    with urlopen(address, timeout=TIMEOUT_S) as answer:
        while piece := answer.read1(_MAX_BYTES):
            body += piece
            if len(body) > _MAX_BYTES or time.monotonic() > deadline_s:
                raise ValueError(f"no end of the answer after {len(body)} bytes")
    return _printable(body.decode(errors="replace"))


def _reason(error: object) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _printable(reason)


def _printable(text: str) -> str:
    """Text of a server without what a terminal would obey."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
