"""What keeps a run over HTTP from doing harm: hard caps that no scenario can lift, and a trip that stops the load on errors.

Whoever loads somebody's gateway by a slip of the keyboard should be stopped by the tool. The caps are far above what one machine
sends usefully and far below what a mistyped number asks for.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from simulator.errors import ScenarioError
from simulator.scenario.base import Model, between, is_mapping
from simulator.scenario.units import NS_PER_S, DurationNs, ShareText

MOST_RATE_PER_S = 500_000  # at the peak, all targets and generators together
MOST_CONNECTIONS = 65_536  # about as many as one address has ports to one target
MOST_REQUESTS = 5_000_000_000  # retries included: a day at 50,000/s, and some


def _connections(number: int) -> int:
    if number > MOST_CONNECTIONS:
        raise ValueError(
            f"{number:,} connections are asked for; a run over HTTP opens at most {MOST_CONNECTIONS:,} (a hard cap): write "
            f"{MOST_CONNECTIONS} or less"
        )
    return number


Connections = Annotated[int, Field(ge=1), AfterValidator(_connections)]


def _some(share: float) -> float:
    if not share:
        raise ValueError("'0%' would stop every run; write for example 50%, or trip: off")
    return share


class Trip(Model):
    """Stops the load when too much of it fails: a broken target is not to be hammered, nor a broken run to be waited for."""

    errors: Annotated[ShareText, AfterValidator(_some)] = Field(
        default=0.5, description="The share of answers that may be errors: failed, in doubt, or nobody was there."
    )
    over: Annotated[DurationNs, between(NS_PER_S, 3_600 * NS_PER_S)] = Field(
        default=5 * NS_PER_S, description="The time over which they are counted."
    )
    least: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        default=100, description="Fewer answers than this in that time are no reason to stop."
    )


TripOrOff = Annotated[
    Annotated[Literal["off"], Tag("trip name")] | Annotated[Trip, Tag("Trip")],
    Discriminator(lambda value: "Trip" if is_mapping(value) else "trip name"),
]


def refuse_beyond_caps(peak_per_s: float, transactions: float) -> None:
    """Raises ScenarioError if a run over HTTP would send faster, or more, than any may.

    Args:
        peak_per_s: its highest rate.
        transactions: how many are expected; what is tried again counts while the run goes on.
    """
    if peak_per_s > MOST_RATE_PER_S:
        raise ScenarioError(
            f"load.rate: {peak_per_s:,.0f}/s are asked for at the peak; a run over HTTP sends at most {MOST_RATE_PER_S:,}/s "
            "(a hard cap): write a lower rate, or a smaller scale of the curve"
        )
    if transactions > MOST_REQUESTS:
        raise ScenarioError(
            f"load.rate: about {transactions:,.0f} requests are asked for; a run over HTTP sends at most {MOST_REQUESTS:,} "
            "(a hard cap): write a lower rate or a shorter duration"
        )
