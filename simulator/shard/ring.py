"""A bounded single-producer single-consumer ring in shared memory, and the doorbell that wakes its consumer.

The shape is that of the LMAX Disruptor and of Rigtorp's SPSCQueue: two ever-growing cursors on cache lines of their own, each
written by one side only, and a power-of-two array of slots between them. A batch is published by one cursor store.

Memory order. The producer fills slots, then stores `head` with *release*; the consumer loads `head` with *acquire*, then
reads slots. So whoever sees the cursor sees the slots, on x86 (where both are plain moves that the compiler may not reorder)
and on ARM (stlr/ldar). The same pair on `tail` keeps the producer from overwriting a slot that is still being read. The
doorbell (an eventfd) carries no data and orders nothing that matters: it only wakes. A wake-up cannot be lost, because the
producer rings after it has published and the consumer looks at the cursor again after it has read the bell.

A full ring is an answer: `push` takes what fits and says how much that was. It never waits and never overwrites.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from simulator.kernel import item_pointer, kernel
from simulator.shard.layout import shared_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LINE_WORDS = 16  # 128 bytes: two lines, because adjacent-line prefetch pulls pairs
HEAD = 0
TAIL = _LINE_WORDS
_CURSOR_WORDS = 2 * _LINE_WORDS


def _word_address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:  # noqa: ANN401  llvmlite is untyped
    view = context.make_array(array_type)(context, builder, array)
    return item_pointer(context, builder, array_type, view, [index], wraparound=False)


@intrinsic
def _load_acquire(typing: Any, array: Any, index: Any) -> Any:  # noqa: ANN401, ARG001  numba's intrinsic signature
    """`array[index]` (int64), ordered before every later load: pairs with `store_release`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        address = _word_address(context, builder, signature.args[0], *args)
        return builder.load_atomic(address, "acquire", 8, typ=ir.IntType(64))

    return types.int64(array, types.intp), codegen


@intrinsic
def _store_release(typing: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ANN401, ARG001  numba's intrinsic signature
    """`array[index] = value` (int64), ordered after every earlier load and store."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        address = _word_address(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], address, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


# Numba calls an intrinsic without its first parameter; a type checker cannot know that.
load_acquire: Any = _load_acquire
store_release: Any = _store_release


@kernel
def free(cursors: NDArray[np.int64], capacity: int) -> int:
    """How many more records the producer may push now; only grows until it does."""
    used: int = cursors[HEAD] - load_acquire(cursors, TAIL)
    return capacity - used


@kernel
def waiting(cursors: NDArray[np.int64]) -> int:
    """How many records the consumer may read now; only grows until it does."""
    unread: int = load_acquire(cursors, HEAD) - cursors[TAIL]
    return unread


@kernel
def push(cursors: NDArray[np.int64], slots: NDArray[np.void], batch: NDArray[np.void], start: int, stop: int) -> int:
    """Publishes as much of batch[start:stop] as fits, in order; returns how many records that was."""
    capacity = slots.shape[0]
    head = cursors[HEAD]
    count = min(stop - start, free(cursors, capacity))
    for i in range(count):
        slots[(head + i) & (capacity - 1)] = batch[start + i]
    if count > 0:
        store_release(cursors, HEAD, head + count)
    return count


@kernel
def push_wrapped(
    cursors: NDArray[np.int64], slots: NDArray[np.void], source: NDArray[np.void], start: int, stop: int
) -> int:
    """As `push`, from a source that is itself a power-of-two circle addressed by ever-growing positions."""
    capacity = slots.shape[0]
    head = cursors[HEAD]
    count = min(stop - start, free(cursors, capacity))
    for i in range(count):
        slots[(head + i) & (capacity - 1)] = source[(start + i) & (source.shape[0] - 1)]
    if count > 0:
        store_release(cursors, HEAD, head + count)
    return count


@kernel
def pop(cursors: NDArray[np.int64], slots: NDArray[np.void], batch: NDArray[np.void]) -> int:
    """Moves up to len(batch) records out of the ring, in order; returns how many."""
    capacity = slots.shape[0]
    tail = cursors[TAIL]
    count = min(batch.shape[0], waiting(cursors))
    for i in range(count):
        batch[i] = slots[(tail + i) & (capacity - 1)]
    if count > 0:
        store_release(cursors, TAIL, tail + count)
    return count


@kernel
def release(cursors: NDArray[np.int64], count: int) -> None:
    """Gives `count` slots, read in place, back to the producer."""
    store_release(cursors, TAIL, cursors[TAIL] + count)


class Ring:
    """One ring: its cursors and slots in anonymous shared memory. Make it before the fork that separates its two ends."""

    def __init__(self, capacity: int, dtype: np.dtype[np.void]) -> None:
        if capacity <= 0 or capacity & (capacity - 1):
            raise ValueError(f"a ring's capacity must be a power of two, not {capacity}")
        self.capacity = capacity
        self.cursors: NDArray[np.int64] = shared_array(_CURSOR_WORDS, np.int64)
        self.slots = shared_array(capacity, dtype)

    def push(self, batch: NDArray[np.void]) -> int:
        """Publishes what fits of the batch; returns how many records that was. Does not ring."""
        return int(push(self.cursors, self.slots, batch, 0, len(batch)))

    def pop(self, batch: NDArray[np.void]) -> int:
        """Moves up to len(batch) records out; returns how many."""
        return int(pop(self.cursors, self.slots, batch))

    def __len__(self) -> int:
        return int(waiting(self.cursors))


class Doorbell:
    """Wakes one consumer process; any number of producers may ring it. Inherited through fork."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Wakes the consumer now, or makes its next `wait` return at once."""
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until the bell rings or the time is over; says whether it rang.

        select, not poll: its time-out has microseconds where poll rounds up to milliseconds.
        """
        readable, _, _ = select.select([self._fd], [], [], timeout_s)
        if readable:
            os.eventfd_read(self._fd)
        return bool(readable)

    def fileno(self) -> int:
        """What an event loop may watch: readable when it rang."""
        return self._fd

    def clear(self) -> None:
        """Hears the bell, if it rang: look at the rings after this, not before."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Closes this process's end."""
        os.close(self._fd)
