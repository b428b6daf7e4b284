"""Pick rules that draw at random or look at all nodes; each works with any load metric.

Every draw comes from one word of the balancer's random stream, by the index of the pick, so that a pick depends on nothing
that was drawn before.

* random, round robin: the baselines. Both pass over weights, as Envoy's do without a scheduler.
* draws with replacement: Envoy's `LEAST_REQUEST` with equal weights, `choice_count` 2; gRPC's `least_request_experimental`
  (A48) is the same, choices within 2 … 10. The first of equals is taken. A node is its own rival with probability 1/N.
* distinct: Finagle's `P2CPick`: two different nodes of *all*, the healthier first, then the less loaded; up to 5 tries
  (`Balancer.maxEffort`) while what was picked is not available. Here the last try is among the available ones alone, as
  after Finagle's rebuild. The theory of both: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
  TPDS 2001.
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
    from numpy.typing import NDArray

    from simulator.balancer.fleet import Settings

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
def plain(settings: Settings, slow_until_ns: NDArray[np.int64], b: int, now_ns: int) -> bool:
    """Whether the load of a node is its requests in flight and nothing else."""
    return settings.load == _IN_FLIGHT and settings.weighted == 0 and now_ns >= slow_until_ns[b]


@inlined
def two_plain(in_flight: NDArray[np.int64], ready: NDArray[np.int32], b: int, word: np.uint64, places: int) -> int:
    """The less busy of two of the first `places` of `ready`, with replacement, the first of equals: the hot path of `draws`."""
    one = int64(ready[b, below(word, places)])
    other = int64(ready[b, below(word << _HALF, places)])
    return other if in_flight[b, other] < in_flight[b, one] else one


@inlined
def distinct_plain(in_flight: NDArray[np.int64], ready: NDArray[np.int32], b: int, word: np.uint64, places: int) -> int:
    """The same of two different ones of `places` ≥ 2, all available: the hot path of `distinct`."""
    first = below(word, places)
    second = below(word << _HALF, places - 1)
    second += int64(second >= first)
    one = int64(ready[b, first])
    other = int64(ready[b, second])
    return other if in_flight[b, other] < in_flight[b, one] else one


@inlined
def least_busy(in_flight: NDArray[np.int64], b: int, word: np.uint64) -> int:
    """The node with the fewest requests in flight of all, one of the equals at random: the hot path of `scan`.

    Two simple loops over one row, which the compiler turns into vector code, and a search that ends at the one it wants.
    """
    nodes = in_flight.shape[1]
    least = in_flight[b, 0]
    for at in range(nodes):
        least = min(least, in_flight[b, at])
    equals = 0
    for at in range(nodes):
        equals += int64(in_flight[b, at] == least)
    left = below(word, equals)
    node = 0
    while in_flight[b, node] != least or left > 0:
        left -= int64(in_flight[b, node] == least)
        node += 1
    return node


@kernel
def draws(
    settings: Settings, in_flight: NDArray[np.int64], views: NDArray[np.void], slow_until_ns: NDArray[np.int64],
    ready: NDArray[np.int32], b: int, now_ns: int, word: np.uint64, places: int,
) -> int:  # fmt: skip
    """The least loaded of `choices` nodes drawn with replacement; the first of equals."""
    best = int64(ready[b, below(word, places)])
    least = load_of(settings, in_flight, views, slow_until_ns, b, best, now_ns)
    for j in range(1, settings.choices):
        node = int64(ready[b, below(further(word, j) if j > 1 else word << _HALF, places)])
        found = load_of(settings, in_flight, views, slow_until_ns, b, node, now_ns)
        if found < least:
            best = node
            least = found
    return best


@kernel
def distinct(
    settings: Settings, in_flight: NDArray[np.int64], views: NDArray[np.void], slow_until_ns: NDArray[np.int64],
    ready: NDArray[np.int32], b: int, now_ns: int, word: np.uint64, places: int, span: int,
) -> int:  # fmt: skip
    """Finagle's pick among the first `places` of `ready`, of which those below `span` are available."""
    drawn = word
    for t in range(1, _TRIES + 2):
        if t > _TRIES:
            places = span
        if places == 1:
            break
        first = below(drawn, places)
        second = below(drawn << _HALF, places - 1)
        second += int64(second >= first)
        if (first < span) != (second < span):
            return int64(ready[b, first if first < span else second])
        if first < span:
            one = int64(ready[b, first])
            other = int64(ready[b, second])
            mine = load_of(settings, in_flight, views, slow_until_ns, b, one, now_ns)
            return one if mine <= load_of(settings, in_flight, views, slow_until_ns, b, other, now_ns) else other
        drawn = further(word, t)
    return int64(ready[b, 0])


@kernel
def scan(
    settings: Settings, in_flight: NDArray[np.int64], views: NDArray[np.void], slow_until_ns: NDArray[np.int64],
    ready: NDArray[np.int32], b: int, now_ns: int, word: np.uint64, places: int,
) -> int:  # fmt: skip
    """The least loaded of all available; one of the equals at random."""
    best = int64(ready[b, 0])
    least = load_of(settings, in_flight, views, slow_until_ns, b, best, now_ns)
    equals = 1
    for at in range(1, places):
        node = int64(ready[b, at])
        found = load_of(settings, in_flight, views, slow_until_ns, b, node, now_ns)
        if found < least:
            best = node
            least = found
            equals = 1
        elif found == least:
            equals += 1  # reservoir: the k-th of the equals replaces the one held with probability 1/k
            if below(further(word, at), equals) == 0:
                best = node
    return best
