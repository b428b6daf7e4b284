"""What each stage of a modelled platform can take: servers over mean service time, the rate at which its queue never empties.

These are fluid bounds: they say nothing of scatter, of an uneven spread or of a hot shard, and so can only be too high. A
platform that is offered more than the least of them has a queue that grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.scenario.units import NS_PER_S

if TYPE_CHECKING:
    from simulator.scenario.fleet import Platform


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the platform.

    Attributes:
        name: `nodes`, `shards` or `dependency`.
        servers: how many transactions it serves at once; 0: as many as come.
        per_s: transactions a second that it can take at most, those included that do not need it; None: no limit, or one
            that only a file of service times tells.
        what: its servers and their mean service time in words.
    """

    name: str
    servers: int
    per_s: float | None
    what: str


def capacities(platform: Platform) -> tuple[Stage, ...]:
    """Every stage of a platform, in the order of the path."""
    return tuple(stage for stage in (_nodes(platform), _shards(platform), _dependency(platform)) if stage is not None)


def bottleneck(platform: Platform) -> Stage | None:
    """The stage that can take least; None: none has a known limit."""
    known = [(stage.per_s, stage) for stage in capacities(platform) if stage.per_s is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def _per_s(servers: float, mean_ns: float | None) -> float | None:
    return servers * NS_PER_S / mean_ns if mean_ns else None


def _time(ns: float) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.4g} {unit}"
    return f"{ns:.4g} ns"


def _nodes(platform: Platform) -> Stage:
    mean = platform.service.mean
    speed = sum(platform.weights) if platform.weights else float(platform.nodes)
    workers = f" of {platform.workers} workers" if platform.workers > 1 else ""
    took = f"a mean of {_time(mean)}" if mean else "times from a file" if platform.service.file else "no time"
    return Stage(
        "nodes", platform.nodes * platform.workers, _per_s(speed * platform.workers, mean),
        f"{platform.nodes:,} nodes{workers}, {platform.service.distribution}, {took}",
    )  # fmt: skip


def _shards(platform: Platform) -> Stage | None:
    shards = platform.shards
    if shards.commit is not None:
        commit = shards.commit
        # A commit of n takes base + n × per_record, so a shard's rate n / (base + n × per_record) only comes near its bound.
        limit = (
            f"in the limit of large commits, 1 / {_time(commit.per_record)} each" if commit.per_record else "no limit"
        )
        what = f"{shards.count:,} shards, commits of {_time(commit.base)} + {_time(commit.per_record)} a transaction: {limit}"
        return Stage("shards", shards.count, _per_s(shards.count, commit.per_record), what)
    if shards.service is None:
        return None
    mean = shards.service.mean
    took = f"a mean of {_time(mean)}" if mean else "times from a file" if shards.service.file else "no time"
    what = f"{shards.count:,} shards, {shards.service.distribution}, {took}"
    return Stage("shards", shards.count, _per_s(shards.count, mean), what)


def _dependency(platform: Platform) -> Stage | None:
    dependency = platform.dependency
    if dependency is None:
        return None
    mean = dependency.latency.mean
    share = f"needed by {100 * dependency.share:g} %" if dependency.share < 1 else "needed by all"
    if dependency.kinds:
        share += f" of {', '.join(dependency.kinds)}"
    limit = f"{dependency.limit:,} calls at once" if dependency.limit else "as many calls as come"
    # Kinds leave out a part that only the run can tell: then the bound is too low for all of them, and none is given.
    per_s = _per_s(dependency.limit, mean) if dependency.limit and dependency.share and not dependency.kinds else None
    took = f", a mean of {_time(mean)}" if mean else ""
    return Stage(
        "dependency",
        dependency.limit,
        per_s / dependency.share if per_s is not None else None,
        f"{limit}, {share}{took}",
    )
