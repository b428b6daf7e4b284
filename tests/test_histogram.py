from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.measure.histogram import (
    COUNTS,
    DIGITS,
    HIGHEST_NS,
    LOWEST_NS,
    Histogram,
    count_one,
    highest_equivalent_ns,
    index_of,
)
from simulator.measure.windows import WindowHistograms

law = settings(deadline=None, max_examples=100)  # the first call compiles the kernels

# As many short times as long ones: uniform in the exponent, and at the edges of buckets.
times = st.one_of(
    st.integers(0, 41).flatmap(lambda bits: st.integers(0, 2**bits)),
    st.builds(lambda bits, off: max(0, 2**bits + off), st.integers(0, 41), st.integers(-2, 2)),
    st.sampled_from([HIGHEST_NS - 1, HIGHEST_NS]),
).map(lambda value: min(value, HIGHEST_NS))
some_times = st.lists(times, min_size=1, max_size=60)

BUCKET_VALUES = highest_equivalent_ns(np.arange(COUNTS, dtype=np.int64))


def of(values: list[int]) -> Histogram:
    return Histogram.of(np.array(values, np.int64))


def library(values: list[int]) -> Any:  # noqa: ANN401  the library is untyped
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for value in values:
        assert histogram.record_value(value)
    return histogram


def test_there_are_as_many_buckets_as_in_the_library() -> None:
    assert library([]).counts_len == COUNTS


@law
@given(some_times)
def test_values_fall_into_the_librarys_buckets(values: list[int]) -> None:
    theirs = library(values)
    assert of(values).counts.tolist() == list(theirs.counts)
    for value in values:
        assert BUCKET_VALUES[index_of(value)] == theirs.get_highest_equivalent_value(value)


@law
@given(some_times, st.one_of(st.sampled_from([50.0, 90.0, 99.0, 99.9, 100.0]), st.floats(0.01, 100)))
def test_percentiles_are_the_librarys(values: list[int], percent: float) -> None:
    assert of(values).percentile_ns(percent) == library(values).get_value_at_percentile(percent)


@settings(deadline=None, max_examples=15)  # the library walks all its counts in Python
@given(some_times)
def test_mean_and_maximum_are_the_librarys(values: list[int]) -> None:
    mine, theirs = of(values), library(values)
    # An even number of values has no middle one: the library takes the upper, we the lower.
    assert mine.mean_ns == pytest.approx(theirs.get_mean_value(), rel=1e-12, abs=1)
    assert mine.max_ns == theirs.get_highest_equivalent_value(max(values)) == mine.percentile_ns(100)


@law
@given(times)
def test_a_value_is_kept_within_one_part_in_1024(value: int) -> None:
    kept = int(BUCKET_VALUES[index_of(value)])
    assert value <= kept
    assert (kept - value) * 1_024 <= value
    if value < 2_048:
        assert kept == value


def test_buckets_follow_one_another_without_gap_or_overlap() -> None:
    assert BUCKET_VALUES[0] == 0
    assert (np.diff(BUCKET_VALUES) > 0).all()
    for index in (*range(1, 4_097), *range(5_000, COUNTS, 997), index_of(HIGHEST_NS)):
        above, top = int(BUCKET_VALUES[index - 1]) + 1, min(int(BUCKET_VALUES[index]), HIGHEST_NS)
        if above <= HIGHEST_NS:
            assert index_of(above) == index_of(top) == index


@law
@given(st.lists(some_times, min_size=1, max_size=5))
def test_merged_histograms_are_the_histogram_of_the_union(parts: list[list[int]]) -> None:
    merged = Histogram()
    for part in parts:
        merged = merged + of(part)
    union = of([value for part in parts for value in part])
    assert np.array_equal(merged.counts, union.counts)
    assert merged.total == sum(map(len, parts))


def test_adding_leaves_both_sides_as_they_were() -> None:
    one, other = of([1, 2]), of([3])
    assert (one + other).total == 3
    assert (one.total, other.total) == (2, 1)


@law
@given(some_times, st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_percentiles_never_fall_as_the_percentage_climbs(values: list[int], percents: list[float]) -> None:
    histogram = of(values)
    found = [histogram.percentile_ns(percent) or 0 for percent in sorted(percents)]
    assert all(low <= high for low, high in pairwise(found))


def test_the_median_of_two_is_the_smaller_and_the_rank_is_rounded() -> None:
    assert of([10, 20]).percentile_ns(50) == 10
    assert of(list(range(1, 101))).percentile_ns(99) == 99
    assert of(list(range(1, 101))).percentile_ns(99.9) == 100
    assert of(list(range(1, 101))).percentile_ns(0) == 1


def test_no_values_have_no_percentile_mean_or_maximum() -> None:
    empty = Histogram()
    assert (empty.total, empty.percentile_ns(50), empty.mean_ns, empty.max_ns) == (0, None, None, None)


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_a_percentage_outside_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        of([1]).percentile_ns(percent)


def test_values_outside_the_range_count_at_its_ends() -> None:
    assert index_of(-5) == index_of(-(2**63)) == index_of(0) == 0
    top = index_of(HIGHEST_NS)
    assert index_of(HIGHEST_NS + 1) == index_of(2**63 - 1) == top < COUNTS
    assert of([-1, 0, HIGHEST_NS * 9]).counts[[0, top]].tolist() == [2, 1]


def test_one_value_is_counted_as_many_are() -> None:
    counts = np.zeros(COUNTS, np.int64)
    for value in (0, 2_047, 2_048, 10**9):
        count_one(counts, value)
    assert np.array_equal(counts, of([0, 2_047, 2_048, 10**9]).counts)


# Per second × kind × node

SECONDS, KINDS, NODES = 6, 3, 2
values_at = st.lists(
    st.tuples(st.integers(0, SECONDS - 1), st.integers(0, KINDS - 1), st.integers(0, NODES - 1), times), max_size=80
)


def record(kept: WindowHistograms, second: int, kind: int, node: int, value: int) -> None:
    if kept.slots[second] < 0:
        kept.admit(second)
    kept.dense[kept.slots[second], kind, node, index_of(value)] += 1


def counted(histogram: Histogram) -> Counter[int]:
    return Counter({int(i): int(histogram.counts[i]) for i in np.flatnonzero(histogram.counts)})


def buckets_of(values: list[tuple[int, int, int, int]]) -> Counter[int]:
    return Counter(int(index_of(value)) for _, _, _, value in values)


@law
@given(values_at, st.integers(1, 4))
def test_sums_over_seconds_kinds_and_nodes_are_a_direct_count_in_whatever_order_seconds_come(
    values: list[tuple[int, int, int, int]], resident: int
) -> None:
    kept = WindowHistograms(SECONDS, KINDS, NODES, resident)
    for value in values:
        record(kept, *value)
    sparse = kept.finish()
    assert counted(sparse.total()) == buckets_of(values)
    for kind in range(KINDS):
        assert counted(sparse.by_kind(kind)) == buckets_of([v for v in values if v[1] == kind])
    for node in range(NODES):
        assert counted(sparse.by_node(node)) == buckets_of([v for v in values if v[2] == node])
    by_second = dict(sparse.by_window())
    found = sparse.percentiles_by_window([0, 50, 99.9, 100])
    for second in range(SECONDS):
        whole = by_second.get(second, Histogram())
        assert found[second].tolist() == [-1 if p is None else p for p in map(whole.percentile_ns, (0, 50, 99.9, 100))]
    assert sorted(by_second) == sorted({second for second, _, _, _ in values})
    for second, histogram in by_second.items():
        assert counted(histogram) == buckets_of([v for v in values if v[0] == second])


@law
@given(values_at)
def test_a_resident_second_can_be_read_and_a_retired_one_is_no_longer_written_to(
    values: list[tuple[int, int, int, int]],
) -> None:
    kept = WindowHistograms(SECONDS, KINDS, NODES, resident=2)
    since_admitted: dict[int, list[tuple[int, int, int, int]]] = {}
    order: list[int] = []
    for value in values:
        if value[0] not in order:
            if len(order) == 2:
                since_admitted.pop(order.pop(0))
            order.append(value[0])
            since_admitted[value[0]] = []
        record(kept, *value)
        since_admitted[value[0]].append(value)
        for second in range(SECONDS):
            assert (kept.slots[second] >= 0) == (second in order)
            assert counted(kept.of_window(second)) == buckets_of(since_admitted.get(second, []))


def test_nothing_recorded_is_nothing_found() -> None:
    sparse = WindowHistograms(SECONDS, KINDS, NODES).finish()
    assert sparse.total().total == sparse.by_kind(0).total == sparse.by_node(1).total == 0
    assert dict(sparse.by_window()) == {}


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    def kept_bytes(rounds: int) -> int:
        kept = WindowHistograms(SECONDS, KINDS, NODES, resident=2)
        for _ in range(rounds):
            for value in range(100):
                record(kept, 3, 0, 0, value)
        sparse = kept.finish()
        assert sparse.total().total == 100 * rounds
        return sparse.nbytes

    assert kept_bytes(30) == kept_bytes(1)
