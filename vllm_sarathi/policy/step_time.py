"""How long a step takes, learned from the steps that ran.

time = (base + a x tokens + b x tokens beyond the ridge + c x chunk context
        + d x decode context) x correction(tokens)

The coefficients are a non-negative least-squares fit of relative errors over a
window that forgets slowly. Kernels work in tiles, so that a few tokens more may
cost a third more time: the correction, kept for each range of batch sizes,
learns such cliffs where the engine meets them. A batch of a size that hardly ran is not
taken to last longer than its parts would: a cliff that was met must not hide larger batches.
A batch smaller than any that ran is taken to last no longer than its tokens, and as many as the
ridge has, took in those: an engine whose first prompt is long would keep all others out.
"""

import sys
from bisect import bisect_left
from dataclasses import dataclass, field, fields
from math import inf, isfinite
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCH_SIZES = (
    *range(16, 128, 16),
    *range(128, 256, 32),
    *range(256, 512, 64),
    *range(512, 2048, 128),
    *range(2048, 65537, 512),
)
"""Batch sizes worth telling apart, in tokens: multiples of every common tile among them."""

_RIDGE_TOKENS = 256
"""Where a GPU's reading of weights stops hiding what tokens cost: 150 to 300 of them on
present ones (the roofline in Sarathi-Serve, arXiv 2403.02310, section 3.1)."""

_NUM_FEATURES = 5

_MEMORY_STEPS = 500.0
"""Steps that the fit remembers: ten to thirty seconds of a busy GPU."""

_PRIOR_WEIGHT = 0.01
"""How much the last fit counts beside the steps since, as a share of what each feature brings: a
coefficient that recent steps say little of stays."""

_UNSURE_SHARE = np.array([0.0, 0.0, 0.008, 0.0, 0.0])
"""How much of a feature says little of its coefficient: few tokens beyond the ridge may
only reflect a tile boundary."""

_CORRECTION_RATE = 0.05
"""Weight of a step in the correction of its range of batch sizes, once twenty were seen."""

_STEPS_KNOWN = 2
"""Steps of a size that say more of it than its parts: an outlier says nothing, and the first other
one moves the correction half of the way."""

_OUTLIER_RATIO = 2.0
"""A step so many times longer or shorter than predicted is a pause or a compilation."""

_OUTLIERS_BELIEVED = 4
"""So many of them in a row are no accident: the machine has changed."""

_OLD_MACHINE_WEIGHT = 1e-3
"""What steps before such a change count afterwards: a first guess, gone after a few steps."""

_WARM_STEPS = 30
"""Steps after which predictions are trusted: five coefficients, several times over."""

_FITS_AT_ONCE = 64
"""Steps of which each is followed by a fit of its own."""

_STEPS_PER_FIT = 16
"""Later ones are fitted together: a fit takes as long as planning a step."""


class StepWork(NamedTuple):
    """What of a batch decides its duration.

    Attributes:
        num_tokens: tokens in the batch.
        chunk_context: over prefill chunks, sum of chunk x (context before it +
            chunk / 2): the pairs of query and key.
        decode_context: over decodes, sum of their contexts.
    """

    num_tokens: int
    chunk_context: float = 0.0
    decode_context: int = 0


@dataclass(slots=True)
class ErrorQuantile:
    """A quantile of measured over predicted time, tracked one observation at a time.

    Attributes:
        quantile: the share of observations that shall lie below ``value``.
        value: the estimate, at least 1.
        rate: how far one observation moves it.
    """

    quantile: float
    value: float = 1.1
    rate: float = 0.02

    def observe(self, ratio: float) -> None:
        """Move towards the quantile (stochastic approximation)."""
        self.value += self.rate * (self.quantile - (ratio <= self.value))
        self.value = min(max(self.value, 1.0), 1.5)


@dataclass(slots=True)
class StepTimeModel:
    """Predicts step times and learns from them. O(1) a step.

    Attributes:
        num_observed: steps learned from.
        largest_seen: most tokens of a step that ended.
        safety: factor under which most measured times stay.
    """

    num_observed: int = 0
    largest_seen: int = 0
    safety: ErrorQuantile = field(default_factory=lambda: ErrorQuantile(0.99))
    _moments: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((_NUM_FEATURES, _NUM_FEATURES))
    )
    _targets: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_NUM_FEATURES))
    _weights: list[float] = field(default_factory=lambda: [0.0] * _NUM_FEATURES)
    _corrections: dict[int, tuple[float, int]] = field(default_factory=dict)
    _unlearned: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    _outliers: int = 0
    _smallest_seen: int = sys.maxsize
    _ridge_s: float = inf  # the shortest time that as many tokens as the ridge has took

    @property
    def is_warm(self) -> bool:
        """Whether enough steps were seen to trust the model."""
        return self.num_observed >= _WARM_STEPS

    def predict(self, work: StepWork) -> float:
        """Expected duration of a step, in seconds; 0 before anything was seen."""
        whole_s = self._linear(work) * self.correction(work.num_tokens)
        size, num_parts = work.num_tokens, 1
        if size < self._smallest_seen:
            most_s = self._ridge_s * (1 + size / _RIDGE_TOKENS)
            return whole_s - max(self._linear(StepWork(size)) - most_s, 0.0)
        while size > _RIDGE_TOKENS and self._learned(size)[1] < _STEPS_KNOWN:
            size, num_parts = -(-size // 2), 2 * num_parts
        if num_parts == 1:
            return whole_s
        part = StepWork(size, work.chunk_context / num_parts)
        first = part._replace(decode_context=work.decode_context)
        parts_s = self._linear(first) + (num_parts - 1) * self._linear(part)
        return min(whole_s, parts_s * self.correction(size))

    def correction(self, num_tokens: int) -> float:
        """What the tiles make of a batch size: a factor around 1."""
        return self._learned(num_tokens)[0]

    def has_seen(self, num_tokens: int) -> bool:
        """Whether a batch of about this size has run."""
        return _size_class(num_tokens) in self._corrections

    def _learned(self, num_tokens: int) -> tuple[float, int]:
        """The correction of about this size, and how many steps it was learned from."""
        return self._corrections.get(_size_class(num_tokens), (1.0, 0))

    def observe(self, work: StepWork, duration_s: float) -> float | None:
        """Learn from one step.

        Args:
            work: what ran.
            duration_s: how long it took; ignored unless finite and above 0.

        Returns:
            Measured over predicted time, or None before there was a prediction
            or without a usable duration.
        """
        if not (isfinite(duration_s) and duration_s > 0 and work.num_tokens > 0):
            return None
        predicted_s = self.predict(work)
        self.largest_seen = max(self.largest_seen, work.num_tokens)
        self._smallest_seen = min(self._smallest_seen, work.num_tokens)
        ratio = duration_s / predicted_s if predicted_s > 0 else None
        if ratio is not None and self.is_warm:
            self.safety.observe(ratio)
            if self._is_outlier(ratio):
                self._corrections.setdefault(_size_class(work.num_tokens), (1.0, 0))
                return ratio
        ridge_share = min(_RIDGE_TOKENS / work.num_tokens, 1.0)
        self._ridge_s = min(self._ridge_s, ridge_share * duration_s)
        self._unlearned.append((_features(work), duration_s))
        if self.num_observed <= _FITS_AT_ONCE or len(self._unlearned) >= _STEPS_PER_FIT:
            self._learn()
        self._correct(work, duration_s)
        self.num_observed += 1
        return ratio

    def _is_outlier(self, ratio: float) -> bool:
        """A pause or a compilation, unless it lasts: then the machine has changed."""
        strange = not 1 / _OUTLIER_RATIO < ratio < _OUTLIER_RATIO
        self._outliers = self._outliers + 1 if strange else 0
        if self._outliers == _OUTLIERS_BELIEVED:
            self._outliers = 0
            self._forget()
            return False
        return strange

    def _forget(self) -> None:
        """Give new steps the say: what was learned stays as a guess only."""
        self._learn()
        self._moments *= _OLD_MACHINE_WEIGHT
        self._targets *= _OLD_MACHINE_WEIGHT
        self._corrections.clear()
        self._ridge_s = inf
        self.num_observed = 0

    @np.errstate(over="ignore", invalid="ignore")
    def _learn(self) -> None:
        """Fit to the steps since the last fit, together: numpy costs more than the numbers."""
        if not self._unlearned:
            return
        rows = np.array([features for features, _ in self._unlearned])
        rows /= np.array([duration_s for _, duration_s in self._unlearned])[:, None]
        keep = 1 - 1 / min(self.num_observed + 2.0, _MEMORY_STEPS)
        ages = np.arange(len(rows))[::-1]
        kept = rows * keep ** ages[:, None]
        self._moments = keep ** len(rows) * self._moments + kept.T @ rows
        self._targets = keep ** len(rows) * self._targets + kept.sum(axis=0)
        self._unlearned.clear()
        prior = (
            _PRIOR_WEIGHT * np.diag(self._moments) + _UNSURE_SHARE**2 * self._moments[0, 0] + 1e-12
        )
        targets = self._targets + prior * np.array(self._weights)
        moments = self._moments + np.diag(prior)
        if not (np.isfinite(moments).all() and np.isfinite(targets).all()):
            self._start_anew()  # no later step would mend it
            return
        self._weights = non_negative_fit(moments, targets).tolist()

    def _start_anew(self) -> None:
        fresh = StepTimeModel()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    def _correct(self, work: StepWork, duration_s: float) -> None:
        linear_s = self._linear(work)
        if linear_s > 0:
            ratio = min(max(duration_s / linear_s, 0.5), 2.0)
            old, count = self._learned(work.num_tokens)
            rate = max(1 / (count + 2), _CORRECTION_RATE)
            self._corrections[_size_class(work.num_tokens)] = (
                old + rate * (ratio - old),
                count + 1,
            )

    def _linear(self, work: StepWork) -> float:
        return float(sum(map(mul, self._weights, _features(work))))


def _features(work: StepWork) -> tuple[float, ...]:
    """What a step's time is linear in, each of a size around 1."""
    num_tokens, chunk_context, decode_context = work
    beyond = max(num_tokens - _RIDGE_TOKENS, 0)
    return 1.0, 1e-3 * num_tokens, 1e-3 * beyond, 1e-7 * chunk_context, 1e-6 * decode_context


def _size_class(num_tokens: int) -> int:
    """The smallest of ``BATCH_SIZES`` that holds so many tokens."""
    return int(BATCH_SIZES[min(bisect_left(BATCH_SIZES, num_tokens), len(BATCH_SIZES) - 1)])


def non_negative_fit(
    moments: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve the normal equations of least squares with no coefficient below 0.

    Drops the most negative coefficient until none is left: not always the best
    fit, but close to it for so few features, and fast.

    Args:
        moments: (n, n) positive definite.
        targets: (n,).

    Returns:
        (n,) coefficients, all at least 0.
    """
    active = np.arange(len(targets))
    fit = np.zeros(len(targets))
    while len(active):
        solved = np.linalg.solve(moments[np.ix_(active, active)], targets[active])
        if np.all(solved >= 0):
            fit[active] = solved
            break
        active = np.delete(active, int(np.argmin(solved * moments[active, active])))
    return fit
