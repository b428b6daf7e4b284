"""The logarithm and the exponential that schedules are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.elementary import exp, log
from simulator.kernel import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNITS = st.floats(2.0**-53, 1.0, exclude_max=True)


def _ulps(found: float, expected: float) -> float:
    return abs(found - expected) / math.ulp(expected)


@given(st.floats(2.0**-1022, 2.0**1023))
def test_the_logarithm_is_within_two_units_in_the_last_place_of_the_librarys(x: float) -> None:
    # Each of the two is within one of the truth.
    assert log(x) == math.log(x) == 0.0 or _ulps(log(x), math.log(x)) <= 2.0


@given(st.floats(-700.0, 700.0))
def test_the_exponential_is_within_two_units_in_the_last_place_of_the_librarys(x: float) -> None:
    assert _ulps(exp(x), math.exp(x)) <= 2.0


@given(UNITS)
def test_between_0_and_1_the_logarithm_does_not_decrease(x: float) -> None:
    assert log(x) <= log(math.nextafter(x, 1.0))


def test_the_exponential_of_what_is_far_below_0_is_as_good_as_0() -> None:
    assert 0.0 < exp(-1e9) == exp(-700.0) < 1e-303


def test_near_one_the_logarithm_is_as_exact_as_elsewhere() -> None:
    steps = np.concatenate([np.arange(1, 200), np.geomspace(1e3, 1e15, 200).astype(np.int64)])
    for step in steps.tolist():
        for x in (1.0 - step * 2.0**-53, 1.0 + step * 2.0**-52):
            assert _ulps(log(x), math.log(x)) <= 2.0


def test_known_values_are_exact() -> None:
    assert log(1.0) == 0.0
    assert exp(0.0) == 1.0


@pytest.mark.parametrize(
    ("x", "logarithm", "exponential"),
    [
        (0.1, "-0x1.26bb1bbb55515p+1", "0x1.1aec7b35a00d4p+0"),
        (0.7310585786300049, "-0x1.40c7abfbec124p-2", "0x1.09e44242ca509p+1"),
        (3.0, "0x1.193ea7aad030ap+0", "0x1.415e5bf6fb106p+4"),
        (2.0**-53, "-0x1.25e4f7b2737fap+5", "0x1.0000000000000p+0"),
    ],
)
def test_the_bits_are_the_same_on_every_machine(x: float, logarithm: str, exponential: str) -> None:
    assert (log(x).hex(), exp(x).hex()) == (logarithm, exponential)


@kernel
def _of_many(values: NDArray[np.float64], logarithms: NDArray[np.float64], exponentials: NDArray[np.float64]) -> None:
    for i in range(values.size):
        logarithms[i] = log(values[i])
        exponentials[i] = exp(values[i])


def test_vector_code_gives_the_bits_of_single_calls() -> None:
    values = np.random.default_rng(1).random(1_003)
    logarithms, exponentials = np.empty(1_003), np.empty(1_003)
    _of_many(values, logarithms, exponentials)
    assert logarithms.tolist() == [log(x) for x in values.tolist()]
    assert exponentials.tolist() == [exp(x) for x in values.tolist()]
