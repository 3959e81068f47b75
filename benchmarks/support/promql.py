"""PromQL over the engines that a dashboard's variables select; their names are vLLM's."""

_SELECTED = 'job=~"$job", model_name=~"$model_name", instance=~"$instance", engine=~"$engine"'
_WINDOW = "$__rate_interval"


def series(name: str, *labels: str) -> str:
    """Series of a metric, of those labels alone."""
    return f"{name}{{{', '.join((_SELECTED, *labels))}}}"


def rate(name: str, by: str = "", *labels: str) -> str:
    """Increase of a counter per second."""
    return f"{_sum(by)}(rate({series(name, *labels)}[{_WINDOW}]))"


def increase(name: str, by: str = "", window: str = _WINDOW) -> str:
    """Increase of a counter."""
    return f"{_sum(by)}(increase({series(name)}[{window}]))"


def latest(how: str, name: str) -> str:
    """The sum, the max or another aggregate of a gauge over engines."""
    return f"{how}({series(name)})"


def mean(name: str, by: str = "") -> str:
    """Mean of a histogram; nothing where nothing was observed."""
    return f"{rate(name + '_sum', by)} / ({rate(name + '_count', by)} > 0)"


def share(part: str, rest: str, by: str = "") -> str:
    """One counter over the sum of two; nothing where both stand still."""
    return f"{rate(part, by)} / ({rate(part, by)} + {rate(rest, by)} > 0)"


def quantiles(name: str, *percents: int, legend: str = "p%d", by: str = "") -> dict[str, str]:
    """Percentiles of a histogram, by legend."""
    buckets = rate(name + "_bucket", f"le, {by}" if by else "le")
    return {
        legend.replace("%d", str(percent)): f"histogram_quantile({percent / 100}, {buckets})"
        for percent in percents
    }


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
