"""Least squares with no coefficient below 0."""

import numpy as np
from numpy.typing import NDArray


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
