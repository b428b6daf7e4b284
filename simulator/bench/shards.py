"""`sim bench shards`: the ceilings of the embedded platform on this machine, beside naive baselines of the same run."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import __version__
from simulator.bench import redis_streams
from simulator.bench.interruption import Interruption
from simulator.bench.light_load import LightLoad, light_load, to_ms
from simulator.bench.naive import Baseline, measure_naive
from simulator.bench.premade import AS_THEY_COME, TRANSFERS, ZIPF, Premade, premake
from simulator.bench.rig import INTERVAL_NS, OPENING_MINOR, BooksError, Rig, Workplace, disk_cap_bytes
from simulator.bench.saturation import saturate
from simulator.errors import BackendError
from simulator.report.export import environment
from simulator.shard.layout import Durability, Shape
from simulator.warm import warm

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = 1
NAIVE = "naive"
REDIS = "redis streams"
DURABILITIES = (Durability.MEMORY, Durability.OS, Durability.INTERVAL, Durability.GROUP)
LIGHT = (Durability.MEMORY, Durability.GROUP)
_IDS = 1 << 21  # remembered by all shards together
_CURVE_SHARE = 0.2  # a cell of the curve measures this much of the seconds of a cell of the table


@dataclass(frozen=True)
class Settings:
    """How much is measured, and on what."""

    seconds: float = 2.0  # measured in each cell
    warm_up_s: float = 0.7
    baseline_s: float = 2.0
    light_s: float = 2.0
    rounds: int = 1
    curve: bool = False
    nodes: int = 2
    shards: int = 16
    customers: int = 10_000_000
    merchants: int = 100_000
    transactions: int = 1 << 21  # made before the clock runs, and sent over and over
    curve_shards: tuple[int, ...] = (1, 4, 16, 64)
    curve_customers: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)

    def shape(self) -> Shape:
        """The platform of the table."""
        return Shape(self.nodes, self.shards, self.customers, self.merchants, OPENING_MINOR, _IDS // self.shards)

    def curve_shape(self, shards: int, customers: int) -> Shape:
        """The platform of one point of the curve: one node, one merchant to a hundred customers, as many ids in all."""
        return Shape(1, shards, customers, max(customers // 100, shards), OPENING_MINOR, _IDS // shards)

    def steps(self) -> int:
        """How many measurements this is."""
        redis = 0 if redis_streams.why_not() else 1
        each_round = len(TRANSFERS) * (len(DURABILITIES) + 1) + redis
        curve = len(self.curve_shards) * len(self.curve_customers) if self.curve else 0
        return self.rounds * each_round + len(LIGHT) + curve


def settings(seconds: float | None = None, rounds: int = 1, *, quick: bool = False, curve: bool = False) -> Settings:
    """What the command line asks for; `quick` is a look, not a measurement."""
    if quick:
        return Settings(seconds or 0.4, 0.2, 0.5, 0.5, rounds, curve, transactions=1 << 19)
    return Settings(seconds or 2.0, rounds=rounds, curve=curve)


@dataclass(frozen=True)
class Cell:
    """One durability with one sort of transfers, over the measured seconds; `sent`, `ok` and `rejected` over the whole cell."""

    durability: str
    transfers: str
    transactions_per_s: float  # applied
    ns_per_transaction: float | None  # of the wall clock
    commit_ms_p50: float | None
    commit_ms_p99: float | None
    commit_records_mean: float | None  # journal records in one commit: one a transfer within a shard, else two
    journal_bytes_per_s: float
    measured_s: float
    feeder_cores: float  # what the process took that sends and counts; the nodes had the rest of the machine
    stopped_early: bool  # the journals reached the cap
    sent: int
    ok: int
    rejected: int
    rejected_by_reason: dict[str, int]
    ratio_naive: float | None = None  # to the naive baseline with the same transfers, in the same round
    rounds_per_s: tuple[float, ...] = ()  # transactions_per_s of each round; the rest is of the round with the median


@dataclass(frozen=True)
class Point:
    """What a transaction costs with so many shards and accounts; one node, durability memory, as they come."""

    shards: int
    accounts: int
    ns_per_transaction: float | None
    ratio_to_best: float | None = None


@dataclass
class Results:
    """All that was measured."""

    settings: Settings
    machine: dict[str, Any]
    disk_cap_bytes: int
    cells: list[Cell] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    light_load: list[LightLoad] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)

    def ratios(self) -> dict[str, dict[str, float]]:
        """Baseline → "durability, transfers" → how many times its transactions a second."""
        found: dict[str, dict[str, float]] = {}
        for baseline in self.baselines:
            for cell in self.cells:
                if cell.transfers != baseline.transfers or not baseline.transactions_per_s:
                    continue
                ratio = cell.transactions_per_s / baseline.transactions_per_s
                if baseline.name == NAIVE and cell.ratio_naive is not None:
                    ratio = cell.ratio_naive
                found.setdefault(baseline.name, {})[f"{cell.durability}, {cell.transfers}"] = round(ratio, 3)
        return found

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        asked = self.settings
        return {
            "schema": SCHEMA,
            "version": __version__,
            "machine": self.machine,
            "settings": {
                **asdict(asked),
                "zipf": ZIPF,
                "interval_ms": INTERVAL_NS / 1e6,
                "disk_cap_bytes": self.disk_cap_bytes,
            },
            "cells": [asdict(cell) for cell in self.cells],
            "baselines": [asdict(baseline) for baseline in self.baselines],
            "ratios": self.ratios(),
            "light_load": [asdict(light) for light in self.light_load],
            "curve": [asdict(point) for point in self.curve],
        }


def measure(asked: Settings, step: Callable[[str], None], folder: Path | None = None) -> Results:
    """Measures everything; journals go to a temporary folder below `folder` (the current one by default).

    Args:
        asked: how much.
        step: is told what comes next.
        folder: on the disk that is to be measured.

    Raises:
        UsageError: the folder cannot be written to, or its disk is nearly full.
        BackendError: a platform or a baseline stopped.
        BooksError: something was lost.
        KeyboardInterrupt: on Ctrl-C and SIGTERM. Nothing is left behind then either.
    """
    warm(step)
    with Interruption() as interruption, Workplace(folder or Path.cwd()) as place:
        bench = _Bench(asked, place, interruption, step)
        return bench.all()


class _Bench:
    """The steps of one measurement."""

    def __init__(self, asked: Settings, place: Path, interruption: Interruption, step: Callable[[str], None]) -> None:
        self._asked = asked
        self._place = place
        self._interruption = interruption
        self._step = step
        self._disk = disk_cap_bytes(place)
        machine = environment(place)
        machine["cpus_of_the_machine"] = os.cpu_count()
        self._results = Results(asked, machine, self._disk)

    def all(self) -> Results:
        """Every step in order."""
        asked, results = self._asked, self._results
        shape = asked.shape()
        premade = {transfers: premake(shape, transfers, asked.transactions) for transfers in TRANSFERS}
        baselines: list[list[Baseline]] = []
        cells: list[list[Cell]] = []
        for _ in range(asked.rounds):
            baselines.append(self._baselines(shape, premade))
            cells.append(self._cells(shape, premade, baselines[-1]))
        results.baselines = [_median_baseline(list(each)) for each in zip(*baselines, strict=True)]
        results.cells = [_median_cell(list(each)) for each in zip(*cells, strict=True)]
        results.light_load = [self._light(shape, premade[AS_THEY_COME], durability) for durability in LIGHT]
        if asked.curve:
            premade.clear()
            results.curve = self._curve()
        return results

    def _next(self, what: str) -> None:
        self._interruption.check()
        self._step(what)

    def _baselines(self, shape: Shape, premade: dict[str, Premade]) -> list[Baseline]:
        found = []
        for transfers in TRANSFERS:
            self._next(f"naive baseline, {transfers}")
            found.append(measure_naive(premade[transfers], shape, self._interruption, seconds=self._asked.baseline_s))
        if reason := redis_streams.why_not():
            found.append(Baseline(REDIS, AS_THEY_COME, None, reason))
        else:
            self._next(f"redis streams baseline, {AS_THEY_COME}")
            found.append(
                redis_streams.measure_redis_streams(
                    premade[AS_THEY_COME], shape, self._interruption, seconds=self._asked.baseline_s
                )
            )
        return found

    def _cells(self, shape: Shape, premade: dict[str, Premade], baselines: list[Baseline]) -> list[Cell]:
        naive = {each.transfers: each.transactions_per_s for each in baselines if each.name == NAIVE}
        cells = []
        for durability in DURABILITIES:
            for transfers in TRANSFERS:
                self._next(f"{durability.name.lower()}, {transfers}")
                cell = self._cell(shape, durability, premade[transfers], self._asked.seconds)
                base = naive.get(transfers)
                cells.append(replace(cell, ratio_naive=cell.transactions_per_s / base if base else None))
        return cells

    def _cell(self, shape: Shape, durability: Durability, premade: Premade, seconds: float) -> Cell:
        name = f"{durability.name.lower()}, {premade.transfers}"
        batches = premade.by_node(shape)
        try:
            with Rig(shape, durability, self._place) as rig:
                load = saturate(
                    rig, batches, self._interruption,
                    warm_up_s=self._asked.warm_up_s, seconds=seconds, disk_bytes=self._disk,
                )  # fmt: skip
        except (BackendError, BooksError) as error:
            raise type(error)(f"{name}: {error}") from error
        gauge = load.gauge
        return Cell(
            durability=durability.name.lower(),
            transfers=premade.transfers,
            transactions_per_s=load.ok / load.measured_s,
            ns_per_transaction=load.measured_s * 1e9 / load.ok if load.ok else None,
            commit_ms_p50=to_ms(gauge.commits.percentile_ns(50)),
            commit_ms_p99=to_ms(gauge.commits.percentile_ns(99)),
            commit_records_mean=gauge.records / gauge.frames if gauge.frames else None,
            journal_bytes_per_s=gauge.bytes / load.measured_s,
            measured_s=load.measured_s,
            feeder_cores=load.feeder_cores,
            stopped_early=load.stopped_early,
            sent=load.sent_in_all,
            ok=load.ok_in_all,
            rejected=load.rejected_in_all,
            rejected_by_reason=load.rejected_by_reason,
        )

    def _light(self, shape: Shape, premade: Premade, durability: Durability) -> LightLoad:
        self._next(f"light load, {durability.name.lower()}")
        with Rig(shape, durability, self._place) as rig:
            return light_load(
                rig, premade, self._interruption,
                warm_up_s=min(0.3, self._asked.warm_up_s), seconds=self._asked.light_s,
            )  # fmt: skip

    def _curve(self) -> list[Point]:
        asked = self._asked
        points = []
        for customers in asked.curve_customers:
            for shards in asked.curve_shards:
                self._next(f"curve, {shards} shards, {customers:,} accounts")
                shape = asked.curve_shape(shards, customers)
                premade = premake(shape, AS_THEY_COME, min(asked.transactions, 1 << 20))
                cell = self._cell(shape, Durability.MEMORY, premade, asked.seconds * _CURVE_SHARE)
                points.append(Point(shards, customers, cell.ns_per_transaction))
        best = min((point.ns_per_transaction for point in points if point.ns_per_transaction), default=None)
        return [
            replace(point, ratio_to_best=point.ns_per_transaction / best)
            if best and point.ns_per_transaction
            else point
            for point in points
        ]


def _median_cell(rounds: list[Cell]) -> Cell:
    """The cell of the round with the (lower) median rate; its ratio is the median of the rounds' ratios."""
    middle = (len(rounds) - 1) // 2
    rates = tuple(cell.transactions_per_s for cell in rounds)
    ratios = sorted(cell.ratio_naive for cell in rounds if cell.ratio_naive is not None)
    cell = sorted(rounds, key=lambda each: each.transactions_per_s)[middle]
    return replace(cell, rounds_per_s=rates, ratio_naive=ratios[(len(ratios) - 1) // 2] if ratios else None)


def _median_baseline(rounds: list[Baseline]) -> Baseline:
    return sorted(rounds, key=lambda each: each.transactions_per_s or 0.0)[(len(rounds) - 1) // 2]
