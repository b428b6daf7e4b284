"""The one seed tree: every random number of a run is a pure function of (seed, stream, index).

A scenario has one seed. Each `Stream` gets a 64-bit key from it by `numpy.random.SeedSequence(seed,
spawn_key=(stream,))`, which is built so that different spawn keys give independent states. The value at index i of a
stream is

    mix(key + (i + 1) * GAMMA)

with SplitMix64's increment and finaliser: G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014. Being counter-based it needs no state: the i-th transaction is the same whatever the batch
sizes, the number of processes or the clock. The streams of one run walk one cycle of length 2^64 from random offsets;
that two of them, n values long, overlap has a probability below n / 2^63.

Every kernel that draws calls `bits`, `uniform` or `exponential` here; nothing else in the project makes random numbers
of its own.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulator.elementary import log
from simulator.kernel import inlined


class Stream(IntEnum):
    """The streams of a run. The numbers are part of every schedule: add, never renumber."""

    ARRIVALS = 1  # gaps between arrivals
    MMPP = 2  # how long bursts and calms last
    PAYER = 3
    PAYEE = 4
    TICKET = 5
    KIND = 6
    FOLLOW_UP = 7  # which payments may be refunded, which holds are voided
    BALANCER = 8
    FAULTS = 9  # which node is struck, and when within its interval
    NODE_SERVICE = 20  # virtual clock: what an attempt takes at its node
    SHARD_SERVICE = 21
    DEPENDENCY = 22  # what a call takes
    DEPENDS = 23  # whether a transaction needs the dependency
    BACKOFF = 24  # jitter of retries
    MAIL = 26  # virtual clock: which balancer an idle node tells, how a report is rounded
    WHICH_BALANCER = 25
    APERTURE = 30  # which nodes each balancer's aperture holds
    CURSOR = 32  # where each balancer's round robin begins
    REPORT = 31  # virtual clock: at which moment of its interval a node reports


_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: SplitMix64's increment
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser's constants: David Stafford's variant 13, as in SplitMix64
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ONE = np.uint64(1)
_S11, _S27, _S30, _S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)
_ULP = 2.0**-53


def stream_key(seed: int, stream: Stream) -> np.uint64:
    """The 64-bit key of one stream of a run.

    Args:
        seed: the scenario's, any integer ≥ 0.
        stream: which stream.

    Raises:
        ValueError: if `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"a seed is an integer ≥ 0, not {seed}")
    return np.uint64(np.random.SeedSequence(seed, spawn_key=(int(stream),)).generate_state(1, np.uint64)[0])


@inlined
def mix(x: np.uint64) -> np.uint64:
    """SplitMix64's finaliser: a bijection of 64 bits in which every input bit reaches every output bit."""
    x = np.uint64(x)
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@inlined
def bits(key: np.uint64, index: int | np.int64) -> np.uint64:
    """64 random bits: value `index` (≥ 0) of the stream with this key."""
    return mix(key + (np.uint64(index) + _ONE) * _GAMMA)


@inlined
def uniform(key: np.uint64, index: int | np.int64) -> float:
    """A uniform float64 in (0, 1), never 0 or 1: the odd multiples of 2^-53.

    The lowest of the 53 bits is always set. That keeps 0 out, keeps 1 out (k + ½ over 2^53 would round to it) and
    leaves the grid symmetric about ½, so that u and 1 - u have the same law.
    """
    return np.float64((bits(key, index) >> _S11) | _ONE) * _ULP


@inlined
def exponential(key: np.uint64, index: int | np.int64) -> float:
    """An exponential float64 of mean 1, by inversion: -log(u); at most 53 log 2 ≈ 36.7."""
    return -log(uniform(key, index))
