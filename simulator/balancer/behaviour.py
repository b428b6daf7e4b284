"""How evenly the load was spread: the behaviour metrics that a whole run allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Spread:
    """Evenness of a load over nodes (or shards)."""

    share: NDArray[np.float64]  # of the whole, per node
    imbalance_max_over_mean: float  # 1 is even
    cv: float  # standard deviation over mean
    jain: float  # (Σx)² / (N Σx²): 1 is even, 1/N is all on one
    noise_floor: float  # √((N−1)/R): the imbalance that R independent requests show by chance alone


def spread(load: NDArray[np.int64]) -> Spread | None:
    """The spread of a load, shape (nodes,), counts; None if there was none."""
    total = int(load.sum())
    if total == 0:
        return None
    x = load.astype(np.float64)
    mean = x.mean()
    return Spread(
        share=x / total,
        imbalance_max_over_mean=float(x.max() / mean),
        cv=float(x.std() / mean),
        jain=float(x.sum() ** 2 / (len(x) * (x * x).sum())),
        noise_floor=float(np.sqrt((len(x) - 1) / total)),
    )
