"""The ceiling of a hot merchant, whole against split, beside an even load: saturated throughput in the same rounds.

    python benchmarks/bench_hot_merchant.py [--rounds 5] [--seconds 2] [--nodes 2] [--split 16] [--zipf 2.0] [--durability group]

Run it on a quiet machine with more cores than nodes; on fewer the feeder and the nodes share them, and the lift is what is
left of it. Each round measures every cell once, so what disturbs one cell disturbs its neighbours as well; shown are medians
over the rounds and ratios taken within them. "One merchant" is the extreme: every payment goes to the same account, so all
credits are booked in one shard, by one node, and no number of nodes can lift that. `top shard` is the busiest shard's log
over the mean of all; `refused` is what found no room on its way to it (a refusal is quick, and not counted in the rate).
Splitting happens at the platform's door, before the clock runs here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.bench.interruption import Interruption
from simulator.bench.premade import MEAN_MINOR, SIGMA, Premade
from simulator.bench.rig import OPENING_MINOR, Rig, Workplace, disk_cap_bytes
from simulator.bench.saturation import saturate
from simulator.shard.layout import Durability, Shape
from simulator.shard.split import to_booked
from simulator.transaction import TRANSACTION
from simulator.warm import warm
from simulator.workload.generator import Parties, Workload
from simulator.workload.life_cycle import Mix
from simulator.workload.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

CUSTOMERS, MERCHANTS = 1_000_000, 10_000
PAYMENTS = 1 << 20
IDS = 1 << 21  # remembered by all shards together
WARM_UP_S = 0.5
SEED = 20191111


@dataclass(frozen=True)
class Cell:
    """One load on one layout."""

    name: str
    zipf: float | None  # None: all to the most popular merchant
    split: int


class Found(NamedTuple):
    """What one measurement of a cell came to."""

    rate: float
    top_shard: float
    refused: float

    def __str__(self) -> str:
        return f"{self.rate:>12,.0f}/s   top shard {self.top_shard:>4.1f}x mean   refused {self.refused:.1%}"


def cells(split: int, zipf: float) -> list[Cell]:
    """What is measured, the baselines first."""
    return [
        Cell("even, no hot merchant", 0.0, 1),
        Cell("one merchant, whole", None, 1),
        Cell(f"one merchant, split {split}", None, split),
        Cell(f"zipf {zipf:g}, whole", zipf, 1),
        Cell(f"zipf {zipf:g}, split {split}", zipf, split),
    ]


def shape_of(cell: Cell, nodes: int, shards: int) -> Shape:
    """The platform of a cell; the three most popular merchants are split, as in scenarios/hot-merchant.yaml."""
    return Shape(
        nodes, shards, CUSTOMERS, MERCHANTS, OPENING_MINOR, IDS // shards, hot_accounts=3, hot_split=cell.split
    )


def booked(cell: Cell, shape: Shape) -> Premade:
    """The payments of a cell as they are behind the platform's door."""
    made = np.zeros(PAYMENTS, TRANSACTION)
    made["id"] = np.arange(1, PAYMENTS + 1)
    parties = Parties(CUSTOMERS, MERCHANTS, cell.zipf or 0.0)
    Workload(parties, Ticket(MEAN_MINOR, SIGMA), Mix(payment=1.0), SEED).fill(made)
    if cell.zipf is None:
        made["payee"] = CUSTOMERS
    behind = np.zeros(PAYMENTS, TRANSACTION)
    to_booked(made, behind, shape.split)
    return Premade(cell.name, behind)


def measure(
    cell: Cell, shape: Shape, durability: Durability, place: Path, interruption: Interruption, seconds: float
) -> Found:
    """(transactions applied a second, the busiest shard's records over the mean, the part that was refused)."""
    batches = booked(cell, shape).by_node(shape)
    with Rig(shape, durability, place) as rig:
        load = saturate(
            rig, batches, interruption, warm_up_s=WARM_UP_S, seconds=seconds, disk_bytes=disk_cap_bytes(place)
        )
        applied = rig.pool.board.applied
        return Found(
            load.ok / load.measured_s, float(applied.max() / applied.mean()), load.rejected_in_all / load.sent_in_all
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--split", type=int, default=16)
    parser.add_argument("--zipf", type=float, default=2.0)
    parser.add_argument("--durability", choices=[d.name.lower() for d in Durability], default="group")
    asked = parser.parse_args(arguments)
    warm(print)
    every = cells(asked.split, asked.zipf)
    found: dict[str, list[Found]] = {cell.name: [] for cell in every}
    with Interruption() as interruption, Workplace(Path.cwd()) as place:
        for number in range(1, asked.rounds + 1):
            for cell in every:
                shape = shape_of(cell, asked.nodes, asked.shards)
                durability = Durability[asked.durability.upper()]
                one_found = measure(cell, shape, durability, place, interruption, asked.seconds)
                found[cell.name].append(one_found)
                print(f"round {number}: {cell.name:<24} {one_found}", flush=True)
    even, one, one_split, zipf, zipf_split = (np.array([each.rate for each in found[cell.name]]) for cell in every)
    print(f"\nmedians of {asked.rounds}, {asked.nodes} nodes, {asked.shards} shards, durability {asked.durability}")
    for cell in every:
        middle = Found(*(median(column) for column in zip(*found[cell.name], strict=True)))
        print(f"  {cell.name:<24} {middle}")
    print(f"one merchant, whole, over even:    {np.median(one / even):.2f}x   (what a hot shard costs)")
    print(f"one merchant, split over whole:    {np.median(one_split / one):.2f}x")
    print(f"zipf {asked.zipf:g}, split over whole:        {np.median(zipf_split / zipf):.2f}x")


if __name__ == "__main__":
    main()
