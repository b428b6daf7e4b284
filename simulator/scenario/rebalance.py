"""Shards that move between nodes while a run goes on: at set times, or by load."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from simulator.scenario.base import LONGEST_NS, Model, NonNegativeNs, Problem, between, is_mapping
from simulator.scenario.units import NS_PER_S, DurationNs, format_duration, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_MOVES = 100  # each leaves an image of its shard on the disk until the run ends

_NODE_PATTERN = r"^node\[(0|[1-9][0-9]{0,3})\]$"


def _node(target: str) -> str:
    if re.fullmatch(_NODE_PATTERN, target) is None:
        raise ValueError(f"{quoted(target)} is not a node; write for example 'node[1]'")
    return target


class PlannedMove(Model):
    """A shard that is moved to another node at a set time."""

    at: NonNegativeNs = Field(
        description="When it is asked for, from the start; the one before is brought to its end first."
    )
    shard: Annotated[int, Field(ge=0, le=255)] = Field(description="Which shard.")
    to: Annotated[str, AfterValidator(_node), Field(json_schema_extra={"pattern": _NODE_PATTERN})] = Field(
        description="The node that is to own it, for example node[1]."
    )

    @property
    def node(self) -> int:
        """The node's number."""
        return int(self.to[len("node[") : -1])


class ByLoad(Model):
    """A shard is moved from the busiest node to the idlest when their loads differ too much."""

    every: Annotated[DurationNs, between(100_000_000, LONGEST_NS)] = Field(
        default=5 * NS_PER_S, description="The window over which load (records booked) is counted, and looked at."
    )
    imbalance: Annotated[float, Field(ge=1.01, le=16)] = Field(
        default=1.25, description="The busiest node's load over the mean; above this a shard is moved."
    )
    moves: Annotated[int, Field(ge=1, le=MOST_MOVES)] = Field(default=4, description="How many moves at most.")


class AutoRebalance(Model):
    """By load, with figures of its own."""

    auto: ByLoad = Field(description="When to move a shard, and how often.")


Moves = Annotated[tuple[PlannedMove, ...], Field(strict=False, min_length=1, max_length=MOST_MOVES)]

Rebalance = Annotated[
    Annotated[Moves, Tag("moves")]
    | Annotated[AutoRebalance, Tag("AutoRebalance")]
    | Annotated[Literal["auto"], Tag("rebalance name")],
    Discriminator(
        lambda value: "AutoRebalance" if is_mapping(value) else "rebalance name" if isinstance(value, str) else "moves"
    ),
]


def by_load(rebalance: Moves | AutoRebalance | Literal["auto"]) -> ByLoad | None:
    """The figures of a rebalancing by load; None: at set times."""
    if isinstance(rebalance, AutoRebalance):
        return rebalance.auto
    return ByLoad() if isinstance(rebalance, str) else None


def problems_with(
    rebalance: Moves | AutoRebalance | Literal["auto"], *, nodes: int, shards: int, protocol: str
) -> Iterable[Problem]:
    """What is wrong with moves on a platform of this size."""
    if nodes == 1:
        yield (), "there is only one node; write nodes: 2 or more, or leave rebalance out"
        return
    if protocol != "outbox":
        yield (), f"shards cannot move with protocol: {protocol}; write protocol: outbox, or leave rebalance out"
    if by_load(rebalance) is not None:
        return
    owners = [shard % nodes for shard in range(shards)]
    assert isinstance(rebalance, tuple)  # noqa: S101  the only form that is left
    for index, move in sorted(enumerate(rebalance), key=lambda pair: pair[1].at):
        if move.shard >= shards:
            yield (index, "shard"), f"there is no shard {move.shard}; the last of {shards} is {shards - 1}"
        elif move.node >= nodes:
            yield (index, "to"), f"there is no {move.to}; the last of {nodes} is node[{nodes - 1}]"
        elif owners[move.shard] == move.node:
            yield (
                (index, "to"),
                f"shard {move.shard} is on {move.to} then already; write another node, or leave the move out",
            )
        else:
            owners[move.shard] = move.node


def problems_in(rebalance: Moves | AutoRebalance | Literal["auto"], duration_ns: int) -> Iterable[Problem]:
    """What is wrong with moves in a run of this length."""
    run = f"the run lasts {format_duration(duration_ns)}"
    figures = by_load(rebalance)
    if figures is not None:
        if figures.every >= duration_ns:
            yield ("auto", "every"), f"{format_duration(figures.every)} is past the end, {run}; write less"
        return
    assert isinstance(rebalance, tuple)  # noqa: S101  as above
    for index, move in enumerate(rebalance):
        if move.at >= duration_ns:
            yield (index, "at"), f"{format_duration(move.at)} is past the end, {run}; write less"


def describe_moves(rebalance: Moves | AutoRebalance | Literal["auto"]) -> list[str]:
    """Each move in words, in the order of time: `shard 3 to node 1 at 20s`."""
    figures = by_load(rebalance)
    if figures is not None:
        when = f"looked at every {format_duration(figures.every)}, at most {figures.moves} times"
        return [f"by load, when a node has over {figures.imbalance:g} times the mean; {when}"]
    assert isinstance(rebalance, tuple)  # noqa: S101  as above
    ordered = sorted(rebalance, key=lambda move: move.at)
    return [f"shard {move.shard} to node {move.node} at {format_duration(move.at)}" for move in ordered]
