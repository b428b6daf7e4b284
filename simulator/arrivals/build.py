"""A scenario's rate and arrivals."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from simulator.arrivals.process import NS_PER_S, Mmpp, Poisson, Regular
from simulator.arrivals.rate import Rate
from simulator.arrivals.trace import TraceArrivals, scan
from simulator.scenario.load import CurveRate, StagedRate, TraceRate

if TYPE_CHECKING:
    from simulator.arrivals.process import Arrivals
    from simulator.scenario.model import Scenario


def build_rate(scenario: Scenario) -> Rate:
    """The rate of a scenario over its duration, starting at t = 0.

    A curve's count is its value over the mean ticket. A trace's rate is its mean rate between at most 1,001 of its
    rows: enough to plan by; what is replayed are the rows themselves.

    Raises:
        ScenarioError: if the rate is a trace that cannot be read.
    """
    form = scenario.load.rate
    match form:
        case float():
            rate = Rate.constant(form, _duration_s(scenario))
        case StagedRate():
            stages = [(stage.duration / NS_PER_S, stage.target) for stage in form.stages]
            rate = Rate.stages(form.start, stages, _duration_s(scenario))
        case CurveRate():
            times_ns, values = np.array(form.knots, np.float64).T
            start_ns, end_ns = form.window_ns
            window_s = (start_ns / NS_PER_S, end_ns / NS_PER_S)
            rate = Rate.from_knots(times_ns / NS_PER_S, values / scenario.load.ticket.mean, window_s, form.scale)
        case TraceRate():
            load = scenario.load
            rate = scan(form.trace, scenario.currency, load.accounts, load.merchants.count).rate(form.speed)
        case _:
            assert_never(form)
    if scenario.duration is not None and scenario.duration / NS_PER_S < rate.duration_s:
        rate = rate.window(0.0, scenario.duration / NS_PER_S)
    return rate


def build_arrivals(scenario: Scenario) -> Arrivals:
    """The intended times of one run of a scenario.

    Raises:
        ScenarioError: if the rate is a trace that cannot be read.
    """
    load = scenario.load
    if isinstance(load.rate, TraceRate):
        return TraceArrivals(
            load.rate.trace,
            speed=load.rate.speed,
            duration_ns=scenario.duration,
            customers=load.accounts,
            merchants=load.merchants.count,
            currency=scenario.currency,
        )
    rate = build_rate(scenario)
    if load.mmpp is not None:
        mmpp = load.mmpp
        return Mmpp(rate, scenario.seed, burst=mmpp.burst, share=mmpp.share, period_s=mmpp.period / NS_PER_S)
    return Regular(rate) if load.arrivals == "regular" else Poisson(rate, scenario.seed)


def _duration_s(scenario: Scenario) -> float:
    # The model has seen to it that a rate without a length of its own comes with a duration.
    if scenario.duration_ns is None:
        raise ValueError("this scenario has no duration")
    return scenario.duration_ns / NS_PER_S
