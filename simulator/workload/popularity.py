"""Popularity: which merchant is paid, by a Zipf law and Walker's alias method.

Merchant of rank r = 0, 1, 2 … is paid with probability proportional to (r + 1)^-s. One draw costs one uniform and one
look-up, however many merchants there are: A. J. Walker, "An Efficient Method for Generating Discrete Random Variables
with General Distributions", ACM TOMS 3, 1977; built in linear time after M. D. Vose, "A Linear Algorithm for Generating
Random Numbers with a Given Distribution", IEEE TSE 17, 1991.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.elementary import exp, log
from simulator.kernel import inlined, kernel

AliasTable = NDArray[np.uint32]

_FULL = 2**32  # a column's share of its own, in the table's 32-bit fixed point


def zipf_table(merchants: int, exponent: float) -> AliasTable:
    """The alias table of a Zipf law.

    Args:
        merchants: how many, in [1, 2^32).
        exponent: s ≥ 0; 0: all alike.

    Returns:
        uint32[merchants, 2], see `alias_table`.

    Raises:
        ValueError: for arguments out of range.
    """
    if not 1 <= merchants < _FULL:
        raise ValueError(f"there are 1 to 2^32 - 1 merchants, not {merchants}")
    if not 0.0 <= exponent < np.inf:
        raise ValueError(f"a Zipf exponent is a number ≥ 0, not {exponent}")
    return alias_table(_weights(merchants, exponent))


def zipf_shares(merchants: int, exponent: float, ranks: int) -> NDArray[np.float64]:
    """The shares of all payments that the first `ranks` merchants get (fewer if there are fewer), the most popular first.

    Args:
        merchants: how many there are, ≥ 1.
        exponent: s ≥ 0.
        ranks: how many to tell of, ≥ 1.

    Returns:
        float64[min(ranks, merchants)]; over all merchants they sum to 1.
    """
    weights = _weights(merchants, exponent)
    shares: NDArray[np.float64] = weights[:ranks] / weights.sum()
    return shares


def _weights(merchants: int, exponent: float) -> NDArray[np.float64]:
    weights = np.empty(merchants)
    _zipf(exponent, weights)
    return weights


def alias_table(weights: NDArray[np.float64]) -> AliasTable:
    """The alias table of these weights (float64[n], ≥ 0, not all 0).

    Returns:
        uint32[n, 2]. Column c keeps the share table[c, 0] / 2^32 for itself and gives the rest to table[c, 1]; a
        column that keeps all is its own alias. Shares are rounded to 2^-32 of a column.

    Raises:
        ValueError: for weights that are none.
    """
    total = weights.sum()
    if not (weights.size and weights.min() >= 0.0 and 0.0 < total < np.inf):
        raise ValueError("weights are finite numbers ≥ 0, one of them above 0")
    table = np.empty((weights.size, 2), np.uint32)
    _build(weights * (weights.size / total), np.empty(weights.size, np.int64), table)
    return table


@kernel
def _zipf(exponent: float, weights: NDArray[np.float64]) -> None:
    for rank in range(weights.size):
        weights[rank] = exp(-exponent * log(float(rank + 1)))


# Invariant: scaled[c] is what column c still has to place, in columns; `work` holds the columns below one from the
# left and those of one or more from the right. Each step closes one column below one, so there are at most n steps.
@kernel
def _build(scaled: NDArray[np.float64], work: NDArray[np.int64], table: AliasTable) -> None:
    n = scaled.size
    small = 0
    large = n
    for c in range(n):
        table[c, 0] = 0xFFFFFFFF
        table[c, 1] = c
        if scaled[c] < 1.0:
            work[small] = c
            small += 1
        else:
            large -= 1
            work[large] = c
    while small > 0 and large < n:
        small -= 1
        low = work[small]
        high = work[large]
        table[low, 0] = np.uint32(min(scaled[low] * 4294967296.0, 4294967295.0))
        table[low, 1] = high
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            large += 1
            work[small] = high
            small += 1
    # What is left on either list is one column up to rounding: it keeps all, as it was initialised.


@inlined
def pick(table: AliasTable, u: float) -> int:
    """The index that the uniform `u` in (0, 1) picks: its integer part times n the column, its fraction the share."""
    scaled = u * table.shape[0]
    column = int(scaled)
    return column if (scaled - column) * 4294967296.0 < table[column, 0] else int(table[column, 1])
