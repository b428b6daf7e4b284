"""How a balancer behaved: every figure of the behaviour table, as pure functions over arrays.

A load is an array (windows, nodes): requests, mean requests in flight or busy time, kept apart. Windows are uniform,
usually 100 ms. With weights a node's load is divided by its weight first (mean 1), so that an even spread is one by weight.
A figure that cannot be known from what was recorded is None, never 0. docs/balancing.md has each formula.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simulator.balancer.fleet import Health

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_S = 1_000_000_000
_FAIR = 0.9  # of its fair share: a node is back
_RECOVERED = 0.95  # of the goodput before: a run has recovered
_CHANCE = 0.01  # a period is one only if noise would show its peak less often
_LEAST_SERIES = 16
_LEAST_CYCLES = 4  # of a period, within the series
FAULTS_MOST = 64  # sick nodes told one by one; a unit's loss may make thousands
_EJECTIONS = (int(Health.EJECTED_IN_A_ROW), int(Health.EJECTED_BY_RATE))


# ---- evenness ----


@dataclass(frozen=True)
class Spread:
    """Evenness of a load over nodes (or shards)."""

    share: NDArray[np.float64]  # of the whole, per node
    imbalance_max_over_mean: float  # 1 is even
    p99_over_p50: float | None  # of the nodes' loads; None: the median is 0
    cv: float  # standard deviation over mean
    jain: float  # (Σx)² / (N Σx²): 1 is even, 1/N is all on one
    noise_floor: float  # √((N−1)/R): the cv that R independent requests show by chance alone
    excess: float  # √(cv² − (N−1)/R), 0 if negative: the cv beyond chance


def spread(load: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Spread | None:
    """The spread of a load, shape (nodes,), ≥ 0; None if there was none. The noise floor is that of counts."""
    total = float(load.sum())
    if total <= 0:
        return None
    x = load.astype(np.float64)
    if weights is not None:
        x = x * weights.mean() / weights
    mean = x.mean()
    cv, floor = float(x.std() / mean), float(np.sqrt((len(x) - 1) / total))
    middle = float(np.median(x))
    return Spread(
        share=load / total,
        imbalance_max_over_mean=float(x.max() / mean),
        p99_over_p50=float(np.percentile(x, 99) / middle) if middle else None,
        cv=cv,
        jain=float(x.sum() ** 2 / (len(x) * (x * x).sum())),
        noise_floor=floor,
        excess=float(np.sqrt(max(cv * cv - floor * floor, 0.0))),
    )


def merged(load: NDArray[Any], windows: int) -> NDArray[Any]:
    """Sums `windows` windows at a time; an incomplete last group is left out."""
    whole = len(load) // windows
    return load[: whole * windows].reshape(whole, windows, *load.shape[1:]).sum(axis=1)


def spread_in_windows(
    load: NDArray[Any], weights: NDArray[np.float64] | None = None, *, counts: bool = True
) -> dict[str, Any] | None:
    """How even each window was, over the windows that had a load: medians and 99th percentiles.

    `counts`: the load is requests, so that chance has a floor.
    """
    total = load.sum(axis=1)
    used = load[total > 0].astype(np.float64)
    if not len(used):
        return None
    x = used if weights is None else used * (weights.mean() / weights)
    mean = x.mean(axis=1)
    nodes = load.shape[1]
    cv = x.std(axis=1) / mean
    middle = np.median(x, axis=1)
    figures = {
        "imbalance_max_over_mean": x.max(axis=1) / mean,
        "p99_over_p50": (np.percentile(x, 99, axis=1)[middle > 0] / middle[middle > 0]),
        "cv": cv,
        "jain": x.sum(axis=1) ** 2 / (nodes * (x * x).sum(axis=1)),
    }
    if counts:
        figures["excess"] = np.sqrt(np.maximum(cv**2 - (nodes - 1) / used.sum(axis=1), 0.0))
    return {"windows": len(used), **{name: _two(values) for name, values in figures.items()}}


def _two(values: NDArray[np.float64]) -> dict[str, float] | None:
    if not len(values):
        return None
    return {"p50": _rounded(np.percentile(values, 50)), "p99": _rounded(np.percentile(values, 99))}


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 6)


# ---- herds and stale views ----


class Herd(NamedTuple):
    """Oscillation of the nodes' loads about an even share."""

    amplitude: float  # peak to trough of x_i / mean after detrending, the mean of the nodes
    period_s: float | None  # the dominant one; None: none stands out of the noise
    period_over_delay: float | None


def herd(load: NDArray[Any], window_ns: int, delay_ns: int | None = None) -> Herd | None:
    """How far, and how fast, loads swing; None with fewer than 16 loaded windows.

    Each node's share of the mean has its straight line taken off. Peak and trough are the 97.5 and 2.5 percentiles: extremes of
    a long series are those of its noise. The period is where the nodes' mean periodogram peaks, if by Fisher's g test (1929)
    noise alone would show such a peak less often than once in a hundred; a herd's is about 2 to 4 delays of its feedback.
    What does not come round four times is no period: a node that is slow for a third of a run swings once.
    """
    loaded = np.flatnonzero(load.sum(axis=1) > 0)
    if len(loaded) < _LEAST_SERIES:
        return None
    x = load[loaded[0] : loaded[-1] + 1].astype(np.float64)
    mean = x.mean(axis=1, keepdims=True)
    x = np.divide(x, mean, out=np.ones_like(x), where=mean > 0)
    t = np.arange(len(x)) - (len(x) - 1) / 2
    x = x - x.mean(axis=0) - np.outer(t, t @ x / (t @ t))
    amplitude = float((np.percentile(x, 97.5, axis=0) - np.percentile(x, 2.5, axis=0)).mean())
    power = (np.abs(np.fft.rfft(x, axis=0)) ** 2).mean(axis=1)[1:]
    power[: _LEAST_CYCLES - 1] = 0.0  # what comes and goes once is an event, no oscillation
    top, bins = int(np.argmax(power)), len(power) - _LEAST_CYCLES + 1
    least = 1 - (_CHANCE / bins) ** (1 / (bins - 1))
    if amplitude < 1e-9 or power[top] < least * power.sum():  # noqa: PLR2004  the rounding of an even load
        return Herd(amplitude, None, None)
    period_s = len(x) / (top + 1) * window_ns / _S
    return Herd(amplitude, period_s, period_s * _S / delay_ns if delay_ns else None)


def regret(chosen: NDArray[Any], least: NDArray[Any]) -> float | None:
    """Mean of load(chosen) − least true load, at the picks; None without a pick."""
    return float((chosen - least).mean()) if len(chosen) else None


# ---- health ----


class FaultSpan(NamedTuple):
    """A node that was sick from one instant until another, ns."""

    node: int
    start_ns: int
    end_ns: int


class Absence(NamedTuple):
    """A node that one balancer left out, from one instant until another, ns."""

    balancer: int
    node: int
    start_ns: int
    end_ns: int


def absences(events: NDArray[np.void], end_ns: int) -> list[Absence]:
    """The ejections in a log of health events (fleet.EVENT), in the order in which they ended; open ones end at `end_ns`."""
    out: dict[tuple[int, int], int] = {}
    found = []
    for event in events:
        who = int(event["balancer"]), int(event["node"])
        if event["what"] in _EJECTIONS:
            out.setdefault(who, int(event["time_ns"]))
        elif event["what"] == Health.READMITTED and who in out:
            found.append(Absence(*who, out.pop(who), int(event["time_ns"])))
    return found + [Absence(*who, start, end_ns) for who, start in out.items()]


def detection(events: NDArray[np.void], fault: FaultSpan, balancers: int) -> dict[str, Any]:
    """From the fault to the first ejection by each balancer: how many saw it, and p50 and p99 of how long it took, s."""
    first: dict[int, int] = {}
    for event in events:
        inside = fault.start_ns <= event["time_ns"] <= fault.end_ns
        if inside and event["node"] == fault.node and event["what"] in _EJECTIONS:
            first.setdefault(int(event["balancer"]), int(event["time_ns"]) - fault.start_ns)
    took = np.array(sorted(first.values())) / _S
    return {
        "balancers": balancers,
        "detected": len(took),
        "first_s": _rounded(took[0]) if len(took) else None,
        "p50_s": _rounded(np.percentile(took, 50)) if len(took) else None,
        "p99_s": _rounded(np.percentile(took, 99)) if len(took) else None,
    }


def lost_before(failed: NDArray[Any], window_ns: int, fault: FaultSpan, until_ns: int) -> int:
    """Requests that failed at the sick node from the fault to its first ejection, by whole windows."""
    first, last = fault.start_ns // window_ns, -(-until_ns // window_ns)
    return int(failed[first:last, fault.node].sum())


def return_to_share(
    requests: NDArray[Any], window_ns: int, node: int, recovery_ns: int, fair: float
) -> dict[str, float | None]:
    """From the recovery to the first request, and until the node has 90 % of its fair share over a second, s; None: never."""
    first = -(-recovery_ns // window_ns)
    mine, all_of_them = requests[first:, node], requests[first:].sum(axis=1)
    some = np.flatnonzero(mine)
    span = max(_S // window_ns, 1)
    kernel = np.ones(span)
    share = None
    if len(mine) >= span:
        total = np.convolve(all_of_them, kernel, "valid")
        part = np.convolve(mine, kernel, "valid")
        reached = np.flatnonzero((total > 0) & (part >= _FAIR * fair * total))
        share = (reached[0] + span) * window_ns / _S if len(reached) else None
    return {
        "first_request_s": _rounded((some[0]) * window_ns / _S) if len(some) else None,
        "fair_share_s": None if share is None else _rounded(share),
    }


def sick_traffic(requests: NDArray[Any], window_ns: int, fault: FaultSpan, fair: float) -> dict[str, float | None]:
    """The sick node's share before, during and after the fault, over its fair one; windows that the fault cuts are left out."""
    start, end = fault.start_ns / window_ns, fault.end_ns / window_ns
    spans = {
        "before": requests[: int(start)],
        "during": requests[int(np.ceil(start)) : int(end)],
        "after": requests[int(np.ceil(end)) :],
    }
    return {
        name: _rounded(part[:, fault.node].sum() / part.sum() / fair) if part.sum() else None
        for name, part in spans.items()
    }


def false_ejection_s(gone: Sequence[Absence], faults: Sequence[FaultSpan]) -> float:
    """Node-seconds for which healthy nodes were out, all balancers together: of ejections that began while the node was well."""
    sick: dict[int, list[FaultSpan]] = {}
    for fault in faults:
        sick.setdefault(fault.node, []).append(fault)
    return sum(
        (out.end_ns - out.start_ns) / _S
        for out in gone
        if not any(f.start_ns <= out.start_ns <= f.end_ns for f in sick.get(out.node, ()))
    )


def panic_s(events: NDArray[np.void], end_ns: int) -> float:
    """Seconds in panic, all balancers together."""
    began: dict[int, int] = {}
    total = 0
    for event in events:
        b, at = int(event["balancer"]), int(event["time_ns"])
        if event["what"] == Health.PANIC_BEGAN:
            began.setdefault(b, at)
        elif event["what"] == Health.PANIC_ENDED and b in began:
            total += at - began.pop(b)
    return (total + sum(end_ns - at for at in began.values())) / _S


# ---- amplification, churn, efficiency ----


def amplification(attempts: float, requests: float) -> float | None:
    """Attempts over logical requests, of a tier or end to end; None without a request."""
    return attempts / requests if requests else None


def error_amplification(failed: float, requests: float, injected: float) -> float | None:
    """The clients' error rate over the injected one; None if nothing was injected or asked."""
    return failed / requests / injected if requests and injected else None


def churn(before: NDArray[Any], after: NDArray[Any], removed: Sequence[int]) -> dict[str, float] | None:
    """Keys that moved over keys, against the optimum: those of the removed nodes. `before`, `after`: the node of each key."""
    if not len(before):
        return None
    moved = float((before != after).mean())
    optimum = float(np.isin(before, np.asarray(removed)).mean())
    return {"moved": _rounded(moved), "optimum": _rounded(optimum), "excess": _rounded(moved - optimum)}


def efficiency(policy: float, central: float, at_random: float) -> float | None:
    """(T_policy − T_central) / (T_random − T_central): 0 is one queue for all (M/M/c), 1 is random; None if those are equal."""
    return (policy - central) / (at_random - central) if at_random != central else None


# ---- metastability ----


def feeds_itself(load_before: float, retries: float) -> bool:
    """The fluid bound: ρ₀(1+r) ≥ 1, if timed-out work still costs capacity; r: retries of a request that fails."""
    return load_before * (1 + retries) >= 1


def metastability(
    goodput: NDArray[Any], window_ns: int, start_ns: int, end_ns: int, offered: NDArray[Any] | None = None
) -> dict[str, float | bool | None]:
    """Goodput after a trigger has cleared against before, and how long until it has 95 % of it again, for a second.

    Args:
        goodput: answers `ok` in each window.
        window_ns: the length of a window.
        start_ns: when the trigger began.
        end_ns: when it cleared.
        offered: requests in each window; given, goodput counts as a share of it, so that a falling load is no collapse.
    """
    good = goodput.astype(np.float64)
    asked = np.ones(len(good)) if offered is None else offered.astype(np.float64)
    first, last = int(start_ns // window_ns), int(-(-end_ns // window_ns))
    if first == 0 or last >= len(good) or asked[:first].sum() == 0 or good[:first].sum() == 0:
        return {"goodput_after_over_before": None, "recovered_s": None, "stays_down": None}
    before = good[:first].sum() / asked[:first].sum()
    span = max(min(_S // window_ns, len(good) - last), 1)
    kernel = np.ones(span)
    part, total = np.convolve(good[last:], kernel, "valid"), np.convolve(asked[last:], kernel, "valid")
    rate = np.divide(part, total, out=np.zeros_like(part), where=total > 0)
    reached = np.flatnonzero(rate >= _RECOVERED * before)
    recovered = float(reached[0] * window_ns / _S) if len(reached) else None
    rest = asked[last:].sum()
    return {
        "goodput_after_over_before": _rounded(good[last:].sum() / rest / before) if rest else None,
        "recovered_s": None if recovered is None else _rounded(recovered),
        "stays_down": recovered is None,
    }


# ---- a run ----


@dataclass(frozen=True)
class Recorded:
    """What a run wrote down; None: it could not be known. `W` windows, `N` nodes."""

    window_ns: int
    requests: NDArray[Any]  # (W, N) sent to each node
    in_flight: NDArray[Any] | None = None  # (W, N) the mean in each window
    busy: NDArray[Any] | None = None  # (W, N) busy time
    failed: NDArray[Any] | None = None  # (W, N) requests that ended badly
    series_ns: int | None = None  # the length of a window of the next two; None: window_ns
    offered: NDArray[Any] | None = None  # (V,)
    goodput: NDArray[Any] | None = None  # (V,) answers ok
    weights: NDArray[np.float64] | None = None  # (N,)
    balancers: int = 1  # that send to a node
    units: int = 1  # each with balancers and nodes of its own
    events: NDArray[np.void] | None = None  # fleet.EVENT, those kept
    events_in_all: int = 0
    faults: tuple[FaultSpan, ...] = ()
    trigger_ns: tuple[int, int] | None = None  # what a metastable collapse would outlast
    end_ns: int = 0
    delay_ns: int | None = None  # of the feedback: reports, or none
    regret_sum: float | None = None
    picks: int = 0  # that regret_sum is over
    dead_picks: int | None = None  # of nodes that were down, and have no load to compare
    attempts: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # tier → attempts, logical requests
    errors: tuple[float, float, float] | None = None  # failed, requests, injected error rate
    times_s: tuple[float, float, float] | None = None  # mean time: measured, M/M/c, random
    fluid: tuple[float, float] | None = None  # load before the trigger over capacity, retries of a request that fails
    churn: Mapping[str, float] | None = None  # of the keys, as `churn` tells it


def describe(run: Recorded) -> dict[str, Any]:
    """The figures of `summary.json: balancer`, beside the policy and the spread of the whole run."""
    swing = herd(run.requests, run.window_ns, run.delay_ns)
    loads = {"requests": run.requests, "in_flight": run.in_flight, "busy": run.busy}
    return {
        "windows": {
            name: None if load is None else _in_windows(run, load, counts=name == "requests")
            for name, load in loads.items()
        },
        "herd": None
        if swing is None
        else {name: None if value is None else _rounded(value) for name, value in swing._asdict().items()},
        "staleness_regret": _rounded(run.regret_sum / run.picks) if run.regret_sum is not None and run.picks else None,
        "dead_picks": run.dead_picks,
        "faults": [_of_fault(run, fault) for fault in run.faults[:FAULTS_MOST]],
        "faults_in_all": len(run.faults),
        **_of_health(run),
        "amplification": {
            tier: None if (found := amplification(*pair)) is None else _rounded(found)
            for tier, pair in run.attempts.items()
        },
        "error_amplification": _or_none(error_amplification(*run.errors) if run.errors else None),
        "efficiency": _or_none(efficiency(*run.times_s) if run.times_s else None),
        "metastability": _of_trigger(run),
        "affinity_churn": dict(run.churn) if run.churn is not None else None,
    }


def _in_windows(run: Recorded, load: NDArray[Any], *, counts: bool) -> dict[str, Any]:
    """By the recorded window, by second where that is longer, and of the run."""
    told: dict[str, Any] = {_length(run.window_ns): spread_in_windows(load, run.weights, counts=counts)}
    if run.window_ns < _S:
        told["1s"] = spread_in_windows(merged(load, _S // run.window_ns), run.weights, counts=counts)
    return told | {"run": _plain(spread(load.sum(axis=0), run.weights), counts=counts)}


def _length(ns: int) -> str:
    return f"{ns // _S}s" if ns % _S == 0 else f"{ns // 1_000_000}ms"


def _of_trigger(run: Recorded) -> dict[str, Any] | None:
    if run.trigger_ns is None or run.goodput is None:
        return None
    start, end = run.trigger_ns
    return {
        "trigger_s": [_rounded(start / _S), _rounded(end / _S)],
        **metastability(run.goodput, run.series_ns or run.window_ns, start, end, run.offered),
        "feeds_itself": feeds_itself(*run.fluid) if run.fluid is not None else None,
    }


def _or_none(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _plain(found: Spread | None, *, counts: bool) -> dict[str, float | None] | None:
    if found is None:
        return None
    names = ("imbalance_max_over_mean", "p99_over_p50", "cv", "jain", *(("noise_floor", "excess") if counts else ()))
    return {name: _or_none(getattr(found, name)) for name in names}


def _fair(run: Recorded, node: int) -> float:
    if run.weights is None:
        return 1 / run.requests.shape[1]
    return float(run.weights[node] / run.weights.sum())


def _of_fault(run: Recorded, fault: FaultSpan) -> dict[str, Any]:
    fair = _fair(run, fault.node)
    whole = run.events is not None and run.events_in_all <= len(run.events)
    found = detection(run.events, fault, run.balancers) if run.events is not None and whole else None
    lost = None
    if found is not None and found["first_s"] is not None and run.failed is not None:
        lost = lost_before(run.failed, run.window_ns, fault, fault.start_ns + round(found["first_s"] * _S))
    return {
        "node": fault.node,
        "start_s": _rounded(fault.start_ns / _S),
        "end_s": _rounded(fault.end_ns / _S),
        "detection": found,
        "lost_before_ejection": lost,
        "readmission": return_to_share(run.requests, run.window_ns, fault.node, fault.end_ns, fair)
        if fault.end_ns < run.end_ns
        else None,
        "traffic_over_fair": sick_traffic(run.requests, run.window_ns, fault, fair),
    }


def _of_health(run: Recorded) -> dict[str, Any]:
    """False ejections and panic per balancer; None where no events were kept, or more happened than were kept."""
    if run.events is None or run.events_in_all > len(run.events):
        unknown = dict.fromkeys(("ejections", "readmissions", "false_ejection_s", "panic_s"))
        return unknown | {"health_events": run.events_in_all if run.events is not None else None}
    gone = absences(run.events, run.end_ns)
    return {
        "ejections": len(gone),
        "readmissions": int((run.events["what"] == Health.READMITTED).sum()),
        "false_ejection_s": _rounded(false_ejection_s(gone, run.faults) / run.balancers),
        "panic_s": _rounded(panic_s(run.events, run.end_ns) / (run.balancers * run.units)),
        "health_events": run.events_in_all,
    }
