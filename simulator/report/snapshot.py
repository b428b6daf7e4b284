"""A moment of a run: what its views and its live page show of it while it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["starting", "running", "draining", "auditing", "reporting"]

SECONDS_SHOWN = 240  # of rates: as wide as a terminal gets


@dataclass(frozen=True)
class Pace:
    """How fast a simulation goes, in real time."""

    real_s: float  # since it began
    per_s: float  # transactions
    left_s: float | None  # at this pace; None: too early to tell


@dataclass(frozen=True)
class Snapshot:
    """A moment of a run, as the live view shows it."""

    phase: Phase
    elapsed_s: float
    duration_s: float
    counts: dict[str, int]  # offered, sent, ok, rejected, failed, unknown, dropped
    in_flight: int
    offered_per_s: list[int]  # the last full seconds, at most SECONDS_SHOWN, the newest last
    completed_per_s: list[int]
    target_total: float  # transactions that the whole curve asks for
    response_ms: tuple[float, float, float] | None  # p50, p99, p99.9 of the last full second
    node_share: list[float]  # fractions of one, by node
    thresholds: list[tuple[str, str, bool]]  # metric and expression, observed, passed
    pace: Pace | None = None  # of a run on the virtual clock; None: the run's clock is the real one
    page: str = ""  # the address of the live page, "": there is none
