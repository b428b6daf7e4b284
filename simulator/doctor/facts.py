"""What a run's environment.json has of the machine: what costs nothing to read, and the figures of the day if there are any."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from simulator.doctor import cache
from simulator.doctor.machine import cheap_facts, cpu_times, noise

if TYPE_CHECKING:
    from simulator.doctor.machine import CpuTimes

HOW = "no figures of today for this machine; `sim doctor` measures them, and runs then carry them"


def at_start(now: datetime) -> dict[str, Any]:
    """Facts from before a run. Nothing is measured."""
    figures = cache.of_today(cache.day_of(now.astimezone(UTC)))
    facts = cheap_facts()
    return {**facts, "doctor": None, "doctor_missing": HOW} if figures is None else {**facts, "doctor": figures.short()}


def during(before: CpuTimes | None) -> dict[str, Any]:
    """The noise floor since `before`; call it when the processes of the run have ended."""
    found = noise(before, cpu_times())
    return {"noise": {"steal_share": found.steal, "others_share": found.others, "over_s": found.seconds}}
