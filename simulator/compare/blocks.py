"""The circular block bootstrap: what else a run might have shown, had other stretches of its time come up.

Slices of time beside each other are alike: a queue that is long now is long in a second. Drawing single slices would take that
for independent evidence, so blocks of neighbours are drawn, round the end as on a circle, so that each slice is as likely as
any other (D. N. Politis and J. P. Romano, "A circular block-resampling procedure for stationary data", 1992).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAGS_LEAST = 5  # lags in a row that must look like noise; this and the next two as in Politis and White, section 3.2
_NOISE = 2.0
_CORRELATION_MOST = 0.95  # beyond, a series wanders, and no stretch of it says where to
_LONGEST_SHARE = 1 / 3  # of the series: fewer than three blocks are no sample


def autocovariances(series: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """R(0) … R(lags) of a series, each over n; float64 (lags + 1,)."""
    centred = series - series.mean()
    n = len(series)
    return np.array([float(centred[: n - lag] @ centred[lag:]) / n for lag in range(lags + 1)])


def block_length(series: NDArray[np.float64]) -> int:
    """How long blocks of a series must be, at least n^(1/3) and at most n/3 slices (or 3 √n).

    The automatic choice of D. N. Politis and H. White, "Automatic block-length selection for the dependent bootstrap"
    (Econometric Reviews 23, 2004), as corrected by A. Patton, D. N. Politis and H. White (Econometric Reviews 28, 2009), for the
    circular bootstrap: b = (2 g² / d)^(1/3) n^(1/3) with g = Σ λ(k/M) |k| R(k), d = 4/3 (Σ λ(k/M) R(k))², λ the flat-top window
    (1 up to 1/2, then falling to 0 at 1), and M twice the lag beyond which autocorrelation looks like noise. The lower
    bound is the rate at which blocks must grow for a variance (P. Hall, J. Horowitz and B.-Y. Jing, Biometrika 82, 1995): short
    series look independent because they cannot show that they are not.

    Args:
        series: float64 (n,), n ≥ 1.
    """
    n = len(series)
    most = int(max(math.ceil(min(3 * math.sqrt(n), n * _LONGEST_SHARE)), 1))
    least = int(min(math.ceil(n ** (1 / 3)), most))
    run = max(_LAGS_LEAST, math.ceil(math.sqrt(math.log10(max(n, 2)))))
    furthest = min(math.ceil(math.sqrt(n)) + run, n - 1)
    covariance = autocovariances(series, max(furthest, 0))
    if covariance[0] <= 0 or n <= run:
        return least
    correlation = np.abs(covariance[1:] / covariance[0])
    loud = correlation >= _NOISE * math.sqrt(math.log10(n) / n)
    # The first lag behind which `run` lags in a row are noise; where there is none, the last one that is not.
    quiet = (lag for lag in range(furthest) if not loud[lag : lag + run].any())
    cut = next(quiet, furthest)
    width = min(2 * max(cut, 1), furthest)
    lags = np.arange(-width, width + 1)
    ratio = np.abs(lags) / width
    window = np.where(ratio <= 1 / 2, 1.0, 2 * (1 - ratio))
    both = covariance[np.abs(lags)]
    slope = float((window * np.abs(lags) * both).sum())
    level = float((window * both).sum())
    if level <= 0:
        return least  # neighbours cancel each other: longer blocks would only say so more exactly
    wanted = (2 * slope**2 / (4 / 3 * level**2)) ** (1 / 3) * n ** (1 / 3)
    return int(min(max(math.ceil(wanted), least), most))


def effective(leverage: NDArray[np.float64], length: int) -> float:
    """How many stretches of so many slices a figure comes from: n / length if every slice bears on it alike, 1 if one does.

    A percentile of a run with a spike comes from the spike: the blocks in there are the whole sample, however long the rest
    lasts. For a sum Σ wᵢ εᵢ of independent blocks, whose variance is estimated from the blocks themselves, Satterthwaite's
    degrees of freedom are (Σ w²)² / Σ w⁴ (F. E. Satterthwaite, Biometrics Bulletin 2, 1946; for clusters of unequal weight
    R. M. Bell and D. F. McCaffrey, Survey Methodology 28, 2002). The weights are counts, and counts scatter by themselves,
    which would look like concentration: the moments are the factorial ones, w (w − 1) and w (w − 1)(w − 2)(w − 3), which
    Poisson's scatter leaves as they are. They are taken over all blocks of the circle, so it does not matter where blocks begin.

    Args:
        leverage: how many of a slice's values the figure depends on; float64 (n,), n ≥ 1.
        length: of a block, 1 ≤ length ≤ n.
    """
    n = len(leverage)
    upto = np.concatenate([[0.0], np.cumsum(np.concatenate([leverage, leverage[: length - 1]]))])
    held = upto[length:] - upto[:-length]
    second = float(np.maximum(held * (held - 1), 0.0).sum()) / length
    fourth = float(np.maximum(held * (held - 1) * (held - 2) * (held - 3), 0.0).sum()) / length
    if fourth <= 0:
        return n / length  # no block holds four: nothing is known to be together
    return min(max(second**2 / fourth, 1.0), n / length)


def shortfall(series: NDArray[np.float64], length: int, known: float) -> float:
    """By how much blocks of a length understate the variance of a sum of the series: at least 1.

    Blocks see no dependence beyond their own length, and within it less the further apart slices are. Where the correlation is
    r beside each other and falls by f from there on (a first-order autoregression seen through noise, an ARMA(1, 1)), the
    variance that they expect is 1 + 2 Σ (1 − k/b) r f^(k−1) of that of a slice, where 1 + 2 r/(1 − f) is right. The ratio
    corrects as prewhitening does (D. W. K. Andrews and J. C. Monahan, Econometrica 60, 1992). The sample's own r is too small by
    about (1 + 3 r)/m (M. G. Kendall, Biometrika 41, 1954), which is added back, and one standard error of r on top: a variance
    that is too small is the error that makes false alarms.

    Args:
        series: float64 (n,).
        length: of a block.
        known: m, how many of the slices have a say in r (`effective` with length 1): of a spike, those in it.
    """
    if len(series) <= _LAGS_LEAST:
        return 1.0
    m = max(known, _LAGS_LEAST)
    spread, *beside = (autocovariances(series, 3) / max(float(np.var(series)), 1e-300)).tolist()
    if spread <= 0 or beside[0] <= 0:
        return 1.0
    r = min(beside[0] + (1 + 3 * beside[0]) / m + math.sqrt((1 - beside[0] ** 2) / m), _CORRELATION_MOST)
    fall = r
    if beside[0] >= _NOISE / math.sqrt(m):
        fall = min(max((beside[1] + beside[2]) / (beside[0] + max(beside[1], 0.0)), r), _CORRELATION_MOST)
    lags = np.arange(1, length)
    seen = 1 + 2 * float(((1 - lags / length) * r * fall ** (lags - 1)).sum())
    return max(float((1 + 2 * r / (1 - fall)) / seen), 1.0)


def draw(n: int, length: int, resamples: int, random: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n slices comes up in each resample: float64 (resamples, n), each row of sum n."""
    blocks = -(-n // length)
    starts = random.integers(0, n, (resamples, blocks, 1))
    drawn = ((starts + np.arange(length)) % n).reshape(resamples, -1)[:, :n]
    rows = np.arange(resamples)[:, None] * n
    return np.bincount((drawn + rows).ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)
