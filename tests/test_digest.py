"""The digest: a sum of hashes that does not depend on the order, in which a loss and a duplicate never cancel."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.ledger.digest import BUCKETS, add_acknowledged, add_legs, add_refused, bucket_of, fingerprint, position
from simulator.shard.layout import RECORD, Leg
from simulator.transaction import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

WORD = (1 << 64) - 1
CLIENT_LEGS = (Leg.TRANSFER, Leg.DEBIT, Leg.CREDIT, Leg.RESERVE, Leg.RELEASE)
LEGS_OF = {
    Kind.PAYMENT: ((Leg.TRANSFER,), (Leg.DEBIT, Leg.CREDIT)),
    Kind.REFUND: ((Leg.TRANSFER,), (Leg.DEBIT, Leg.CREDIT)),
    Kind.POST: ((Leg.TRANSFER,), (Leg.DEBIT, Leg.CREDIT)),
    Kind.AUTHORIZE: ((Leg.RESERVE,),),
    Kind.VOID: ((Leg.RELEASE,),),
}

legs = st.fixed_dictionaries(
    {
        "id": st.integers(1, 2**64 - 1),
        "amount_minor": st.integers(1, 2**62),
        "related": st.integers(0, 2**61 - 1),
        "payer": st.integers(0, 2**32 - 1),
        "payee": st.integers(0, 2**32 - 1),
        "kind": st.sampled_from([int(kind) for kind in Kind]),
        "leg": st.sampled_from([int(leg) for leg in CLIENT_LEGS]),
    }
)
many = st.lists(legs, min_size=2, max_size=20, unique_by=lambda leg: (leg["id"], leg["leg"]))


def records(made: Iterable[dict[str, int]]) -> NDArray[np.void]:
    every = list(made)
    found = np.zeros(len(every), RECORD)
    for record, fields in zip(found, every, strict=True):
        for name, value in fields.items():
            record[name] = value
    return found


def applied(found: NDArray[np.void]) -> NDArray[np.uint64]:
    sums = np.zeros((BUCKETS, 2), np.uint64)
    add_legs(found, sums)
    return sums


def print_of(record: Any) -> np.uint64:  # noqa: ANN401  one RECORD
    names = ("id", "amount_minor", "related", "payer", "payee", "kind")
    return np.uint64(fingerprint(*(record[name] for name in names)))


def acknowledged(found: NDArray[np.void]) -> NDArray[np.uint64]:
    """The sums of transactions that were acknowledged, one for each record."""
    sums = np.zeros((BUCKETS, 2), np.uint64)
    for record in found:
        place = position(int(record["shard"]), int(record["lsn"]))
        add_acknowledged(sums, record["id"], print_of(record), int(record["kind"]), place)
    return sums


def transactions(kind: Kind, count: int) -> list[dict[str, int]]:
    random = np.random.default_rng(int(kind))
    return [
        {
            "id": key, "amount_minor": int(random.integers(1, 10**9)), "related": int(random.integers(0, 10**6)),
            "payer": int(random.integers(0, 2**32)), "payee": int(random.integers(0, 2**32)), "kind": int(kind),
        }
        for key in range(1, count + 1)
    ]  # fmt: skip


# What was acknowledged and what was applied.


@pytest.mark.parametrize(("kind", "legs"), [(kind, ways) for kind, every in LEGS_OF.items() for ways in every])
def test_what_is_acknowledged_equals_what_is_applied_whichever_way_it_is_booked(
    kind: Kind, legs: tuple[Leg, ...]
) -> None:
    asked = transactions(kind, 500)
    booked = records({**one, "leg": int(leg)} for one in asked for leg in legs)
    sums = acknowledged(records(asked))
    assert sums.any()
    assert (applied(booked) == sums).all()


@pytest.mark.parametrize(("kind", "legs"), [(kind, ways) for kind, every in LEGS_OF.items() for ways in every])
def test_any_leg_that_is_missing_shows(kind: Kind, legs: tuple[Leg, ...]) -> None:
    asked = transactions(kind, 5)
    booked = records({**one, "leg": int(leg)} for one in asked for leg in legs)
    sums = acknowledged(records(asked))
    for at in range(len(booked)):
        assert (applied(np.delete(booked, at)) != sums).any()


def test_what_no_client_asked_to_be_booked_is_not_counted() -> None:
    assert not applied(records({**one, "leg": int(Leg.EXPIRE)} for one in transactions(Kind.PAYMENT, 20))).any()


def test_a_refusal_counts_as_itself_and_not_as_anything_applied() -> None:
    made = transactions(Kind.PAYMENT, 20)
    refused = records({**one, "leg": int(Leg.NONE)} for one in made)
    expected = np.zeros((BUCKETS, 2), np.uint64)
    for r in refused:
        asked = (r["id"], r["amount_minor"], r["related"], r["payer"], r["payee"], r["kind"])
        place = position(int(r["shard"]), int(r["lsn"]))
        add_refused(expected, np.uint64(r["id"]), np.uint64(fingerprint(*asked)), int(r["kind"]), np.uint64(place))
    assert np.array_equal(applied(refused), expected)
    assert not np.array_equal(applied(records({**one, "leg": int(Leg.TRANSFER)} for one in made)), expected)


def test_a_refused_lookup_is_not_expected_in_any_log() -> None:
    expected = np.zeros((BUCKETS, 2), np.uint64)
    add_refused(expected, np.uint64(1), np.uint64(2), int(Kind.LOOKUP), np.uint64(3))
    assert not expected.any()


# The laws of a sum.


@given(st.data())
def test_the_order_of_the_legs_does_not_matter(data: st.DataObject) -> None:
    made = data.draw(many)
    shuffled = data.draw(st.permutations(made))
    assert (applied(records(made)) == applied(records(shuffled))).all()


@given(many, st.integers(0, 20))
def test_parts_add_up_to_the_whole(made: list[dict[str, int]], cut: int) -> None:
    sums = applied(records(made[:cut]))
    add_legs(records(made[cut:]), sums)
    assert (sums == applied(records(made))).all()


@given(st.data())
def test_a_loss_and_a_duplicate_never_cancel(data: st.DataObject) -> None:
    made = data.draw(many)
    lost = data.draw(st.integers(0, len(made) - 1))
    twice = data.draw(st.integers(0, len(made) - 1).filter(lambda at: at != lost))
    changed = [*made[:lost], *made[lost + 1 :], made[twice]]
    assert len(changed) == len(made)  # a plain count sees nothing
    assert (applied(records(changed)) != applied(records(made))).any()


@given(st.data())
def test_any_field_of_any_leg_that_is_changed_shows(data: st.DataObject) -> None:
    made = data.draw(many)
    at = data.draw(st.integers(0, len(made) - 1))
    name = data.draw(st.sampled_from(sorted(made[0])))
    other = data.draw(legs.filter(lambda leg: leg[name] != made[at][name]))
    changed = [*made[:at], {**made[at], name: other[name]}, *made[at + 1 :]]
    assert (applied(records(changed)) != applied(records(made))).any()


def test_a_payer_and_a_payee_that_change_places_show() -> None:
    (one,) = transactions(Kind.PAYMENT, 1)
    swapped = {**one, "payer": one["payee"], "payee": one["payer"]}
    assert print_of(records([one])[0]) != print_of(records([swapped])[0])


# The same in plain integers.


def mixed(x: int) -> int:
    """splitmix64's finaliser (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WORD
    return x ^ (x >> 31)


def test_a_bucket_is_a_sum_of_128_bit_numbers_carries_included() -> None:
    found = records({**one, "leg": int(Leg.TRANSFER)} for one in transactions(Kind.PAYMENT, 20_000))
    expected: dict[int, int] = defaultdict(int)
    for record in found:
        for side in (1, 2):  # debit, credit
            low = mixed((int(print_of(record)) + side * 0xD6E8FEB86659FD93) & WORD)
            high = mixed(low ^ 0xE7037ED1A0B428DB ^ int(record["id"]))
            expected[int(bucket_of(record["id"]))] += (high << 64) | low
    sums = applied(found)
    assert len(expected) > BUCKETS // 2
    for bucket, total in expected.items():
        assert (int(sums[bucket, 1]) << 64) | int(sums[bucket, 0]) == total % (1 << 128)


def test_ids_in_sequence_spread_evenly_over_the_buckets() -> None:
    used = np.bincount([int(bucket_of(np.uint64(key))) for key in range(1, 4 * BUCKETS + 1)], minlength=BUCKETS)
    assert len(used) == BUCKETS
    assert used.max() <= 20  # four a bucket in the mean; Poisson gives 20 one time in 10⁸
