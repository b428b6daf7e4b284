"""What is compared of runs: a time's percentile or mean, the goodput, the share that ended so."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.compare.samples import OUTCOMES, TIMES


@dataclass(frozen=True)
class Metric:
    """What is compared: `aggregate` is `p` (of `argument`), `mean` or `rate`, as in thresholds."""

    name: str  # response_time, service_time, schedule_lag, throughput, ok, rejected, failed, unknown, dropped
    aggregate: str
    argument: float | None = None

    @property
    def is_time(self) -> bool:
        """Whether it is a time, in ns."""
        return self.name in TIMES

    @property
    def is_share(self) -> bool:
        """Whether it is a share of what ended; compared by difference."""
        return self.name in OUTCOMES

    @property
    def more_is_better(self) -> bool:
        """Whether a rise is good news."""
        return self.name in {"throughput", "ok"}

    @property
    def label(self) -> str:
        """What people call it: `response time p99`."""
        words = self.name.replace("_", " ")
        if self.aggregate == "p":
            return f"{words} p{self.argument:g}"
        return {"throughput": "goodput", "mean": f"{words} mean"}.get(
            self.name if self.name == "throughput" else self.aggregate, words
        )
