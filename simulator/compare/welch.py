"""Variances that are added: how sure the sum is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The sum of independently estimated variances, and its degrees of freedom, at least 1.

    (Σ v)² / Σ (v² / f): B. L. Welch, Biometrika 34, 1947, after F. E. Satterthwaite, Biometrics Bulletin 2, 1946.

    Args:
        parts: variances with the degrees of freedom of each, at least one.
    """
    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return 0.0, max(sum(freedom for _, freedom in parts), 1.0)
    below = sum(part**2 / max(freedom, 1.0) for part, freedom in parts)
    return variance, max(variance**2 / below, 1.0)
