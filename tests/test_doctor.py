from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import sim_process
from hypothesis import given
from hypothesis import strategies as st

from simulator.bench.generate import OpenLoop
from simulator.doctor import cache
from simulator.doctor.ceilings import rates_to_try, warm_the_simulated
from simulator.doctor.demands import Demands, demands_of
from simulator.doctor.figures import Ceilings, Disk, Figures, Machine, Noise, Timing
from simulator.doctor.judge import Grade, Remark, grade, limiting, limits, remarks, verdict
from simulator.doctor.machine import CpuTimes, noise, parse_stat
from simulator.scenario.model import Scenario
from simulator.warm import warm, warm_virtual

GOOD = Figures(
    taken_at="2019-11-11T00:00:00+00:00",
    quick=False,
    version="1",
    machine=Machine(4, 4, "performance", 16 * 10**9, 8 * 10**9, 1_024, 4_096, 32_768, 60_999, 0.1),
    timing=Timing(1, 40.0, 500.0, 10.0, 60.0, 200.0),
    disk=Disk("ext4", 10**11, 0.25, 0.9),
    ceilings=Ceilings(60_000.0, 90_000.0, 64, 12.0, 2e6, 3e6, 1e6, 9e6, 2e6),
    noise=Noise(15.0, 0.0, 0.01),
)
HTTP = Demands("http", 30_000.0, 9e5, 1, 128, 1, True, True, 192, 3 * 10**8, 10**8, 1.0)  # noqa: FBT003  by_port, keep_alive


def named(found: list[Remark], name: str) -> Remark:
    return next(remark for remark in found if remark.name == name)


def demanding(**changes: object) -> list[Remark]:
    return limits(replace(HTTP, **changes), GOOD)  # type: ignore[arg-type]  # of the fields' own types


def test_a_quiet_machine_is_fit_to_measure_with() -> None:
    assert verdict(GOOD).startswith("fit to measure with: up to 60,000/s")
    assert all(remark.grade is Grade.OK for remark in remarks(GOOD))


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (replace(GOOD, noise=Noise(15.0, 0.05, 0.0)), "hypervisor took 5 %"),
        (replace(GOOD, noise=Noise(15.0, 0.0, 0.4)), "other processes used 40 %"),
        (replace(GOOD, timing=replace(GOOD.timing, late_us_p99=2_500.0)), "wakes 2.5 ms late"),
        (replace(GOOD, ceilings=replace(GOOD.ceilings, http_open_per_s=None)), "no rate over HTTP was kept"),
    ],
)
def test_what_disturbs_a_machine_is_in_its_verdict(figures: Figures, said: str) -> None:
    assert verdict(figures).startswith("not quiet: ")
    assert said in verdict(figures)
    assert any(remark.grade is Grade.OVER for remark in remarks(figures))


def test_what_the_system_does_not_tell_is_said_to_be_unknown() -> None:
    machine = replace(GOOD.machine, governor=None, port_first=None, port_last=None)
    found = remarks(replace(GOOD, machine=machine, noise=Noise(15.0, None, None), disk=Disk("ext4", 0, None, None)))
    unknown = {remark.name for remark in found if remark.grade is Grade.UNKNOWN}
    assert unknown == {"steal", "other processes", "local ports", "disk"}


def test_a_modest_scenario_is_limited_by_nothing() -> None:
    assert limiting(demanding()) == "nothing that was looked at limits the scenario here"
    assert named(demanding(), "peak rate").meaning == "50 % of the 60,000/s measured here"


def test_each_thing_that_is_too_little_is_named() -> None:
    for changes, name in (
        ({"peak_per_s": 70_000.0}, "peak rate"),
        ({"descriptors": 5_000}, "connections"),
        ({"connections": 30_000}, "local ports"),
        ({"memory_bytes": 9 * 10**9}, "memory"),
        ({"disk_bytes": 2 * 10**11}, "disk"),
        ({"lag_limit_ms": 0.1}, "lag"),
    ):
        found = demanding(**changes)
        assert named(found, name).grade is Grade.OVER, name
        assert limiting(found) == f"this machine would limit the scenario: {name}"
    assert "ulimit -n 5000" in named(demanding(descriptors=5_000), "connections").meaning


def test_without_keep_alive_ports_last_for_a_sixtieth_a_second() -> None:
    found = named(demanding(keep_alive=False, peak_per_s=500.0), "local ports")
    assert found.grade is Grade.OVER
    assert "471/s" in found.meaning  # 28,232 ports, 60 s each
    assert named(demanding(keep_alive=False, peak_per_s=500.0, targets=2), "local ports").grade is Grade.OK
    assert not any(remark.name == "local ports" for remark in demanding(by_port=False))


def test_connections_and_peak_say_how_long_an_answer_may_take() -> None:
    assert named(demanding(), "time to answer").figure == "4.27 ms"  # 128 / 30,000


def test_an_embedded_platform_is_no_faster_than_the_engine_before_it() -> None:
    slow = replace(GOOD, ceilings=replace(GOOD.ceilings, noop_per_s=500_000.0))
    embedded = replace(HTTP, backend="group", connections=0, peak_per_s=600_000.0)
    assert named(limits(embedded, GOOD), "peak rate").grade is Grade.OK
    assert named(limits(embedded, slow), "peak rate").grade is Grade.OVER


def test_a_backend_that_was_not_measured_is_unknown() -> None:
    found = demanding(backend="theirs")
    assert named(found, "peak rate").grade is Grade.UNKNOWN
    assert limiting(found).endswith("not known: peak rate")


def test_little_to_spare_is_said() -> None:
    assert limiting(demanding(peak_per_s=50_000.0)).endswith("little is to spare: peak rate")


@given(st.floats(0, 1e9), st.floats(1e-3, 1e9))
def test_grades_are_in_order(value: float, limit: float) -> None:
    found = grade(value, limit)
    assert (found is Grade.OVER) == (value > limit)
    assert (found is Grade.OK) == (value <= 0.8 * limit)


def test_a_scenario_is_read_without_resolving_its_targets() -> None:
    scenario = Scenario.from_data(
        {
            "name": "far", "duration": "10s", "load": {"rate": "2000/s"},
            "backend": {"http": {"targets": ["http://no.such.host.invalid", "http://unix:/s"], "connections": 200}},
        }
    )  # fmt: skip
    found = demands_of(scenario)
    assert (found.backend, found.peak_per_s, found.connections, found.targets) == ("http", 2_000.0, 200, 2)
    assert found.by_port
    assert found.keep_alive


def test_the_durability_of_the_embedded_platform_is_what_it_is_held_against() -> None:
    data = {"name": "x", "duration": "1s", "load": {"rate": "9/s"}, "backend": {"embedded": {"durability": "memory"}}}
    assert demands_of(Scenario.from_data(data)).backend == "memory"
    assert demands_of(Scenario.from_data({**data, "clock": "virtual"})).backend == "virtual"


STAT = "cpu  100 1 50 800 20 4 5 20 30 0\ncpu0 1 2 3"


def test_proc_stat_is_read_as_its_manual_says() -> None:
    assert parse_stat(STAT) == (160, 20, 1_000)
    assert parse_stat("") is None
    assert parse_stat("intr 1 2 3 4 5 6 7 8 9") is None


def test_noise_is_what_was_neither_idle_nor_ours() -> None:
    found = noise(CpuTimes(0.0, 1_000, 10, 5_000, 100.0), CpuTimes(2.0, 1_300, 14, 5_400, 300.0))
    assert (found.seconds, found.steal, found.others) == (2.0, 0.01, 0.25)
    assert noise(None, None) == Noise(0.0, None, None)


def test_figures_survive_their_file_and_nothing_else_passes_for_them() -> None:
    assert Figures.from_json(json.loads(json.dumps(GOOD.as_json()))) == GOOD
    others: tuple[object, ...] = (
        {},
        [],
        None,
        {**GOOD.as_json(), "schema": 99},
        {**GOOD.as_json(), "disk": {"free": 1}},
    )
    for other in others:
        with pytest.raises(ValueError, match=r"schema|no figures"):
            Figures.from_json(other)


def test_figures_are_kept_for_their_day_and_a_quick_look_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.of_today("2019-11-11") is None
    cache.keep(replace(GOOD, quick=True))
    cache.keep(GOOD)
    cache.keep(replace(GOOD, quick=True))
    assert cache.of_today("2019-11-11") == GOOD
    assert cache.of_today("2019-11-12") is None
    (file,) = tmp_path.rglob("doctor-*.json")
    file.write_text("{", "utf-8")
    assert cache.of_today("2019-11-11") is None


def test_a_cache_folder_must_be_absolute() -> None:
    home = Path("/home/someone")
    assert cache.path_of({"XDG_CACHE_HOME": "here"}, home, "m").is_relative_to(home / ".cache")
    assert cache.path_of({"XDG_CACHE_HOME": "/there"}, home, "m").is_relative_to("/there")


def test_rates_are_tried_from_the_ceiling_down() -> None:
    assert [round(rate) for rate in rates_to_try(100_000, 3)] == [90_000, 67_500, 50_625]


@pytest.mark.parametrize(
    ("sent", "ok", "lag", "held"), [(1_000, 1_000, 0.9, True), (999, 999, 0.9, True), (998, 998, 0.9, False),
    (1_000, 990, 0.9, False), (1_000, 1_000, 1.1, False), (1_000, 1_000, None, False)],
)  # fmt: skip
def test_a_rate_is_held_if_it_was_sent_answered_and_on_time(
    *, sent: int, ok: int, lag: float | None, held: bool
) -> None:
    assert OpenLoop(1_000.0, 1_000, sent, ok, 1.0, 0.1, {"p99": 1.0}, {"p99": lag}).held() is held


def test_a_quick_look_ends_in_a_verdict_and_runs_of_the_day_carry_its_figures(tmp_path: Path) -> None:
    warm(None)  # here, where compiling may take its time: a process that a test starts may not
    warm_virtual(None)
    warm_the_simulated()
    cached = str(tmp_path / "cache")
    before = sim_process.run(tmp_path / "before", "--quiet", "--set", "duration=300ms", XDG_CACHE_HOME=cached)
    written = json.loads((before.folder / "environment.json").read_text("utf-8"))
    assert written["doctor"] is None
    assert "`sim doctor`" in written["doctor_missing"]
    assert written["clock_resolution_ns"] > 0
    assert written["noise"]["over_s"] > 0

    path = sim_process.scenario(tmp_path / "run")
    ended = sim_process.call("doctor", str(path), "--quick", "--json", cwd=tmp_path, XDG_CACHE_HOME=cached)
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert said["verdict"]
    assert said["scenario"]["name"] == "small"
    assert {limit["name"] for limit in said["scenario"]["limits"]} >= {"peak rate", "memory", "disk", "lag"}
    for name in (
        "http_closed_per_s",
        "noop_per_s",
        "embedded_memory_per_s",
        "embedded_group_per_s",
        "virtual_full_per_s",
    ):
        assert said["ceilings"][name] > 0, name
    assert said["timing"]["late_us_max"] >= said["timing"]["late_us_p50"] > 0
    assert "clock and timers" in ended.err
    assert sorted(child.name for child in tmp_path.iterdir()) == ["before", "cache", "small.yaml"]

    after = sim_process.run(tmp_path / "after", "--quiet", "--set", "duration=300ms", XDG_CACHE_HOME=cached)
    written = json.loads((after.folder / "environment.json").read_text("utf-8"))
    assert written["doctor"]["taken_at"] == said["taken_at"]
    assert written["doctor"]["noop_per_s"] == said["ceilings"]["noop_per_s"]


def test_a_mistake_in_the_scenario_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("name: x\n", "utf-8")
    ended = sim_process.call("doctor", "wrong.yaml", cwd=tmp_path)
    assert ended.code == 104
    assert ended.out == ""
    assert "clock and timers" not in ended.err
