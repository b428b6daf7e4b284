"""What protects a node from too much: its adaptive limit and its admission control, as the general engine calls them.

The rules themselves are in `simulator.balancer.limits` and `simulator.balancer.admission`; here is when they are asked:

* `lets_in` when an attempt reaches the node. First the limit, against what the node holds (waiting or served); then DAGOR, so
  that it counts only what came as far.
* `drops` when an attempt would begin service: CoDel and controlled delay judge how long it waited.
* `served` when its service ends: the limit learns from the time it spent at the node.
* `forget` when the node was killed: a new process knows nothing.

DAGOR's priority: business by the class of the kind (`platform.priority`), the user by a hash of the payer (or whoever
`balancer.hash.key` names) that changes every hour, as in the paper (Zhou et al., SoCC 2018, §4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.balancer.admission import (
    CODEL,
    USERS,
    codel_drops,
    dagor_admits,
    dagor_served,
    dagor_window,
    may_wait_ns,
    open_dagor,
)
from simulator.balancer.admission import LEVELS as DAGOR_LEVELS
from simulator.balancer.limits import LIMITERS, LimitSettings, allows, open_limits, update
from simulator.kernel import int64, kernel
from simulator.seeds import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.scenario.fleet import Platform

NO_ADMISSION, CODEL_RULE, CONTROLLED_DELAY, DAGOR_RULE = range(4)
_RULES = {"codel": CODEL_RULE, "controlled_delay": CONTROLLED_DELAY, "dagor": DAGOR_RULE}
LET_IN, OVER_LIMIT, NOT_ADMITTED = range(3)
_HOUR_NS = 3_600_000_000_000


class GuardSettings(NamedTuple):
    """Scalars; times in ns."""

    on: int  # 1: there is a limit or admission control
    admission: int
    target_ns: int
    interval_ns: int
    queueing_ns: int
    window_ns: int
    limit: LimitSettings


class Guards(NamedTuple):
    """The state of `N` nodes; tables of what is off have one row."""

    settings: GuardSettings
    limits: NDArray[np.void]  # (N,) LIMIT
    codel: NDArray[np.void]  # (N,) CODEL
    dagor: NDArray[np.void]  # (N,) DAGOR
    empty_ns: NDArray[np.int64]  # (N,) when the queue was last empty, if it is not empty now


def guard_settings(platform: Platform) -> GuardSettings:
    """Those of a scenario's platform."""
    concurrency, admission = platform.concurrency, platform.admission
    limit = LIMITERS["none"]
    if concurrency is not None:
        least, most = concurrency.bounds
        limit = LIMITERS[concurrency.limit]._replace(
            start=float(concurrency.start), least=float(least), most=float(most), timeout_ns=float(concurrency.slow)
        )
    return GuardSettings(
        on=int(concurrency is not None or admission is not None),
        admission=_RULES[admission.rule] if admission is not None else NO_ADMISSION,
        target_ns=admission.target if admission is not None else 0,
        interval_ns=admission.interval if admission is not None else 0,
        queueing_ns=admission.queueing if admission is not None else 0,
        window_ns=admission.window if admission is not None else 0,
        limit=limit,
    )


def open_guards(settings: GuardSettings, nodes: int) -> Guards:
    """Nodes that have just started."""
    limited = nodes if settings.limit.limiter else 1
    return Guards(
        settings=settings,
        limits=open_limits(settings.limit, limited),
        codel=np.zeros(nodes if settings.admission == CODEL_RULE else 1, CODEL),
        dagor=open_dagor(nodes if settings.admission == DAGOR_RULE else 1),
        empty_ns=np.zeros(nodes, np.int64),
    )


@kernel
def priority_of(business: int, user: int, now_ns: int) -> int:
    """DAGOR's compound priority, 0 the highest: the class of the kind, then the user's of this hour."""
    hour = np.uint64(now_ns // _HOUR_NS) << np.uint64(32)
    return min(business * USERS + int64(mix(np.uint64(user) ^ hour) % np.uint64(USERS)), DAGOR_LEVELS - 1)


@kernel
def lets_in(guards: Guards, n: int, now_ns: int, inside: int, business: int, user: int) -> int:
    """Whether node n takes one more while it holds `inside`: LET_IN, OVER_LIMIT or NOT_ADMITTED."""
    settings = guards.settings
    if settings.limit.limiter != 0 and not allows(settings.limit, guards.limits, n, inside):
        return OVER_LIMIT
    if settings.admission == DAGOR_RULE:
        dagor_window(guards.dagor, n, now_ns, settings.queueing_ns, settings.window_ns)
        if not dagor_admits(guards.dagor, n, priority_of(business, user, now_ns)):
            return NOT_ADMITTED
    return LET_IN


@kernel
def drops(guards: Guards, n: int, now_ns: int, entered_ns: int, queued: int, found: int) -> bool:
    """Whether what would begin service now is dropped instead, with `queued` behind it; it found `found` when it came."""
    settings = guards.settings
    waited = now_ns - entered_ns
    dropped = False
    if settings.admission == CODEL_RULE:
        dropped = codel_drops(guards.codel, n, now_ns, waited, queued, settings.target_ns, settings.interval_ns)
    elif settings.admission == CONTROLLED_DELAY and waited > 0:
        # The queue has not been empty since it entered, so this is what was decided then.
        dropped = waited > may_wait_ns(entered_ns, guards.empty_ns[n], settings.target_ns, settings.interval_ns)
    elif settings.admission == DAGOR_RULE:
        dagor_served(guards.dagor, n, waited)
    if dropped and settings.limit.limiter != 0:
        update(settings.limit, guards.limits, n, float(max(waited, 1)), found, 0)
    return dropped


@kernel
def served(guards: Guards, n: int, took_ns: int, found: int) -> None:
    """A service ended, `took_ns` after it came to node n and found so many there, itself among them."""
    if guards.settings.limit.limiter != 0:
        update(guards.settings.limit, guards.limits, n, float(max(took_ns, 1)), found, 1)


@kernel
def forget(guards: Guards, n: int) -> None:
    """Node n was killed."""
    settings = guards.settings
    if settings.limit.limiter != 0:
        row = guards.limits[n]
        row["limit"] = settings.limit.start
        row["long_ns"] = 0.0
        row["sum_ns"] = 0.0
        row["answers"] = 0.0
        row["least_ns"] = 0.0
    if settings.admission == CODEL_RULE:
        state = guards.codel[n]
        state["above_until_ns"] = 0
        state["next_ns"] = 0
        state["drops"] = 0
        state["last_drops"] = 0
        state["dropping"] = 0
    elif settings.admission == DAGOR_RULE:
        level = guards.dagor[n]
        level["level"] = DAGOR_LEVELS - 1
        level["requests"] = 0
        level["taken"] = 0
        level["served"] = 0
        level["waited_ns"] = 0.0
        for i in range(DAGOR_LEVELS):
            level["arrived"][i] = 0
