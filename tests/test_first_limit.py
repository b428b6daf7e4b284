"""The first limit: which bound a run reached first, from what it did; and that none is found where none was reached."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.report import wording
from simulator.report.asked import Asked
from simulator.report.charts.series import TimeSeries
from simulator.report.fault_times import under_faults
from simulator.report.first_limit import InFault, Limit, first_limit, with_first_limit

SECONDS = 10
NONE = TimeSeries.of({})


def series(**columns: list[Any]) -> TimeSeries:
    return TimeSeries.of({"second": list(range(SECONDS)), **columns})


def rising(at: int, height: float) -> list[Any]:
    """Nothing, then from a second on so much."""
    return [0] * at + [height] * (SECONDS - at)


def found(
    summary: dict[str, Any], columns: TimeSeries = NONE, platform: TimeSeries = NONE, asked: Asked | None = None
) -> Limit:
    limit, in_fault = first_limit(summary, columns, platform, asked or Asked())
    assert in_fault is None
    assert limit is not None
    return limit


def refused(n: int, **more: list[dict[str, int]]) -> dict[str, Any]:
    return {"reasons": {"rejected": {"overflow": n}}, **more}


def test_a_run_that_refused_nothing_and_kept_up_reached_no_limit() -> None:
    summary = {
        "reasons": {"rejected": {"funds": 3}, "dropped": {}}, "schedule_lag_ms": {"p99": 0.5},
        "overload": {"spike_began_s": 2.0, "overloaded_s": 0.4}, "client": {"queue_full": 0}, "over_capacity": None,
    }  # fmt: skip
    columns = series(rejected=rising(3, 1), in_flight=rising(0, 99), lag_p99_ms=rising(1, 900.0))
    platform = series(node0_busy=[0.94] * SECONDS, node0_commit_share=[0.9] * SECONDS, node0_queue=[10] * SECONDS)
    assert first_limit(summary, columns, platform, Asked(in_flight=100, lag_limit_ms=10, queue=64)) == (None, None)


def test_the_shard_that_holds_most_of_what_waits_is_named() -> None:
    platform = series(**{f"shard{s}_in_flight": rising(4, 900 if s == 3 else 20) for s in range(8)})
    limit = found(refused(7), series(refused=rising(4, 7)), platform)
    assert limit == Limit("shard 3's queue", 4.0, "7 refused: overflow")


def test_without_samples_the_shards_longest_queues_tell() -> None:
    shards = [{"shard": s, "queue_max": 5_000 if s == 2 else 10} for s in range(4)]
    assert found(refused(7, shards=shards), series(rejected=rising(6, 7))).what == "shard 2's queue"


def test_the_node_whose_ring_was_full_first_is_named() -> None:
    platform = series(node0_queue=rising(5, 64), node1_queue=rising(4, 64))
    limit = found(refused(1), series(refused=rising(4, 1)), platform, Asked(queue=64))
    assert limit.what == "node 1's queue"


def test_the_only_node_that_refused_is_named_where_no_ring_was_seen_full() -> None:
    nodes = [{"node": 0, "refused": 0}, {"node": 1, "refused": 5}]
    assert found(refused(5, nodes=nodes)).what == "node 1's queue"
    assert found(refused(5)).what == "the queues of the nodes"


def test_a_node_without_time_left_is_limited_by_its_core() -> None:
    platform = series(node1_busy=rising(2, 0.99), node1_commit_share=rising(0, 0.03))
    limit = found({}, platform=platform)
    assert (limit.what, limit.at_s) == ("node 1's core", 2.0)


def test_commits_are_a_limit_only_once_the_platform_falls_behind() -> None:
    # A node commits what came during the commit before, so it is always in one, at any load.
    platform = series(node1_busy=rising(0, 0.99), node1_commit_share=rising(0, 0.9))
    assert first_limit({}, NONE, platform, Asked()) == (None, None)
    overload = {"spike_began_s": 3.0, "spike_ended_s": 6.0, "overloaded_s": 3.0, "spike_offered_per_s": 900.0}
    limit = found({"overload": overload | {"sustained_per_s": 500.0}}, platform=platform)
    assert limit == Limit(
        "node 1's disk", 3.0, "90.0% of a second went into commits; 900/s were offered, 500/s went well"
    )


def test_a_full_in_flight_table_and_lateness_are_the_generators() -> None:
    columns = series(dropped=rising(6, 5))
    dropped = {"reasons": {"dropped": {"in_flight": 5}}}
    assert found(dropped, columns, asked=Asked(in_flight=262_144)) == Limit(
        "the in-flight limit of 262,144", 6.0, "5 were not sent"
    )
    assert found({"reasons": {"dropped": {"late": 5}}}, columns).what == "the generator"
    late = found({"schedule_lag_ms": {"p99": 50.0}}, series(lag_p99_ms=rising(3, 60.0)), asked=Asked(lag_limit_ms=10))
    assert (late.what, late.at_s) == ("the generator", 3.0)


def test_a_generators_core_is_the_limit_only_if_busy_for_a_tenth_of_the_run() -> None:
    assert first_limit({}, series(generator_busy=rising(9, 1.0)), NONE, Asked()) == (None, None)
    limit = found({}, series(generator_busy=rising(8, 1.0)))
    assert (limit.what, limit.at_s) == ("the generator's core", 8.0)


def test_all_connections_in_use_is_a_limit() -> None:
    summary = {"schedule_lag_ms": {"p99": 1.0, "max": 30.0}}
    limit = found(summary, series(in_flight=rising(5, 128)), asked=Asked(connections=128))
    assert (limit.what, limit.at_s) == ("the connections", 5.0)
    assert first_limit(summary, series(in_flight=rising(5, 127)), NONE, Asked(connections=128)) == (None, None)


def test_the_simulated_stage_that_was_offered_more_than_it_takes_is_named() -> None:
    beyond = {"stage": "shards", "capacity_per_s": 100.0, "offered_per_s": 180.0}
    fine = TimeSeries.of({
        "second": [at / 10 for at in range(40)], "window_s": [0.1] * 40,
        "offered": [12 if at == 3 else 9 if at < 20 else 18 for at in range(40)],
    })  # fmt: skip
    limit = found({"over_capacity": beyond}, fine)
    assert limit.what == "the capacity of the shards"
    assert limit.at_s == pytest.approx(1.2)  # the first second that has more than 100, chance in a tenth aside


def test_a_platform_that_fell_behind_without_a_word_is_limited_by_its_rate() -> None:
    overload = {"spike_began_s": 3.0, "overloaded_s": 4.0, "spike_offered_per_s": 900.0, "sustained_per_s": 500.0}
    assert found({"overload": overload}).detail == "900/s were offered, 500/s went well"
    assert found({"overload": overload}, asked=Asked(max_rate_per_s=500)).what == "max_rate, 500/s a node"


def test_of_several_limits_the_first_in_time_is_told_and_the_cause_before_what_follows() -> None:
    summary = refused(3) | {"reasons": {"rejected": {"overflow": 3}, "dropped": {"in_flight": 9}}}
    earlier = series(refused=rising(5, 1), dropped=rising(4, 1))
    assert found(summary, earlier).what.startswith("the in-flight limit")
    together = series(refused=rising(5, 1), dropped=rising(5, 1))
    assert found(summary, together).what == "the queues of the nodes"


# ---- under faults ----

KILLED = [
    {"t_s": 3.2, "event": "fault", "fault": "kill", "node": 1, "pid": 7},
    {"t_s": 4.7, "event": "node_ready", "node": 1},
]


def under_load(fallen: dict[int, int], held: dict[int, int]) -> TimeSeries:
    """1,000 offered a second; in some seconds so many fewer are answered, and so many are in flight at their ends."""
    answered = [1_000 - fallen.get(at, 0) for at in range(SECONDS)]
    return series(
        offered=[1_000] * SECONDS, completed=answered, ok=answered, in_flight=[held.get(at, 5) for at in range(SECONDS)],
    )  # fmt: skip


SPIKE = {
    "spike_began_s": 3.0, "spike_ended_s": 5.0, "overloaded_s": 2.0, "spike_offered_per_s": 1_000.0, "sustained_per_s": 500.0,
}  # fmt: skip


def test_a_killed_node_is_a_fault_and_no_limit() -> None:
    columns = under_load({3: 500, 4: 500, 5: -900}, {3: 500, 4: 900})
    limit, in_fault = first_limit({"overload": SPIKE}, columns, NONE, Asked(), KILLED)
    assert limit is None
    assert in_fault == InFault(
        "the rate that the rest of the platform can take", 3.0, "1,000/s were offered, 500/s went well", "kill node 1"
    )


def test_what_runs_out_without_the_fault_is_the_limit_and_both_are_named() -> None:
    columns = under_load({3: 500, 4: 500, 5: -900, 7: 400, 8: 400}, {3: 500, 4: 900, 7: 400, 8: 800})
    limit, in_fault = first_limit({"overload": SPIKE}, columns, NONE, Asked(), KILLED)
    assert limit == Limit("the rate that the platform can take", 7.0, "1,000/s were offered, 600/s went well")
    assert in_fault is not None
    assert in_fault.fault == "kill node 1"


def test_a_fault_is_at_work_until_what_it_piled_up_is_worked_off() -> None:
    columns = under_load({}, {3: 500, 4: 900, 5: 600, 6: 300})
    (one,) = under_faults(KILLED, columns)
    assert (one.label, one.start_s, one.stop_s) == ("kill node 1", 3.0, 8.0)
    never = under_load({}, dict.fromkeys(range(3, SECONDS), 900))
    assert under_faults(KILLED, never)[0].stop_s == float("inf")
    assert under_faults(KILLED[:1], columns)[0].stop_s == float("inf")
    assert under_faults(KILLED, series(offered=[1] * SECONDS))[0].stop_s == 5.0
    assert under_faults(KILLED, NONE)[0].start_s == 3.2


def test_more_load_after_a_fault_is_not_its_aftermath() -> None:
    # Twice as many in flight of twice as many offered: they wait no longer than before.
    offered = [1_000] * 6 + [2_000] * 4
    columns = series(offered=offered, completed=offered, in_flight=[100, 100, 100, 500, 900, 100, *[200] * 4])
    assert under_faults(KILLED, columns)[0].stop_s == 6.0


def test_refusals_under_a_fault_only_are_the_faults() -> None:
    columns = series(refused=[0, 0, 0, 9, 9, 0, 0, 0, 0, 0])
    limit, in_fault = first_limit(refused(18), columns, NONE, Asked(), KILLED)
    assert limit is None
    assert in_fault is not None
    assert (in_fault.what, in_fault.at_s) == ("the queues of the nodes", 3.0)
    both = series(refused=[0, 0, 0, 9, 9, 0, 0, 9, 0, 0])
    assert first_limit(refused(27), both, NONE, Asked(), KILLED)[0] == Limit(
        "the queues of the nodes", 7.0, "27 refused: overflow"
    )


def test_a_limit_that_stands_before_the_fault_stays_the_first() -> None:
    columns = series(dropped=rising(1, 5))
    dropped = {"reasons": {"dropped": {"in_flight": 5}}}
    limit, in_fault = first_limit(dropped, columns, NONE, Asked(), KILLED)
    assert limit is not None
    assert (limit.what, limit.at_s, in_fault) == ("the in-flight limit", 1.0, None)


def test_the_sentence_names_both_and_whose_fault_it_was() -> None:
    summary = {"verdict": "pass", "counts": {}, "rates": {}, "audit": {"verdict": "clean"}, "overload": SPIKE}
    columns = under_load({3: 500, 4: 500, 5: -900}, {3: 500, 4: 900}).columns
    told = with_first_limit(summary, columns, {}, "", KILLED)
    assert wording.sentence(told).endswith(
        "; no limit was reached without a fault, under kill node 1 the rate that the rest of the platform can take"
    )
    assert wording.limit_detail(told) == (
        "Under the fault kill node 1: the rate that the rest of the platform can take, from 3s on: 1,000/s were offered, "
        "500/s went well."
    )
    both = told | {"first_limit": {"what": "shard 3's queue", "at_s": 7.0, "detail": "9 refused: overflow"}}
    assert "; first limit: shard 3's queue, under kill node 1 the rate" in wording.sentence(both)
    assert wording.limit_detail(both).startswith("First limit: shard 3's queue, from 7s on: 9 refused: overflow. Under")


def test_the_sentence_names_the_limit_or_says_that_there_was_none() -> None:
    summary = {"verdict": "pass", "counts": {}, "rates": {}, "audit": {"verdict": "clean"}}
    columns = {"second": [0, 1], "refused": [0, 4]}
    assert wording.sentence(with_first_limit(summary, columns, {}, "")).endswith("; no limit was reached")
    told = with_first_limit(refused(4) | summary | {"reasons": {"rejected": {"overflow": 4}}}, columns, {}, "")
    assert wording.sentence(told).endswith("; first limit: the queues of the nodes")
    assert wording.limit_detail(told) == "First limit: the queues of the nodes, from 1s on: 4 refused: overflow."
    assert "limit" not in wording.sentence(summary)  # an older summary, without its series
