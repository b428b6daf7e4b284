"""Pick rules that draw at random or look at all nodes; each works with any load metric.

Every draw comes from one word of the balancer's random stream, by the index of the pick, so that a pick depends on nothing that
was drawn before.

* random, round robin: the baselines. Both pass over weights, as Envoy's do without a scheduler.
* draws with replacement: Envoy's `LEAST_REQUEST` with equal weights, `choice_count` 2; gRPC's `least_request_experimental` (A48)
  is the same, choices within 2 … 10. The first of equals is taken. A node is its own rival with probability 1/N.
* distinct: Finagle's `P2CPick`: two different nodes of *all*, the healthier first, then the less loaded; up to 5 tries
  (`Balancer.maxEffort`) while what was picked is not available. Here the last try is among the available ones alone, as after
  Finagle's rebuild. The theory of both: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001.
* scan: join the shortest queue, over all nodes; equals share alike. Envoy's `selection_method: FULL_SCAN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulator.balancer.fleet import Load
from simulator.balancer.load import load_of
from simulator.kernel import inlined, int64, kernel
from simulator.seeds import mix

if TYPE_CHECKING:
    from simulator.balancer.fleet import Fleet, Settings

_IN_FLIGHT = int(Load.IN_FLIGHT)
_TRIES = 5
_HALF = np.uint64(32)
_STEP = np.uint64(0xD1B54A32D192ED03)  # odd; apart from the increment of the seed tree


@inlined
def below(word: np.uint64, n: int) -> int:
    """An index in [0, n) from the high half of a random word: word·n / 2³², biased by less than n / 2³²."""
    return int64(((word >> _HALF) * np.uint64(n)) >> _HALF)


@inlined
def further(word: np.uint64, j: int) -> np.uint64:
    """Another random word from the same pick's: the number j ≥ 1."""
    return mix(word + np.uint64(j) * _STEP)


@inlined
def plain(settings: Settings, fleet: Fleet, b: int, now_ns: int) -> bool:
    """Whether the load of a node is its requests in flight and nothing else."""
    return settings.load == _IN_FLIGHT and settings.weighted == 0 and now_ns >= fleet.slow_until_ns[b]


@inlined
def two_plain(fleet: Fleet, b: int, word: np.uint64) -> int:
    """The less busy of two nodes drawn with replacement, the first of equals: the hot path of `draws`."""
    span = fleet.span[b]
    one = int64(fleet.ready[b, below(word, span)])
    other = int64(fleet.ready[b, below(word << _HALF, span)])
    return other if fleet.in_flight[b, other] < fleet.in_flight[b, one] else one


@inlined
def distinct_plain(fleet: Fleet, b: int, word: np.uint64, places: int) -> int:
    """The less busy of two different nodes among the first `places` ≥ 2 of `ready`, all available: the hot path of `distinct`."""
    first = below(word, places)
    second = below(word << _HALF, places - 1)
    second += int64(second >= first)
    one = int64(fleet.ready[b, first])
    other = int64(fleet.ready[b, second])
    return other if fleet.in_flight[b, other] < fleet.in_flight[b, one] else one


@kernel
def draws(settings: Settings, fleet: Fleet, b: int, now_ns: int, word: np.uint64) -> int:
    """The least loaded of `choices` nodes drawn with replacement; the first of equals."""
    span = fleet.span[b]
    best = int64(fleet.ready[b, below(word, span)])
    least = load_of(settings, fleet, b, best, now_ns)
    for j in range(1, settings.choices):
        node = int64(fleet.ready[b, below(further(word, j) if j > 1 else word << _HALF, span)])
        found = load_of(settings, fleet, b, node, now_ns)
        if found < least:
            best = node
            least = found
    return best


@kernel
def distinct(settings: Settings, fleet: Fleet, b: int, now_ns: int, word: np.uint64) -> int:
    """Finagle's pick, within the aperture where there is one."""
    span = fleet.span[b]
    places = fleet.ready.shape[1]
    tries = _TRIES
    if settings.aperture_ns > 0.0:
        places = min(fleet.width[b], span)
        tries = 0
    node = -1
    for t in range(tries + 1):
        drawn = further(word, t) if t > 0 else word
        if t == _TRIES:
            places = span
        if places == 1:
            return int64(fleet.ready[b, 0])
        first = below(drawn, places)
        second = below(drawn << _HALF, places - 1)
        second += int64(second >= first)
        if (first < span) != (second < span):
            return int64(fleet.ready[b, first if first < span else second])
        if first < span:
            one = int64(fleet.ready[b, first])
            node = int64(fleet.ready[b, second])
            if load_of(settings, fleet, b, one, now_ns) <= load_of(settings, fleet, b, node, now_ns):
                node = one
            return node
    return node


@inlined
def least_busy(fleet: Fleet, b: int, word: np.uint64) -> int:
    """The node with the fewest requests in flight of all, one of the equals at random: the hot path of `scan`.

    Two simple loops over one row, which the compiler turns into vector code, and a search that ends at the one it wants.
    """
    nodes = fleet.in_flight.shape[1]
    least = fleet.in_flight[b, 0]
    for at in range(nodes):
        least = min(least, fleet.in_flight[b, at])
    equals = 0
    for at in range(nodes):
        equals += int64(fleet.in_flight[b, at] == least)
    left = below(word, equals)
    node = 0
    while fleet.in_flight[b, node] != least or left > 0:
        left -= int64(fleet.in_flight[b, node] == least)
        node += 1
    return node


@kernel
def scan(settings: Settings, fleet: Fleet, b: int, now_ns: int, word: np.uint64) -> int:
    """The least loaded of all available; one of the equals at random."""
    best = int64(fleet.ready[b, 0])
    least = load_of(settings, fleet, b, best, now_ns)
    equals = 1
    for at in range(1, fleet.span[b]):
        node = int64(fleet.ready[b, at])
        found = load_of(settings, fleet, b, node, now_ns)
        if found < least:
            best = node
            least = found
            equals = 1
        elif found == least:
            equals += 1  # reservoir: the k-th of the equals replaces the one held with probability 1/k
            if below(further(word, at), equals) == 0:
                best = node
    return best
