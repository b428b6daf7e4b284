from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import process
from simulator.shard.layout import shared_array
from simulator.shard.ring import Doorbell, Ring, free, push, push_wrapped, release, waiting
from simulator.transaction import TRANSACTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

law = settings(deadline=None, max_examples=60)  # the first call compiles the kernels

AT_LAST_S = 30.0  # only how long a broken build makes us wait; nothing is measured against it
FACTOR = 1_000_003  # ties a second field to the number, so that a slot half overwritten is seen


def numbered(first: int, count: int) -> NDArray[Any]:
    """Records first, first + 1, …; each carries its number at both ends of its 64 bytes."""
    batch = np.zeros(count, TRANSACTION)
    batch["id"] = np.arange(first, first + count)
    batch["sequence"] = batch["id"] * FACTOR
    return batch


def popped(ring: Ring, most: int) -> list[int]:
    """The ids of what a pop of at most this many hands out; each record is checked to be whole."""
    batch = np.zeros(most, TRANSACTION)
    got = batch[: ring.pop(batch)]
    assert (got["sequence"] == got["id"] * FACTOR).all()
    return [int(number) for number in got["id"]]


@pytest.mark.parametrize("capacity", [1, 2, 8, 64])
def test_a_full_ring_refuses_and_loses_nothing(capacity: int) -> None:
    ring = Ring(capacity, TRANSACTION)
    assert ring.push(numbered(1, capacity + 3)) == capacity
    assert ring.push(numbered(900, 2)) == 0
    assert len(ring) == capacity
    assert popped(ring, 2 * capacity) == list(range(1, capacity + 1))
    assert len(ring) == 0


def test_an_empty_ring_hands_out_nothing() -> None:
    ring = Ring(8, TRANSACTION)
    assert popped(ring, 4) == []
    ring.push(numbered(1, 2))
    assert popped(ring, 0) == []
    assert popped(ring, 4) == [1, 2]
    assert popped(ring, 4) == []


@law
@given(
    capacity=st.sampled_from([1, 2, 4, 16]),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=20, max_size=120),
)
def test_order_is_kept_over_many_wraps(capacity: int, steps: list[tuple[bool, int]]) -> None:
    ring = Ring(capacity, TRANSACTION)
    model: deque[int] = deque()
    number = 1
    for pushes, count in steps:
        if pushes:
            taken = ring.push(numbered(number, count))
            assert taken == min(count, capacity - len(model))
            model.extend(range(number, number + taken))
            number += taken
        else:
            assert popped(ring, count) == [model.popleft() for _ in range(min(count, len(model)))]
        assert len(ring) == waiting(ring.cursors) == len(model)
        assert free(ring.cursors, capacity) == capacity - len(model)
    assert popped(ring, capacity) == list(model)


@pytest.mark.parametrize("capacity", [0, -1, -8, 3, 6, 100, 1_023])
def test_a_capacity_that_is_no_power_of_two_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"power of two, not {capacity}"):
        Ring(capacity, TRANSACTION)


@law
@given(start=st.integers(0, 40), length=st.integers(0, 8), already=st.integers(0, 4))
def test_push_wrapped_reads_its_source_as_a_circle(start: int, length: int, already: int) -> None:
    source = numbered(100, 8)
    ring = Ring(4, TRANSACTION)
    ring.push(numbered(1, already))
    count = push_wrapped(ring.cursors, ring.slots, source, start, start + length)
    assert count == min(length, 4 - already)
    assert popped(ring, 8) == [*range(1, already + 1), *(100 + (start + i) % 8 for i in range(count))]


def test_push_takes_only_the_asked_part_of_a_batch() -> None:
    ring = Ring(8, TRANSACTION)
    assert push(ring.cursors, ring.slots, numbered(0, 8), 3, 6) == 3
    assert popped(ring, 8) == [3, 4, 5]


def test_slots_read_in_place_are_free_again_only_after_release() -> None:
    ring = Ring(4, TRANSACTION)
    ring.push(numbered(1, 4))
    assert waiting(ring.cursors) == 4
    assert ring.push(numbered(5, 1)) == 0
    release(ring.cursors, 3)
    assert ring.push(numbered(5, 4)) == 3
    assert popped(ring, 8) == [4, 5, 6, 7]


def test_a_bell_rung_before_the_wait_makes_it_return_at_once() -> None:
    bell = Doorbell()
    bell.ring()
    # With no time to sleep at all it can only be true if the earlier ring was kept.
    assert bell.wait(0.0)
    bell.close()


def test_a_wait_takes_every_ring_before_it() -> None:
    bell = Doorbell()
    bell.ring()
    bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.0)
    bell.ring()
    assert bell.wait(0.0)
    bell.close()


def test_a_bell_that_nobody_rings_says_so() -> None:
    bell = Doorbell()
    assert not bell.wait(0.001)
    bell.close()


RECEIVED, OUT_OF_ORDER, TORN, SENT = range(4)


def _produce(ring: Ring, total: int, seen: NDArray[Any], data: Doorbell, room: Doorbell) -> None:
    sizes = np.random.default_rng(1).integers(1, 2 * ring.capacity, 1_024)
    turn = 0
    sent = 0
    while sent < total:
        pushed = ring.push(numbered(sent + 1, min(int(sizes[turn % 1_024]), total - sent)))
        turn += 1
        sent += pushed
        seen[SENT] = sent
        if pushed:
            data.ring()
        elif not room.wait(AT_LAST_S):
            return


def _consume(ring: Ring, total: int, seen: NDArray[Any], data: Doorbell, room: Doorbell) -> None:
    sizes = np.random.default_rng(2).integers(1, 2 * ring.capacity, 1_024)
    batch = np.zeros(2 * ring.capacity, TRANSACTION)
    turn = 0
    received = 0
    while received < total:
        got = batch[: ring.pop(batch[: sizes[turn % 1_024]])]
        turn += 1
        seen[OUT_OF_ORDER] += np.count_nonzero(got["id"] != np.arange(received + 1, received + 1 + len(got)))
        seen[TORN] += np.count_nonzero(got["sequence"] != got["id"] * FACTOR)
        received += len(got)
        seen[RECEIVED] = received
        if len(got):
            room.ring()
        elif not data.wait(AT_LAST_S):
            return
    seen[RECEIVED] += ring.pop(batch)  # nothing may come after the last


@pytest.mark.parametrize(("capacity", "total"), [(2, 30_001), (64, 250_001)])
def test_two_processes_pass_every_record_once_and_in_order(capacity: int, total: int) -> None:
    ring = Ring(capacity, TRANSACTION)
    seen = shared_array(4, np.int64)
    data, room = Doorbell(), Doorbell()
    ring.push(numbered(0, 1))  # compiled before the fork
    popped(ring, 1)
    children = [
        process.start("consumer", _consume, ring, total, seen, data, room),
        process.start("producer", _produce, ring, total, seen, data, room),
    ]
    for child in children:
        child.join(2 * AT_LAST_S)
        process.kill(child)
    data.close()
    room.close()
    assert seen.tolist() == [total, 0, 0, total]
    assert [child.exitcode for child in children] == [0, 0]
