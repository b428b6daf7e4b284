"""Runs cases over replications and judges them: each quantity of theory must lie in the interval that the engine's runs give.

Two kinds of statement. An *estimate* is compared within its confidence interval, which must itself be narrow enough to say
something. A *balance* must be exact in every single replication: customers that came in and went out, Little's law.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.verify.interval import Interval, each_of, of_replications

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONFIDENCE = 0.999  # that none of the intervals of one whole verification misses by chance
REPLICATIONS = 16
_ROUNDING = 1e-9  # what floating-point sums of millions of times may differ by, relatively


@dataclass(frozen=True)
class Sample:
    """What one replication found."""

    estimates: dict[str, float]
    balances: dict[str, tuple[float, float]] = field(default_factory=dict)  # both sides of what must be equal


@dataclass(frozen=True)
class Case:
    """One statement of theory and how to put it to the engine."""

    name: str
    expected: dict[str, float]
    simulate: Callable[[int, int], Sample]  # (seed, customers)
    customers: int  # in one replication; chosen so that `precision` is reached
    precision: float = 0.03  # an interval wider than this share of its estimate proves nothing, and fails


@dataclass(frozen=True)
class Verdict:
    """One line of the table."""

    case: str
    quantity: str
    expected: float
    found: Interval
    passed: bool
    why: str = ""  # why not
    exact: bool = False  # a balance, which every replication must hold to the last digit

    def to_dict(self) -> dict[str, Any]:
        """As data."""
        return {
            "case": self.case, "quantity": self.quantity, "expected": self.expected, "found": self.found.mean,
            "half_width": self.found.half_width, "exact": self.exact, "passed": self.passed, "why": self.why,
        }  # fmt: skip


def verify(
    cases: Sequence[Case], *, seed: int, scale: float = 1.0, replications: int = REPLICATIONS,
    confidence: float = CONFIDENCE, done: Callable[[str], None] = lambda _: None,
) -> list[Verdict]:  # fmt: skip
    """Every case, judged.

    Args:
        cases: what to verify.
        seed: of the first replication of the first case; all others follow from it, so that a verdict can be repeated.
        scale: of the customers in each replication; below 1 intervals widen and the precision asked for with them (1/√scale).
        replications: independent runs of each case.
        confidence: that no true statement fails by chance, over all cases together.
        done: told the name of a case after each of its replications.
    """
    checks = sum(len(case.expected) for case in cases)
    each = each_of(checks, confidence)
    samples: dict[tuple[int, int], Sample] = {}
    # Kernels let go of the interpreter, so threads use all cores, and there is no process to clean up after.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            waiting = {
                pool.submit(case.simulate, seed + 1_000 * number + turn, int(case.customers * scale)): (number, turn)
                for number, case in enumerate(cases)
                for turn in range(replications)
            }
            for finished in as_completed(waiting):
                samples[waiting[finished]] = finished.result()
                done(cases[waiting[finished][0]].name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    verdicts = []
    for number, case in enumerate(cases):
        of_case = [samples[number, turn] for turn in range(replications)]
        verdicts += judge(case, of_case, each, case.precision * max(scale**-0.5, 1.0))
    return verdicts


def judge(case: Case, samples: Sequence[Sample], confidence: float, precision: float) -> list[Verdict]:
    """The verdicts on one case, from its replications."""
    verdicts = []
    for quantity, expected in case.expected.items():
        found = of_replications([sample.estimates[quantity] for sample in samples], confidence)
        why = ""
        if not found.holds(expected):
            why = f"off by {found.mean / expected - 1:+.2%}" if expected else "not 0"
        elif expected and found.relative > precision:
            why = f"known to ±{found.relative:.1%} only, which proves nothing; ±{precision:.1%} is asked for"
        verdicts.append(Verdict(case.name, quantity, expected, found, not why, why))
    balances = samples[0].balances
    return [
        *verdicts,
        *(_balanced(case.name, name, [sample.balances[name] for sample in samples]) for name in balances),
    ]


def _balanced(case: str, balance: str, sides: Sequence[tuple[float, float]]) -> Verdict:
    """A balance holds if both sides are equal in each replication; shown is the replication in which they differ most."""
    left, right = max(sides, key=lambda pair: abs(pair[0] - pair[1]))
    passed = abs(left - right) <= _ROUNDING * max(abs(left), abs(right))
    why = "" if passed else f"{left:.12g} is not {right:.12g}"
    return Verdict(case, balance, right, Interval(left, 0.0), passed, why, exact=True)
