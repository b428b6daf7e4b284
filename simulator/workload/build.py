"""A scenario's workload and source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.arrivals.build import build_arrivals
from simulator.workload.generator import Parties, Workload
from simulator.workload.life_cycle import Mix
from simulator.workload.source import Source
from simulator.workload.ticket import Ticket

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario


def build_workload(scenario: Scenario, *, payees: bool = True) -> Workload:
    """Who pays whom how much in this scenario; see `Workload` for `payees`."""
    load = scenario.load
    return Workload(
        Parties(load.accounts, load.merchants.count, load.merchants.zipf),
        Ticket(load.ticket.mean, load.ticket.sigma if load.ticket.distribution == "lognormal" else 0.0),
        Mix(
            payment=load.mix.payment,
            refund=load.mix.refund,
            authorize=load.mix.authorize,
            after_ns=load.follow_up.after,
            void_share=load.follow_up.void_share,
        ),
        scenario.seed,
        payees=payees,
    )


def build_source(scenario: Scenario, *, payees: bool = True) -> Source:
    """The transactions of one run of this scenario, in order.

    Raises:
        ScenarioError: if the rate is a trace that cannot be read.
    """
    return Source(build_arrivals(scenario), build_workload(scenario, payees=payees))
