"""Kinds: which arrival is a payment, which refunds an earlier one, which holds, posts or voids.

An arrival's class is drawn by the mix. What it becomes depends on what came before:

* refund: gives back, in full, the oldest candidate that is at least `after_ns` old; each payment at most once. There is
  none: a payment.
* authorize: completes the oldest hold if that is at least `after_ns` old (a post, or a void with probability
  `void_share`); else it opens a hold; where `RING` holds are open already: a payment. In the long run every other
  arrival of the class completes.

Both waiting lists are rings of bounded size, first in, first out. A payment becomes a candidate with a probability half
as high again as the refunds need (`CANDIDATES_PER_REFUND`), so that the ring does not starve; a full ring takes no
more, and a candidate past its window (`after_ns` and as much again, at least a second) makes room for the next one, so
that refunds stay near their payments, whose ids a platform remembers for a bounded time only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.kernel import kernel
from simulator.seeds import uniform
from simulator.transaction import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

RING = 65_536  # of each list: 2 MiB. At 1 % refunds and a second's delay it serves 4 M transactions/s.
CANDIDATES_PER_REFUND = 1.5
_LEAST_WINDOW_NS = 1_000_000_000

WAITING = np.dtype([("id", "<u8"), ("intended_ns", "<i8"), ("amount_minor", "<i8"), ("payer", "<u4"), ("payee", "<u4")])

_PAYMENT, _REFUND, _AUTHORIZE = int(Kind.PAYMENT), int(Kind.REFUND), int(Kind.AUTHORIZE)
_POST, _VOID = int(Kind.POST), int(Kind.VOID)


@dataclass(frozen=True, slots=True)
class Mix:
    """Which kinds, how often, and when follow-ups come.

    Attributes:
        payment: weight ≥ 0.
        refund: weight ≥ 0.
        authorize: weight ≥ 0, of a hold's whole life-cycle: half of these arrivals open holds, half complete them.
        after_ns: a follow-up comes at least this long after its original, ≥ 0.
        void_share: of holds that are voided, in [0, 1]; the rest are posted.
    """

    payment: float = 1.0
    refund: float = 0.0
    authorize: float = 0.0
    after_ns: int = 1_000_000_000
    void_share: float = 0.1

    def __post_init__(self) -> None:
        if not (min(self.payment, self.refund, self.authorize) >= 0.0 and 0.0 < self.total < np.inf):
            raise ValueError("a mix is of weights ≥ 0, one of them above 0")
        if self.after_ns < 0:
            raise ValueError(f"a follow-up comes 0 ns or more after its original, not {self.after_ns}")
        if not 0.0 <= self.void_share <= 1.0:
            raise ValueError(f"a share is in [0, 1], not {self.void_share}")

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return self.payment + self.refund + self.authorize

    @property
    def take_share(self) -> float:
        """The probability with which a payment becomes a candidate for a refund."""
        needed = CANDIDATES_PER_REFUND * self.refund
        return 1.0 if needed >= self.payment else needed / self.payment


class LifeCycle:
    """Turns a batch of payments into the kinds of a mix, remembering what can be followed up.

    Args:
        mix: which kinds, how often.
        kind_key: of the stream that draws classes.
        follow_up_key: of the stream that draws candidates and voids.
        ring: size of each waiting list, a power of two.
    """

    def __init__(self, mix: Mix, kind_key: np.uint64, follow_up_key: np.uint64, ring: int = RING) -> None:
        if ring < 1 or ring & (ring - 1):
            raise ValueError(f"a ring's size is a power of two, not {ring}")
        self._mix = mix
        self._keys = (kind_key, follow_up_key)
        self._candidates = np.zeros(ring, WAITING)
        self._holds = np.zeros(ring, WAITING)
        self._ends = np.zeros(4, np.int64)

    def apply(self, batch: NDArray[Any]) -> None:
        """Set `kind` and `related`, and for follow-ups `amount_minor`, `payer` and `payee`, of a TRANSACTION[n].

        The batches of a run are one stream: ids from 1, consecutive, and times that do not decrease, over all calls.
        """
        mix = self._mix
        _apply(
            batch,
            self._keys[0],
            self._keys[1],
            mix.refund / mix.total,
            (mix.refund + mix.authorize) / mix.total,
            mix.take_share if mix.refund > 0.0 else 0.0,
            mix.void_share,
            mix.after_ns,
            mix.after_ns + max(mix.after_ns, _LEAST_WINDOW_NS),
            self._candidates,
            self._holds,
            self._ends,
        )


# Invariant: head ≤ tail ≤ head + ring for both rings; entries in [head, tail) are in order of id, hence of time; an
# entry leaves its ring once, so no payment is refunded twice and no hold completed twice.
@kernel
def _apply(
    batch: NDArray[Any],
    kind_key: np.uint64,
    follow_up_key: np.uint64,
    refund_below: float,
    authorize_below: float,
    take_share: float,
    void_share: float,
    after_ns: int,
    window_ns: int,
    candidates: NDArray[Any],
    holds: NDArray[Any],
    ends: NDArray[np.int64],
) -> None:
    ring = candidates.size
    mask = ring - 1
    candidate_head, candidate_tail, hold_head, hold_tail = ends[0], ends[1], ends[2], ends[3]
    for k in range(batch.size):
        number = np.int64(batch[k]["id"]) - 1
        now = batch[k]["intended_ns"]
        drawn = uniform(kind_key, number)
        kind = _PAYMENT
        related = np.uint64(0)
        if drawn < refund_below:
            oldest = candidate_head & mask
            if candidate_head < candidate_tail and now - candidates[oldest]["intended_ns"] >= after_ns:
                kind = _REFUND
                related = candidates[oldest]["id"]
                batch[k]["amount_minor"] = candidates[oldest]["amount_minor"]
                batch[k]["payer"] = candidates[oldest]["payee"]
                batch[k]["payee"] = candidates[oldest]["payer"]
                candidate_head += 1
        elif drawn < authorize_below:
            oldest = hold_head & mask
            if hold_head < hold_tail and now - holds[oldest]["intended_ns"] >= after_ns:
                kind = _VOID if uniform(follow_up_key, number) < void_share else _POST
                related = holds[oldest]["id"]
                batch[k]["amount_minor"] = holds[oldest]["amount_minor"]
                batch[k]["payer"] = holds[oldest]["payer"]
                batch[k]["payee"] = holds[oldest]["payee"]
                hold_head += 1
            elif hold_tail - hold_head < ring:
                kind = _AUTHORIZE
                newest = hold_tail & mask
                holds[newest]["id"] = batch[k]["id"]
                holds[newest]["intended_ns"] = now
                holds[newest]["amount_minor"] = batch[k]["amount_minor"]
                holds[newest]["payer"] = batch[k]["payer"]
                holds[newest]["payee"] = batch[k]["payee"]
                hold_tail += 1
        if kind == _PAYMENT and take_share > 0.0 and uniform(follow_up_key, number) < take_share:
            if candidate_head < candidate_tail:
                candidate_head += now - candidates[candidate_head & mask]["intended_ns"] > window_ns
            if candidate_tail - candidate_head < ring:
                newest = candidate_tail & mask
                candidates[newest]["id"] = batch[k]["id"]
                candidates[newest]["intended_ns"] = now
                candidates[newest]["amount_minor"] = batch[k]["amount_minor"]
                candidates[newest]["payer"] = batch[k]["payer"]
                candidates[newest]["payee"] = batch[k]["payee"]
                candidate_tail += 1
        batch[k]["kind"] = kind
        batch[k]["related"] = related
    ends[0], ends[1], ends[2], ends[3] = candidate_head, candidate_tail, hold_head, hold_tail
