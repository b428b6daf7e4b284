"""The agenda: what is due, in order, whatever its width and length."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.virtual.agenda import IN_FAR, next_ns, open_agenda, peek, put, take
from simulator.engine.virtual.direct import ROW
from simulator.engine.virtual.records import NEVER_NS

MOST = 64
# How far ahead a row is put in, in ns: within a bucket, some buckets on, beyond the wheel of a narrow agenda.
# Many are due at one instant.
AHEAD = st.one_of(st.integers(0, 5).map(lambda k: 1_000 * k), st.integers(0, 2_000), st.integers(0, 10**7))
STEPS = st.lists(st.one_of(st.tuples(st.just("put"), AHEAD), st.tuples(st.just("until"), AHEAD)), max_size=MOST)
WIDTHS = st.sampled_from([1e-3, 1e3, 1e6, 1e9])


def _rows() -> Any:  # noqa: ANN401  structured rows
    return np.zeros(MOST, ROW)


@settings(deadline=None, max_examples=300)
@given(steps=STEPS, per_s=WIDTHS, servers=st.sampled_from([1, 100]))
def test_what_is_put_in_comes_out_in_order_of_time_and_of_one_instant_the_first_first(
    steps: list[tuple[str, int]], per_s: float, servers: int
) -> None:
    agenda, rows = open_agenda(MOST, per_s, servers), _rows()
    model: list[tuple[int, int]] = []
    now = 0
    for r, (what, ahead) in enumerate(steps):
        if what == "put":
            rows[r]["time_ns"] = now + ahead
            put(agenda, rows, r, now + ahead, now)
            model.append((now + ahead, r))
            model.sort()
            continue
        until = now + ahead
        while model and model[0][0] <= until:
            time_ns, expected = model.pop(0)
            assert next_ns(agenda) == time_ns
            assert peek(agenda) == expected
            assert take(agenda, rows) == expected
        now = until
    for time_ns, expected in model:
        assert next_ns(agenda) == time_ns
        assert take(agenda, rows) == expected
    assert next_ns(agenda) == NEVER_NS


def test_a_bucket_that_an_earlier_row_displaces_keeps_its_order() -> None:
    agenda, rows = open_agenda(8, 1e6, 1), _rows()
    for r, time_ns in enumerate([1_000, 1_000, 5, 1_000]):
        rows[r]["time_ns"] = time_ns
        put(agenda, rows, r, time_ns, 0)
    assert [take(agenda, rows) for _ in range(4)] == [2, 0, 1, 3]


def test_what_lies_beyond_the_wheel_waits_in_a_heap() -> None:
    agenda, rows = open_agenda(4, 1e9, 1), _rows()
    for r, time_ns in enumerate([10**9, 5, 10**8, 7]):
        rows[r]["time_ns"] = time_ns
        put(agenda, rows, r, time_ns, 0)
    assert agenda.at[IN_FAR] == 2
    assert [take(agenda, rows) for _ in range(4)] == [1, 3, 2, 0]


def test_the_wheel_is_long_enough_for_some_services_of_all_servers() -> None:
    # 10,000 servers of 10 ms each, busy: nearly all departures are less than eight services ahead.
    agenda, rows = open_agenda(1, 1e6, 10_000), _rows()
    rows[0]["time_ns"] = 80_000_000 - 1
    put(agenda, rows, 0, 80_000_000 - 1, 0)
    assert agenda.at[IN_FAR] == 0
