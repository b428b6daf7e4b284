"""A node provisioned for so many requests a second: a token bucket at its intake.

What it does not take stays in its ring, and a full ring is an answer as ever: this is how a platform that is too small really
pushes back, on a machine that could do more. The bucket holds `BURST_NS` worth of tokens, so that a node which
the machine has made wait for that long still takes what it is provisioned for.
"""

from __future__ import annotations

BURST_NS = 100_000_000
_NS_PER_S = 1_000_000_000


class TokenBucket:
    """Whole tokens at `per_s`, in exact integers; full at `now_ns`."""

    def __init__(self, per_s: int, now_ns: int) -> None:
        if per_s <= 0:
            raise ValueError(f"a bucket that never fills: {per_s} a second")
        self._per_s = per_s
        self._most = max(per_s * BURST_NS, _NS_PER_S)  # in billionths of a token; at least one whole
        self._held = self._most
        self._seen_ns = now_ns

    def available(self, now_ns: int) -> int:
        """How many tokens there are now; a clock that goes back, as when a run's zero is set, gives none and goes on."""
        passed = max(now_ns - self._seen_ns, 0)
        self._seen_ns = now_ns
        self._held = min(self._held + passed * self._per_s, self._most)
        return self._held // _NS_PER_S

    def spend(self, tokens: int) -> None:
        """Takes tokens that are available."""
        self._held -= tokens * _NS_PER_S
