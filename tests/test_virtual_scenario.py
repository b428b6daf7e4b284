"""The parts of a scenario that only the virtual clock reads: platform, client, and faults that no process can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.errors import ScenarioError
from simulator.fault.schedule import Fault, Schedule
from simulator.scenario.loader import dump_scenario, load

BASE = """\
name: fleet
clock: virtual
duration: 5s
load: {rate: 1000/s}
platform:
  units: 2
  nodes: 8
  workers: 4
  service: {distribution: lognormal, mean: 5ms, sigma: 0.5}
  network: {client: 200us, shard: 50us}
  shards: {count: 16, commit: {base: 1ms, per_record: 2us}}
  dependency: {share: 0.1, latency: {mean: 30ms}, limit: 100}
client:
  timeout: 100ms
  retries: {max: 2, budget: {ratio: 0.1}}
  hedge: {after: 50ms}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_platform_and_a_client_read_back_as_they_were_written(tmp_path: Path) -> None:
    scenario = load(_write(tmp_path, BASE))
    assert scenario.platform is not None
    assert (scenario.platform.service.mean, scenario.platform.service.parameter) == (5_000_000, 0.5)
    assert scenario.client.retries is not None
    assert scenario.client.retries.budget is not None
    assert load(_write(tmp_path, dump_scenario(scenario))) == scenario


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "scenarios").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_shipped_scenario_has_a_model_for_the_virtual_clock(path: Path) -> None:
    if any(fault.fault == "poison" for fault in load(path).faults):
        assert "happens on the wall clock only" in _refusal(path, "clock=virtual")
        return
    backend = load(path).backend
    if backend.http is not None and backend.http.fleet is not None:
        assert "write node in place of gateway" in _refusal(path, "clock=virtual")
        return
    if backend.embedded is not None and backend.embedded.rebalance is not None:
        assert "shards move on the wall clock only" in _refusal(path, "clock=virtual")
        return
    scenario = load(path, ["clock=virtual"])
    fleet, embedded = scenario.fleet, scenario.backend.embedded
    if scenario.platform is None and embedded is not None:
        assert (fleet.nodes, fleet.shards.count) == (embedded.nodes, embedded.shards)
        assert (fleet.shards.commit is None) == (embedded.durability == "memory")


MISTAKES = {
    "nodes that do not divide": (["platform.nodes=9"], "platform.nodes: 9 nodes do not divide", "write 8 or 10"),
    "shards that do not divide": (["platform.shards.count=17"], "platform.shards.count: 17", "write 16 or 18"),
    "weights for some": (["platform.weights=[1.0, 2.0]"], "platform.weights: 2 weights for 8 nodes", "one for each"),
    "no mean": (["platform.service={distribution: gamma}"], "platform.service.mean: is missing", "mean: 1ms"),
    "another's parameter": (["platform.service.alpha=2.0"], "platform.service.alpha: is no param", "it takes sigma"),
    "a tail without a mean": (
        ["platform.service={distribution: pareto, mean: 1ms, alpha: 1.0}"], "platform.service.alpha: ", "1",
    ),
    "no file": (["platform.service={distribution: empirical}"], "platform.service.file: is missing", ".hlog or .csv"),
    "a file that is not there": (
        ["platform.service={distribution: empirical, file: no.hlog}"], "platform.service.file: there is no file", "folder",
    ),
    "an unknown discipline": (["platform.discipline=fifo"], "platform.discipline: 'fifo'", "fcfs"),
    "service twice": (["platform.shards.service={mean: 1ms}"], "platform.shards.commit: ", "not both"),
    "a deadline before the timeout": (["client.deadline=50ms"], "client.deadline: 50ms", "at least 100ms"),
    "a hedge after the timeout": (["client.hedge.after=1s"], "client.hedge.after: ", "less than the timeout, 100ms"),
    "too many attempts": (["client.retries.max=15"], "client.retries.max: ", "at most 16"),
    "a node that is not there": (
        ["faults=[{at: 1s, fault: slow, target: 'node[8]'}]"], "faults[0].target: there is no node[8]", "node[7]",
    ),
    "a unit that is not there": (
        ["faults=[{at: 1s, fault: unit_loss, target: 'unit[2]'}]"], "faults[0].target: there is no unit[2]", "unit[1]",
    ),
    "a unit for a node": (["faults=[{at: 1s, fault: kill, target: 'unit[1]'}]"], "faults[0].target: ", "'node[0]'"),
    "a factor of a kill": (
        ["faults=[{at: 1s, fault: kill, target: 'node[1]', factor: 3.0}]"], "faults[0].factor: ", "only slow takes it",
    ),
    "slow on the wall clock": (
        ["clock=wall", "faults=[{at: 1s, fault: slow, target: 'node[1]'}]"], "faults[0].fault: 'slow'", "clock: virtual",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_model_is_told_with_its_place_and_its_remedy(tmp_path: Path, mistake: str) -> None:
    overrides, what, remedy = MISTAKES[mistake]
    text = _refusal(_write(tmp_path, BASE), *overrides)
    assert what in text
    assert remedy in text
    assert "\n" not in text


def test_faults_of_the_virtual_clock_have_an_end(tmp_path: Path) -> None:
    faults = (
        "faults=[{at: 1s, fault: slow, target: 'node[7]', factor: 4.0, for: 1s}, {at: 2s, fault: kill, target: 'node[0]'},"
        " {at: 2s, fault: kill, target: 'node[1]', for: 500ms}, {at: 3s, fault: unit_loss, target: 'unit[1]'},"
        " {at: 3s, fault: dependency, mode: hang, for: 1s}]"
    )
    scenario = load(_write(tmp_path, BASE), [faults])
    strikes = Schedule(scenario.faults, 8, 5 * 10**9, 1, restart_ns=scenario.fleet.restart).strikes
    assert [strike.until_ns for strike in strikes] == [2 * 10**9, 3 * 10**9, 25 * 10**8, 5 * 10**9, 4 * 10**9]
    assert [strike.fault for strike in strikes] == [
        Fault.SLOW, Fault.KILL, Fault.KILL, Fault.UNIT_LOSS, Fault.DEPENDENCY,
    ]  # fmt: skip
    assert (strikes[0].factor, strikes[3].unit, strikes[4].hangs) == (4.0, 1, True)
