"""Runs on the virtual clock through the command line: same folder and contract, exact, parallel, stopped in order."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sim_process

from simulator.audit.virtual import audit_virtual
from simulator.engine.units import PROGRESS, put_together, simulate_units
from simulator.engine.virtual.tally import Count, open_virtual
from simulator.measure.grid import peak_grid
from simulator.report.simulated import over_capacity
from simulator.scenario.loader import load
from simulator.scenario.model import Scenario
from simulator.transaction import TRANSACTION
from simulator.warm import warm_virtual
from simulator.workload.build import build_source

if TYPE_CHECKING:
    from pathlib import Path

    from sim_process import Ended

SCENARIO = """\
name: simulated
clock: virtual
seed: 7
duration: 2s
load:
  rate: 4000/s
  accounts: 2000
  merchants: {count: 50}
  mix: {payment: 80, refund: 8, authorize: 12}
  follow_up: {after: 400ms, void_share: 0.3}
platform:
  units: 4
  nodes: 8
  service: {mean: 1ms}
  shards: {count: 16, service: {mean: 1ms}}
client: {timeout: 30ms, retries: {max: 2}}
faults:
  - {at: 1s, fault: slow, target: "node[3]", factor: 20, for: 500ms}
thresholds:
  dropped: ["count == 0"]
  audit: ["anomalies == 0"]
"""


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Kernels are compiled before the clock of a process that is waited for runs: on a busy machine that takes minutes."""
    warm_virtual(None)


# What depends on when and where a run was made, and on nothing else.
OF_THE_MOMENT = ("started_at", "wall_s", "resources", "simulated")


def written(folder: Path) -> Path:
    path = folder / "simulated.yaml"
    path.write_text(SCENARIO, "utf-8")
    return path


def run(folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Ended:
    ended = sim_process.call(
        "run", str(written(folder.parent)), "--out", str(folder), "--quiet", *arguments, prefix=prefix
    )
    ended.folder = folder
    return ended


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in OF_THE_MOMENT}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return run(tmp_path_factory.mktemp("virtual") / "run")


def test_a_simulated_run_leaves_the_same_folder_as_any_run(simulated: Ended) -> None:
    assert (simulated.code, simulated.err) == (0, "")
    assert not [name for name in sim_process.FILES if not (simulated.folder / name).is_file()]
    assert simulated.summary["clock"] == "virtual"
    assert simulated.summary["validity"] == {"verdict": "valid", "reasons": []}
    assert sim_process.CLEAN.items() <= simulated.summary["audit"].items()


def test_counts_of_windows_nodes_and_shards_add_up_to_the_whole(simulated: Ended) -> None:
    summary, series = simulated.summary, simulated.series
    counts = summary["counts"]
    assert counts["offered"] > 7_000
    for name, count in counts.items():
        assert sum(series[name]) == count, name
    assert sum(node["sent"] for node in summary["nodes"]) == summary["client"]["attempts"]
    assert sum(shard["applied"] for shard in summary["shards"]) == counts["ok"]
    assert summary["client"]["amplification"] == pytest.approx(summary["client"]["attempts"] / counts["sent"], abs=1e-6)
    assert all(length > 0 for length in series["window_s"])


def test_littles_law_holds_at_every_station(simulated: Ended) -> None:
    stations = {row["station"]: row for row in simulated.summary["stations"]}
    assert {"nodes", "shards", "client"} <= set(stations)
    for row in stations.values():
        assert row["mean_number"] == pytest.approx(row["little_number"], rel=1e-4)


def test_what_the_balancer_could_not_know_is_told(simulated: Ended) -> None:
    balancer = simulated.summary["balancer"]
    assert balancer["staleness_regret"] > 0
    assert balancer["ejections"] == balancer["readmissions"] == 0


def test_what_struck_stands_among_the_events_in_its_own_time(simulated: Ended) -> None:
    lines = (simulated.folder / "events.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert {"t_s": 1.0, "event": "fault", "fault": "slow", "node": 3} in events
    assert {"t_s": 1.5, "event": "fault_over", "fault": "slow", "node": 3} in events


def test_the_report_says_plainly_that_it_is_simulated_and_of_what(simulated: Ended) -> None:
    page = (simulated.folder / "report.html").read_text("utf-8")
    assert "Simulated" in page
    assert "4 units" in page
    assert "Stations" in page


def test_the_same_seed_gives_the_same_summary_with_one_process_and_with_several(
    simulated: Ended, tmp_path: Path
) -> None:
    one = run(tmp_path / "run", prefix=("taskset", "-c", str(min(os.sched_getaffinity(0)))))
    assert one.summary["simulated"]["processes"] == 1
    assert lasting(one.summary) == lasting(simulated.summary)
    for name in ("timeseries.csv", "audit.json", "events.jsonl"):
        assert (one.folder / name).read_bytes() == (simulated.folder / name).read_bytes()


def test_another_seed_gives_another_run(simulated: Ended, tmp_path: Path) -> None:
    assert run(tmp_path / "run", "--seed", "8").summary["counts"] != simulated.summary["counts"]


def test_one_seed_gives_both_clocks_the_same_transactions(tmp_path: Path) -> None:
    batches = []
    for clock in ("wall", "virtual"):
        scenario = load(written(tmp_path), [f"clock={clock}", "faults=[]"])
        batch = np.zeros(4_096, TRANSACTION)
        count = build_source(scenario).fill(batch)
        batches.append(batch[:count].tobytes())
    assert batches[0] == batches[1]


def test_units_in_any_order_and_company_give_the_same(tmp_path: Path) -> None:
    scenario = load(written(tmp_path))
    grid_ns = peak_grid(2 * 10**9, scenario.dispatcher.drain, 0)
    progress = np.zeros(PROGRESS, np.int64)

    def of(*units: int) -> list[Any]:
        return simulate_units(scenario, units, grid_ns, progress, lambda: 2**62)

    together = put_together(of(0, 1, 2, 3), 4, len(grid_ns) - 1)
    apart = put_together([*of(2), *of(3, 1), *of(0)], 4, len(grid_ns) - 1)
    for name in together.virtual._fields:
        assert np.array_equal(getattr(together.virtual, name), getattr(apart.virtual, name)), name
    assert np.array_equal(together.measured.response.total().counts, apart.measured.response.total().counts)
    assert together.unbalanced == apart.unbalanced == []


def test_offered_beyond_capacity_is_told_and_no_error(tmp_path: Path) -> None:
    settings = ("load.rate=9000/s", "platform.queue=100", "faults=[]")
    ended = run(tmp_path / "run", *sim_process.settings(*settings))
    assert ended.code == 0
    told = ended.summary["over_capacity"]
    assert told["stage"] == "nodes"
    assert told["excess"] == pytest.approx(9 / 8 - 1, abs=0.05)
    assert "exceeds" in (ended.folder / "report.html").read_text("utf-8")


def test_no_overload_is_told_where_there_is_none(simulated: Ended) -> None:
    assert simulated.summary["over_capacity"] is None


def test_any_scenario_runs_on_either_clock(tmp_path: Path) -> None:
    ended = sim_process.run(tmp_path / "run", "--clock", "virtual", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert ended.summary["platform"]["given"] is False


def test_a_sweep_on_the_virtual_clock_runs_in_parallel_and_compares_like_with_like(tmp_path: Path) -> None:
    ended = run(tmp_path / "sweep", "--vary", "balancer.policy=random,p2c")
    sweep = json.loads((ended.folder / "sweep.json").read_text("utf-8"))
    assert (ended.code, [row["verdict"] for row in sweep["variants"]]) == (0, ["pass", "pass"])
    assert len({row["offered"] for row in sweep["variants"]}) == 1  # one seed, the same transactions
    alone = run(tmp_path / "alone", "--set", "balancer.policy=p2c")
    variant = json.loads((ended.folder / sweep["variants"][1]["folder"] / "summary.json").read_text("utf-8"))
    assert lasting(variant) == lasting(alone.summary)


LONG = sim_process.settings("duration=2h", "load.rate=20000/s", "faults=[]")


class Running(sim_process.Running):
    """The simulated scenario, long enough to be stopped."""

    def __init__(self, folder: Path) -> None:
        scenario = load(written(folder.parent))
        assert scenario.clock == "virtual"
        super().__init__(folder, "--clock", "virtual", *LONG)

    def wait_until_it_runs(self) -> None:
        """Until its children simulate."""
        sim_process.until(
            lambda: ", running," in self.out.read_text("utf-8") or self.process.poll() is not None, "the simulation"
        )
        assert self.process.poll() is None, self.err.read_text("utf-8")


def test_ctrl_c_leaves_a_partial_report_marked_so(tmp_path: Path) -> None:
    with Running(tmp_path / "run") as running:
        running.wait_until_it_runs()
        os.killpg(running.process.pid, signal.SIGINT)
        ended = running.end()
        sim_process.until(lambda: not sim_process.members(running.process.pid), "an empty session")
    assert (ended.code, ended.err) == (105, "")
    assert not [name for name in sim_process.FILES if not (ended.folder / name).is_file()]
    summary = ended.summary
    assert (summary["interrupted"], summary["validity"]["verdict"]) == (True, "inconclusive")
    assert 0 < summary["duration_s"] < 7_200
    assert summary["audit"]["verdict"] == "clean"
    assert summary["counts"]["offered"] > 0
    assert "interrupted" in (ended.folder / "report.html").read_text("utf-8")


def test_a_killed_simulation_leaves_nobody(tmp_path: Path) -> None:
    with Running(tmp_path / "run") as running:
        running.wait_until_it_runs()
        started = sim_process.children(running.process.pid)
        assert started
        running.process.kill()
        running.end()
        sim_process.until(lambda: not any(map(sim_process.alive, started)), "the end of its children")


# The audit of what was counted.


def counted(**counts: int) -> Any:  # noqa: ANN401  a Virtual
    virtual = open_virtual(1, 1, 1)
    for name, count in counts.items():
        virtual.counts[Count[name.upper()]] = count
    return virtual


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"acknowledged": 10, "applied": 10}, {}),
        ({"acknowledged": 10, "applied": 12, "unknown_applied": 2}, {}),
        ({"acknowledged": 10, "applied": 9, "acknowledged_not_applied": 1}, {"lost": 1}),
        ({"acknowledged": 10, "applied": 11}, {"duplicated": 1}),
        ({"acknowledged": 10, "applied": 9}, {"unexplained": 1}),
        ({"acknowledged": 10, "applied": 11, "refused_applied": 1}, {"failed_but_applied": 1}),
    ],
)
def test_what_was_told_and_what_was_applied_must_agree(counts: dict[str, int], found: dict[str, int]) -> None:
    audit = audit_virtual(counted(**counts), [])
    assert dict(audit.anomalies) == found
    assert audit.verdict == ("anomalies" if found else "clean")


def test_equal_counts_of_unequal_transactions_are_found_by_their_digests() -> None:
    virtual = counted(acknowledged=1, applied=1)
    virtual.digests[0, 0] = 5
    assert dict(audit_virtual(virtual, []).anomalies) == {"unexplained": 1}


def test_customers_that_do_not_add_up_are_an_anomaly() -> None:
    audit = audit_virtual(counted(), ["nodes: 3 came, 2 left, 0 are inside"])
    assert audit.verdict == "anomalies"
    assert "nodes: 3 came" in audit.reasons[0]


def test_a_burst_shorter_than_a_second_is_no_overload() -> None:
    from simulator.measure.recorder import open_tallies  # noqa: PLC0415  this test's alone

    scenario = Scenario.from_data(
        {"name": "a", "clock": "virtual", "duration": "2s", "load": {"rate": "1/s"}, "platform": {"nodes": 1}}
    )
    tallies = open_tallies(np.arange(21, dtype=np.int64) * 10**8, 1, 1)
    tallies.offered[3] = 900  # nine times the capacity of a tenth of a second, below that of the second
    assert over_capacity(scenario.fleet, tallies, 2.0) is None
    tallies.offered[13] = 1_100
    found = over_capacity(scenario.fleet, tallies, 2.0)
    assert found is not None
    assert (found["seconds"], found["excess"]) == (1.0, pytest.approx(0.1))
