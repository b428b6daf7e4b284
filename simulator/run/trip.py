"""The error-rate trip: watches how answers end, and says when the load has to stop.

It reads the counts that the run keeps anyway, a few times a second, from outside the process that sends: it costs a request
nothing. What was answered since the last look that is at least `over` ago makes the window, so it is never shorter than that, and
longer by at most a fiftieth of it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from simulator.report.attempts import attempts_ended
from simulator.report.wording import duration, share
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from typing import Any

    from simulator.measure.recorder import Tallies
    from simulator.scenario.http_safety import Trip

_LOOKS = 50  # kept within a window


class Tripped(NamedTuple):
    """Why the load was stopped."""

    at_s: float
    over_s: float  # the window
    answers: int  # to attempts, in it
    errors: int  # of these
    allowed: float  # the share that may be

    @property
    def sentence(self) -> str:
        """In words."""
        return (
            f"the error-rate trip stopped the load after {duration(self.at_s)}: of {self.answers:,} answers within "
            f"{duration(self.over_s)} {share(self.errors / self.answers)} were errors, where {share(self.allowed)} are allowed "
            "(backend.http.trip)"
        )

    def to_dict(self) -> dict[str, Any]:
        """For summary.json and events.jsonl."""
        return {
            "at_s": round(self.at_s, 6),
            "over_s": round(self.over_s, 6),
            "answers": self.answers,
            "errors": self.errors,
            "share": round(self.errors / self.answers, 6),
            "allowed": self.allowed,
        }


def answers_and_errors(tallies: Tallies) -> tuple[int, int]:
    """How many attempts were answered so far, and how many of them badly: failed, in doubt, or nobody was there.

    Attempts, not transactions: retries must not hide from the trip what the target has to bear.
    """
    ended = attempts_ended(tallies)
    by_status = ended.sum(axis=1)
    answers = int(by_status[[Status.OK, Status.REJECTED, Status.FAILED, Status.UNKNOWN]].sum())
    nobody = int(ended[Status.REJECTED, Reason.NODE_DOWN])
    return answers, int(by_status[Status.FAILED] + by_status[Status.UNKNOWN]) + nobody


class Watch:
    """Looks at the counts now and then."""

    def __init__(self, trip: Trip) -> None:
        self._trip = trip
        self._looks: deque[tuple[int, int, int]] = deque([(0, 0, 0)], _LOOKS + 2)  # (when, answers, errors)

    def look(self, now_ns: int, answers: int, errors: int) -> Tripped | None:
        """Notes the counts as they are at `now_ns` (of the run's clock, never falling); says if too many are errors."""
        over, looks = self._trip.over, self._looks
        while len(looks) > 1 and looks[1][0] <= now_ns - over:
            looks.popleft()
        since, answers_then, errors_then = looks[0]
        if now_ns - looks[-1][0] >= over // _LOOKS:
            looks.append((now_ns, answers, errors))
        within, bad = answers - answers_then, errors - errors_then
        if now_ns - since < over or within < self._trip.least or bad < self._trip.errors * within:
            return None
        return Tripped(now_ns / 1e9, (now_ns - since) / 1e9, within, bad, self._trip.errors)
