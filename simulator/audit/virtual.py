"""The audit of a simulated run: what clients were told, held against what shards applied, by sums that were kept apart.

A simulation keeps no balances and no journal, so nobody is refused for funds and there is no log to read. What can be checked is
that every transaction ended once, that what was acknowledged was applied, once, and that nothing was applied of which the client
was told that it had not happened. The engine counts both sides at different places and hashes the ids of each into a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.audit.findings import Audit
from simulator.engine.virtual.tally import Count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from simulator.engine.virtual.tally import Virtual


def audit_virtual(virtual: Virtual, unbalanced: Sequence[str], *, by_construction: bool = False) -> Audit:
    """Judges a finished simulation.

    Args:
        virtual: what it counted.
        unbalanced: where customers did not add up, station by station; empty if they did.
        by_construction: whether the platform is one step and clients only wait, so that an answer `ok` is the booking itself.
    """
    counts = virtual.counts
    acknowledged, applied = int(counts[Count.ACKNOWLEDGED]), int(counts[Count.APPLIED])
    late, refused = int(counts[Count.UNKNOWN_APPLIED]), int(counts[Count.REFUSED_APPLIED])
    missing = int(counts[Count.ACKNOWLEDGED_NOT_APPLIED])
    audit = Audit(
        transactions=int(counts[Count.OFFERED]), records=applied, shards=virtual.shard_ok.shape[1], unknown_applied=late
    )
    if missing:
        audit.find("lost", count=missing)
    if refused:
        audit.find("failed_but_applied", count=refused)
    beyond = applied - (acknowledged - missing + late + refused)
    if beyond > 0:
        audit.find("duplicated", count=beyond)
    elif beyond < 0:
        audit.find("unexplained", count=-beyond)
    elif not (late or refused or missing) and not _alike(virtual.digests):
        # Equally many, and yet not the same ones. With some in doubt that were applied the sums differ rightly.
        audit.find("unexplained", count=1)
    if by_construction:
        audit.reasons.append(
            "acknowledged is applied by construction: with one stage and clients that only wait, an answer is the booking; "
            "what was checked is that counts by status, node and shard agree, and that customers and their times add up"
        )
    for text in unbalanced:
        audit.reasons.append(f"customers do not add up: {text}")
        audit.find("unexplained", count=1)
    return audit


def _alike(digests: NDArray[np.uint64]) -> bool:
    return bool((digests[0] == digests[1]).all())
