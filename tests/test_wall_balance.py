"""What a run on the wall clock knows of its balancer's behaviour, from counts that a test wrote down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from simulator.balancer.behaviour import describe
from simulator.balancer.fleet import EVENT, Health
from simulator.engine.wall import Ended
from simulator.measure.grid import seconds_grid
from simulator.measure.recorder import FINE_NS, ClientCount, Recorder, open_tallies
from simulator.report.events import health_events
from simulator.run.balance import recorded_of
from simulator.scenario.model import Scenario
from simulator.transaction import Reason, Status

if TYPE_CHECKING:
    from simulator.balancer.behaviour import Recorded
    from simulator.measure.recorder import Tallies

S = 1_000_000_000
NODES, SECONDS = 4, 20
KILL = [
    {"t_s": 5.0, "event": "fault", "fault": "kill", "node": 2}, {"t_s": 8.0, "event": "node_ready", "node": 2},
]  # fmt: skip


@pytest.fixture
def tallies() -> Tallies:
    """20 s of 100 attempts a second at each node; node 2 fails all of its own from 5 s until it is left out at 5.4 s."""
    found = open_tallies(seconds_grid(SECONDS), NODES, 8, fine=True)
    found.fine_sent[:] = 10
    found.node_sent[:] = 100
    found.sent[:] = 100 * NODES
    found.offered[:] = 100 * NODES
    found.answered[:, Status.OK] = 100 * NODES
    found.fine_sent[54:80, 2] = 0
    found.fine_failed[50:54, 2] = 10
    found.fine_failed[100, 0] = 7  # nobody was sick then
    return found


def recorded(tallies: Tallies, events: list[dict[str, Any]], policy: str = "p2c") -> Recorded:
    log = np.array([(int(5.4 * S), 0, 2, Health.EJECTED_IN_A_ROW), (8 * S, 0, 2, Health.READMITTED)], EVENT)
    ended = Ended(Recorder(SECONDS, NODES).finish(), 0.0, b"", 0, log, len(log))
    scenario = Scenario.from_data(
        {
            "name": "x", "duration": "20s", "load": {"rate": "400/s", "accounts": 1_000},
            "backend": {"embedded": {"nodes": NODES, "shards": 8}}, "balancer": {"policy": policy},
        }
    )  # fmt: skip
    return recorded_of(scenario, tallies, events, ended, float(SECONDS), np.arange(8) % NODES)


def test_what_was_lost_before_the_ejection_is_known(tallies: Tallies) -> None:
    (fault,) = describe(recorded(tallies, KILL))["faults"]
    assert fault["detection"]["first_s"] == 0.4
    assert fault["lost_before_ejection"] == 40


def test_retry_amplification_is_known_by_tier(tallies: Tallies) -> None:
    tallies.retried[5] = 40
    tallies.attempt_ended[Status.OK, Reason.NONE] = 8_000
    tallies.attempt_ended[Status.REJECTED, Reason.NODE_DOWN] = 40
    tallies.client[ClientCount.ASKED_AGAIN] = 800
    found = describe(recorded(tallies, []))["amplification"]
    assert found == {"client": 1.005, "nodes": 1.1}  # 40 of the attempts came to nobody, 800 copies beside them


def test_error_amplification_holds_clients_errors_against_those_of_sick_nodes(tallies: Tallies) -> None:
    tallies.by_reason[Status.UNKNOWN, Reason.RESET] = 10
    tallies.by_reason[Status.REJECTED, Reason.NODE_DOWN] = 10
    tallies.by_reason[Status.REJECTED, Reason.FUNDS] = 5_000  # business
    found = describe(recorded(tallies, KILL))["error_amplification"]
    assert found == pytest.approx((20 / 8_000) / (40 / 8_000))
    twice = [*KILL, {"t_s": 5.1, "event": "fault", "fault": "pause", "node": 2}]
    assert describe(recorded(tallies, twice))["error_amplification"] == found  # a window counts once
    assert describe(recorded(tallies, []))["error_amplification"] is None  # nothing was injected


@pytest.mark.parametrize(
    ("policy", "known"), [("ring_hash", True), ("maglev", True), ("affinity", True), ("p2c", False)]
)
def test_keys_that_move_without_the_node_that_was_killed_are_known_of_policies_by_key(
    tallies: Tallies, policy: str, *, known: bool
) -> None:
    churn = describe(recorded(tallies, KILL, policy))["affinity_churn"]
    assert (churn is not None) == known
    if churn is not None:
        assert churn["moved"] >= churn["optimum"] > 0.1
    assert describe(recorded(tallies, [], policy))["affinity_churn"] is None


def test_fine_windows_are_tenths_of_a_second(tallies: Tallies) -> None:
    assert int(tallies.fine_ns[0]) == FINE_NS == 100_000_000


def test_what_a_balancer_thought_of_its_nodes_is_told_once_a_second() -> None:
    out = int(Health.EJECTED_IN_A_ROW)
    log = [(S + 5, 2, out), (S + 7, 2, out), (2 * S, 2, int(Health.READMITTED)), (2 * S, -1, int(Health.PANIC_BEGAN))]
    assert health_events(log) == [
        {"t_s": 1.0, "event": "ejected_in_a_row", "node": 2, "times": 2}, {"t_s": 2.0, "event": "readmitted", "node": 2},
        {"t_s": 2.0, "event": "panic_began"},
    ]  # fmt: skip
