"""Scenarios: what a file may say, what each mistake is told, and that a scenario reads back as it was written."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.errors import ScenarioError, UsageError
from simulator.scenario import platform
from simulator.scenario.document import SIZE_LIMIT, resolve
from simulator.scenario.load import CurveRate, Knots, Mmpp, StagedRate, TraceRate
from simulator.scenario.loader import dump_scenario, load, load_with_origins
from simulator.scenario.model import Scenario
from simulator.scenario.plan import overridden_defaults, plan, render_plan
from simulator.scenario.platform import PLUGIN_GROUP

SHIPPED = sorted((Path(__file__).parent.parent / "scenarios").glob("*.yaml"))

VALID = """\
name: tiny
duration: 5s
load:
  rate: 1000/s
  accounts: 100
backend:
  embedded: {nodes: 2, shards: 4}
thresholds:
  dropped: count == 0
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _changed(old: str, new: str) -> str:
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)


def _refusal(path: Path, *overrides: str, environ: dict[str, str] | None = None) -> str:
    """What the file is refused with, its folder left out."""
    with pytest.raises(ScenarioError) as caught:
        load(path, overrides, environ)
    assert int(caught.value.exit_code) == 104
    return str(caught.value).replace(f"{path.parent}/", "")


# ---- what is right ----


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_loads_and_has_thresholds(path: Path) -> None:
    scenario = load(path)
    metrics = {threshold.metric for threshold in scenario.threshold_list}
    http = scenario.backend.http
    assert "audit" in metrics or (http is not None and http.fleet is None)  # whose books are not ours to audit
    assert metrics & {"response_time", "ok"} or scenario.faults  # a run with faults is about the books


def test_eight_scenarios_are_shipped() -> None:
    assert {"dual-write-control", "hardware", "peak", "record-2019", "smoke", "smoke-kill", "stages", "trace"} <= {
        path.stem for path in SHIPPED
    }


def test_the_contracts_example_reads_as_the_contract_says(tmp_path: Path) -> None:
    scenario = load(next(path for path in SHIPPED if path.stem == "peak"))
    assert (scenario.name, scenario.seed, scenario.duration) == ("double-eleven-opening-minute", 20191111, 60 * 10**9)
    assert scenario.load.accounts == 10_000_000
    assert scenario.load.ticket.mean == 10_000
    assert isinstance(scenario.load.rate, CurveRate)
    assert scenario.load.rate.window_ns == (0, 60 * 10**9)
    assert plan(scenario).transactions_expected == pytest.approx(5_250_000)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    scenario = load(_write(tmp_path, "name: least\nduration: 1s\nload: {rate: 10/s}\n"))
    assert scenario.load.rate == 10.0
    assert (scenario.seed, scenario.currency, scenario.clock) == (1, "CNY", "wall")
    assert (scenario.load.balance, scenario.load.accounts, scenario.load.merchants.zipf) == (
        1_000_000,
        10_000_000,
        1.05,
    )
    assert (scenario.load.mix.payment, scenario.load.mix.refund, scenario.load.mix.authorize) == (97, 1, 2)
    assert scenario.backend.name == "embedded"
    assert scenario.backend.embedded is not None
    assert (scenario.backend.embedded.nodes, scenario.backend.embedded.durability) == (2, "group")
    assert (scenario.backend.embedded.overflow, scenario.backend.embedded.restarts) == ("refuse", 1_000)
    assert (scenario.backend.embedded.snapshot_records, scenario.backend.embedded.hold_expiry) == (
        20 * 10**6,
        6 * 10**11,
    )
    assert scenario.faults == ()
    assert scenario.threshold_list == ()


def test_kinds_left_out_of_a_written_mix_are_never_sent(tmp_path: Path) -> None:
    mix = load(_write(tmp_path, _changed("accounts: 100", "mix: {payment: 1}"))).load.mix
    assert (mix.payment, mix.refund, mix.authorize) == (1, 0, 0)


def test_a_duration_left_out_is_the_rates_own_length(tmp_path: Path) -> None:
    stages = "rate: {stages: [{duration: 3s, target: 5/s}, {duration: 4s, target: 0/s}]}"
    text = _changed("rate: 1000/s", stages).replace("duration: 5s\n", "", 1)
    assert load(_write(tmp_path, text)).duration_ns == 7 * 10**9
    text = _changed("rate: 1000/s", "rate: {curve: double-eleven/paper, window: [10s, 1m]}").replace(
        "duration: 5s\n", "", 1
    )
    assert load(_write(tmp_path, text)).duration_ns == 50 * 10**9


def test_bare_mmpp_has_the_default_bursts(tmp_path: Path) -> None:
    path = _write(tmp_path, VALID)
    assert load(path).load.mmpp is None
    assert load(path, ["load.arrivals=mmpp"]).load.mmpp == Mmpp()
    assert load(path, ["load.arrivals={mmpp: {burst: 2}}"]).load.mmpp == Mmpp(burst=2.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10_000_000", 10_000_000),
        ("-3", -3),
        ("1.05", 1.05),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("on", "on"),
        ("no", "no"),
        ("10:30", "10:30"),
        ("2019-11-11", "2019-11-11"),
        ("~", None),
        ("", None),
        ("0x10", 16),
        ("1_", "1_"),
        ("=", "="),
    ],
)
def test_plain_scalars_are_read_as_the_core_schema_reads_them(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_a_date_is_a_fine_name(tmp_path: Path) -> None:
    assert load(_write(tmp_path, _changed("name: tiny", "name: 2019-11-11"))).name == "2019-11-11"


def test_money_follows_the_scenarios_currency(tmp_path: Path) -> None:
    text = _changed("accounts: 100", "balance: 500 JPY\n  ticket: {mean: 7 JPY}").replace(
        "name", "currency: JPY\nname", 1
    )
    scenario = load(_write(tmp_path, text))
    assert (scenario.load.balance, scenario.load.ticket.mean) == (500, 7)
    assert "500 JPY" in dump_scenario(scenario)


def test_a_scenario_says_its_own_curve(tmp_path: Path) -> None:
    text = _changed("rate: 1000/s", "rate: {curve: {knots: [[0s, 0 CNY], [10s, 100 CNY]]}, scale: 100}")
    rate = load(_write(tmp_path, text)).load.rate
    assert isinstance(rate, CurveRate)
    assert isinstance(rate.curve, Knots)
    assert (rate.knots, rate.scale) == (((0, 0), (10**10, 10_000)), 100.0)


def test_a_trace_is_found_beside_the_scenario_and_stored_in_full(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp,amount,payer,payee\n0,1.00,1,1\n10,1.00,2,2\n")
    text = _changed("rate: 1000/s", "rate: {trace: t.csv, speed: 2}")
    rate = load(_write(tmp_path, text)).load.rate
    assert isinstance(rate, TraceRate)
    assert rate.trace == (tmp_path / "t.csv").resolve()


def test_a_registered_plug_in_is_a_backend_with_options_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint(name="ours", value="ours:Backend", group=PLUGIN_GROUP)
    monkeypatch.setattr(platform, "entry_points", lambda group: [point] if group == PLUGIN_GROUP else [])
    scenario = load(_write(tmp_path, VALID), ["backend.ours={depth: 3, note: ~}"])
    assert (scenario.backend.name, scenario.backend.plugin_options) == ("ours", {"depth": 3, "note": None})
    assert load(_write(tmp_path, dump_scenario(scenario))) == scenario
    assert load(_write(tmp_path, VALID), ["backend.ours={}", "backend.embedded.nodes=1"]).backend.name == "embedded"


def test_an_index_past_a_lists_end_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, _changed("1000/s", "{stages: [{duration: 9s, target: 5/s}]}"))
    refusal = _refusal(path, "load.rate.stages.1.target=5/s")
    assert refusal.endswith("'1' is not an index of this list; it has 1 items, from 0 on")


def test_a_trace_of_more_than_a_day_needs_a_duration_or_a_speed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp\n0\n100000\n")
    path = _write(tmp_path, _changed("1000/s", "{trace: t.csv}").replace("duration: 5s\n", "", 1))
    assert "at most 24h; write a duration or a higher speed" in _refusal(path)
    assert load(path, ["load.rate.speed=2"]).duration_ns is None
    assert load(path, ["duration=1h"]).duration_ns == 3_600 * 10**9


# ---- faults ----


def _with_fault(fault: str) -> str:
    """A run of 5 s on 2 nodes with one fault, in line 8."""
    return _changed("thresholds:", f"faults: [{{{fault}}}]\nthresholds:")


def test_a_fault_is_read_with_the_words_of_the_file(tmp_path: Path) -> None:
    text = _with_fault("at: 1s, for: 250ms, fault: pause, target: 'node[1]', every: 500ms, times: 3, spread: random")
    fault = load(_write(tmp_path, text)).faults[0]
    assert (fault.at, fault.for_, fault.fault, fault.node) == (10**9, 250 * 10**6, "pause", 1)
    assert (fault.every, fault.times, fault.spread) == (500 * 10**6, 3, "random")


def test_a_power_loss_needs_no_target_and_may_name_every_node(tmp_path: Path) -> None:
    for target in ("", ", target: 'node[*]'"):
        fault = load(_write(tmp_path, _with_fault(f"at: 0s, fault: power_loss{target}"))).faults[0]
        assert (fault.at, fault.node) == (0, None)


@pytest.mark.parametrize(
    ("fault", "strikes"),
    [
        ("at: 4999ms", 1),
        ("at: 1s, every: 1s", 4),
        ("at: 1s, every: 1500ms", 3),
        ("at: 1s, every: 1500ms, spread: random", 2),
        ("at: 1s, every: 1s, times: 2", 2),
        ("at: 1s, every: 1s, times: 4, spread: random", 4),
        ("at: 4s, every: 1ms", 1_000),
        ("at: 1s, every: 1h, times: 1", 1),
        ("at: 1s, every: 1h", 1),
    ],
)
def test_a_repeated_fault_strikes_as_often_as_it_says_or_as_fits(tmp_path: Path, fault: str, strikes: int) -> None:
    scenario = load(_write(tmp_path, _with_fault(f"fault: kill, target: 'node[*]', {fault}")))
    assert scenario.faults[0].strikes(5 * 10**9) == strikes


@pytest.mark.parametrize("overflow", ["refuse", "block", "drop_oldest"])
def test_a_full_ring_refuses_blocks_or_drops_the_oldest(tmp_path: Path, overflow: str) -> None:
    embedded = load(_write(tmp_path, VALID), [f"backend.embedded.overflow={overflow}"]).backend.embedded
    assert embedded is not None
    assert embedded.overflow == overflow


KILL = "at: 1s, fault: kill, target: 'node[1]'"
PAUSE = "at: 1s, fault: pause, target: 'node[1]'"

FAULTY = {
    "an unknown fault": ("at: 1s, fault: kil, target: 'node[1]'", "fault: 'kil' is not one of", "did you mean kill?"),
    "a fault of later": (
        "at: 1s, fault: latency",
        "fault: ",
        "not available yet; use kill, power_loss, pause or poison",
    ),
    "a fault that is no word": ("at: 1s, fault: 5, target: 'node[1]'", "fault: ", "5 is not one of kill, power_loss"),
    "an unknown key": (f"{KILL}, tims: 3", "tims: ", "did you mean times?"),
    "the key that only Python has": (f"{PAUSE}, for_: 3s", "for_: ", "did you mean for?"),
    "no moment": ("fault: kill, target: 'node[1]'", "at: is missing", "When it strikes"),
    "a moment without a unit": ("at: 3, fault: power_loss", "at: ", "3 is not a duration; write for example"),
    "no fault": ("at: 1s, target: 'node[1]'", "fault: is missing", "kill: "),
    "no target": ("at: 1s, fault: kill", "target: is missing", "write 'node[0]'"),
    "a target in other words": (
        "at: 1s, fault: kill, target: node 1",
        "target: 'node 1'",
        "write for example 'node[0]'",
    ),
    "a target with a zero before": ("at: 1s, fault: kill, target: 'node[01]'", "target: ", "is not a target"),
    "a target with more to it": ('at: 1s, fault: kill, target: "node[1]\n"', "target: ", "is not a target"),
    "a target that is a number": ("at: 1s, fault: kill, target: 1", "target: ", "1 is not text"),
    "a node that is not there": (
        "at: 1s, fault: kill, target: 'node[2]'",
        "target: there is no node[2]",
        "the last of 2 is node[1]",
    ),
    "a power loss of one node": (
        "at: 1s, fault: power_loss, target: 'node[1]'",
        "target: ",
        "write 'node[*]', or leave",
    ),
    "a kill that lasts": (f"{KILL}, for: 1s", "for: ", "takes no duration; leave for out"),
    "a power loss that lasts": ("at: 1s, fault: power_loss, for: 1s", "for: ", "takes no duration; leave for out"),
    "a pause of nothing": (f"{PAUSE}, for: 0s", "for: ", "more than 0s"),
    "pauses that overlap": (f"{PAUSE}, for: 2s, every: 1s", "for: pauses of 2s every 1s", "write at most 1s"),
    "pauses that never end": (f"{PAUSE}, every: 1s", "for: pauses to the end every 1s", "write at most 1s"),
    "times without every": (f"{KILL}, times: 3", "times: ", "write every too"),
    "spread without every": (f"{KILL}, spread: random", "spread: ", "write every too"),
    "spread in another way": (f"{KILL}, every: 1s, spread: evenly", "spread: ", "'evenly' is not one of random"),
    "never": (f"{KILL}, every: 1s, times: 0", "times: ", "the least is 1"),
    "too often": (f"{KILL}, every: 1us, times: 1001", "times: ", "the most is 1000"),
    "too often, uncounted": (f"{KILL}, every: 1us", "every: every 1us strikes 4000000 times", "write a longer every"),
    "all the time": (f"{KILL}, every: 0s", "every: ", "more than 0s"),
    "at the run's end": ("at: 5s, fault: power_loss", "at: 5s is past the end, the run lasts 5s", "write less"),
    "more than fit": (f"{KILL}, every: 1s, times: 5", "times: 5 strikes 1s apart", "write at most 4"),
    "intervals that do not fit": (f"{KILL}, every: 1500ms, times: 3, spread: random", "times: ", "write at most 2"),
    "no interval that fits": (f"{KILL}, every: 5s, spread: random", "every: an interval of 5s", "write at most 4s"),
}


@pytest.mark.parametrize("mistake", FAULTY)
def test_a_mistake_in_a_fault_is_told_with_its_place_and_its_remedy(tmp_path: Path, mistake: str) -> None:
    fault, what, remedy = FAULTY[mistake]
    text = _refusal(_write(tmp_path, _with_fault(fault)))
    assert text.startswith(f"x.yaml:8: faults[0].{what}")
    assert remedy in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ("{at: 1s, fault: kill}", "x.yaml:8: faults: a mapping is not a list"),
        (
            "[kill]",
            "x.yaml:8: faults[0]: 'kill' is not a mapping; write keys below it: at, fault, target, for, every, times",
        ),
        ("[{at: 1s, fault: kill, target: node[1]}]", "x.yaml:8: is not valid YAML: "),
        (f"[{', '.join(['{at: 1s, fault: power_loss}'] * 101)}]", "x.yaml:8: faults: has too many items"),
    ],
)
def test_faults_are_a_list_of_mappings(tmp_path: Path, faults: str, message: str) -> None:
    refusal = _refusal(_write(tmp_path, _changed("thresholds:", f"faults: {faults}\nthresholds:")))
    assert refusal.startswith(message)


def test_brackets_without_quotes_are_told_to_take_quotes(tmp_path: Path) -> None:
    refusal = _refusal(_write(tmp_path, _with_fault("at: 1s, fault: kill, target: node[1]")))
    assert refusal.endswith("put text with brackets in quotes")


def test_only_the_embedded_platform_can_be_struck(tmp_path: Path) -> None:
    path = _write(tmp_path, _with_fault(KILL))
    refusal = _refusal(path, "backend.noop={}")
    assert refusal.startswith("x.yaml:8: faults: only the embedded platform's nodes can be struck, ")
    assert "this run's backend is noop; write backend: {embedded: {nodes: 2}}, or leave faults out" in refusal
    assert load(path, ["backend.noop={}", "faults=[]"]).backend.name == "noop"


def test_a_platform_of_one_node_has_node_0(tmp_path: Path) -> None:
    path = _write(tmp_path, _with_fault(KILL))
    assert "there is no node[1]; the only one is node[0]" in _refusal(path, "backend.embedded.nodes=1")
    assert load(path, ["backend.embedded.nodes=1", "faults.0.target=node[0]"]).faults[0].node == 0


def test_the_runs_end_is_the_rates_own_where_it_has_one(tmp_path: Path) -> None:
    stages = "rate: {stages: [{duration: 3s, target: 5/s}]}"
    path = _write(tmp_path, _with_fault("at: 4s, fault: power_loss").replace("rate: 1000/s", stages))
    assert "faults[0].at: 4s is past the end, the run lasts 1s" in _refusal(path, "duration=1s")
    path.write_text(path.read_text().replace("duration: 5s\n", "", 1))
    assert "faults[0].at: 4s is past the end, the run lasts 3s" in _refusal(path)


def test_a_fault_past_the_end_of_a_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp\n0\n8\n")
    text = _with_fault("at: 4001ms, fault: power_loss").replace("1000/s", "{trace: t.csv, speed: 2}")
    path = _write(tmp_path, text.replace("duration: 5s\n", "", 1))
    assert _refusal(path) == "x.yaml:7: faults[0].at: 4s1ms is past the end, the run lasts 4s1ns; write less"
    assert load(path, ["faults.0.at=3999ms"]).faults[0].at == 3_999 * 10**6


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (KILL, "kill node 1 at 1s"),
        (
            "at: 1s, fault: kill, target: 'node[*]', every: 1s, times: 3",
            "kill a random node 3 times between 1s and 3s, ",
        ),
        (
            "at: 1s, fault: kill, target: 'node[*]', every: 1s, times: 3, spread: random",
            "kill a random node 3 times between 1s and 4s, at random once in each 1s",
        ),
        (f"{KILL}, every: 2s, times: 1, spread: random", "kill node 1 once between 1s and 3s, at random"),
        (f"{KILL}, every: 1s, times: 1", "kill node 1 at 1s"),
        ("at: 2500ms, fault: power_loss", "power loss of every node at 2s500ms"),
        (f"{PAUSE}, for: 2s", "pause node 1 for 2s at 1s"),
        (PAUSE, "pause node 1 to the end at 1s"),
        (f"{PAUSE}, for: 500ms, every: 1s", "pause node 1 for 500ms 4 times between 1s and 4s, every 1s"),
    ],
)
def test_the_plan_says_each_fault_in_words(tmp_path: Path, fault: str, words: str) -> None:
    scenario = load(_write(tmp_path, _with_fault(fault)))
    text = render_plan(scenario, plan(scenario), {})
    assert f"\nfaults        {words}" in text
    assert "faults =" not in text


def test_the_plan_of_a_run_without_faults_says_nothing_of_them(tmp_path: Path) -> None:
    scenario = load(_write(tmp_path, VALID))
    assert "faults" not in render_plan(scenario, plan(scenario), {})


# ---- what is wrong: one line, with file, line and path, and what would be right ----

CURVE = "rate: {curve: {knots: [[0s, 0 CNY], [1s, 9 CNY], [2s, 8 CNY]]}}"

MISTAKES = {
    "an unknown key": ("accounts: 100", "acounts: 100", "x.yaml:5: load.acounts: ", "did you mean accounts?"),
    "an unknown key at the top": ("duration: 5s", "durration: 5s", "x.yaml:2: durration: ", "did you mean duration?"),
    "a duplicate key": ("accounts: 100", "accounts: 100\n  accounts: 9", "x.yaml:6: load.accounts: ", "in line 5"),
    "a duration in other words": (
        "5s",
        "10 sec",
        "x.yaml:2: duration: ",
        "'10 sec' is not a duration; write for example",
    ),
    "a duration without a unit": ("5s", "5", "x.yaml:2: duration: ", "5 is not a duration"),
    "no time at all": ("5s", "0s", "x.yaml:2: duration: ", "more than 0s"),
    "too long a time": ("5s", "25h", "x.yaml:2: duration: ", "at most 24h"),
    "another currency": (
        "accounts: 100",
        "balance: 100 USD",
        "x.yaml:5: load.balance: ",
        "this scenario's currency is CNY",
    ),
    "a negative amount": ("accounts: 100", "balance: -1 CNY", "x.yaml:5: load.balance: ", "not an amount of money"),
    "a ticket of nothing": ("accounts: 100", "ticket: {mean: 0 CNY}", "x.yaml:5: load.ticket.mean: ", "0.01 CNY"),
    "a rate of nothing": ("1000/s", "0/s", "x.yaml:4: load.rate: ", "'0/s' sends nothing"),
    "a negative rate": ("1000/s", "-5/s", "x.yaml:4: load.rate: ", "'-5/s' is not a rate"),
    "a rate without a unit": ("1000/s", "1000", "x.yaml:4: load.rate: ", "1000 is not a rate"),
    "too high a rate": ("1000/s", "50000001/s", "x.yaml:4: load.rate: ", "the highest rate is 50000000/s"),
    "a rate of no form": ("1000/s", "{zzz: 1}", "x.yaml:4: load.rate: ", "write for example 50000/s"),
    "stages of nothing": (
        "1000/s",
        "{stages: [{duration: 9s, target: 0/s}]}",
        "x.yaml:4: load.rate.stages: ",
        "send nothing",
    ),
    "a stage without a target": ("1000/s", "{stages: [{duration: 9s}]}", "load.rate.stages[0].target: ", "is missing"),
    "no stages": ("1000/s", "{start: 5/s}", "x.yaml:4: load.rate.stages: ", "is missing; The stages"),
    "an unknown curve": (
        "1000/s",
        "{curve: double-elven/paper}",
        "load.rate.curve: ",
        "did you mean double-eleven/paper?",
    ),
    "a curve that decreases": (
        "rate: 1000/s",
        CURVE,
        "x.yaml:4: load.rate.curve.knots[2][1]: ",
        "decreases at knot 2s",
    ),
    "a curve that starts late": (
        "1000/s",
        "{curve: {knots: [[1s, 0 CNY], [2s, 9 CNY]]}}",
        "load.rate.curve.knots[0][0]: ",
        "a curve starts at 0s",
    ),
    "a curve of unsorted knots": (
        "1000/s",
        "{curve: {knots: [[0s, 0 CNY], [2s, 9 CNY], [1s, 9 CNY]]}}",
        "load.rate.curve.knots[2][0]: ",
        "knot 1s does not come after 2s",
    ),
    "a flat curve": (
        "1000/s",
        "{curve: {knots: [[0s, 0 CNY], [9s, 0 CNY]]}}",
        "load.rate.curve.knots: ",
        "sends nothing",
    ),
    "a curve of one knot": ("1000/s", "{curve: {knots: [[0s, 0 CNY]]}}", "load.rate.curve.knots: ", "at least 2"),
    "a flat part of a curve": (
        "1000/s",
        "{curve: {knots: [[0s, 0 CNY], [9s, 0 CNY], [99s, 9 CNY]]}, window: [0s, 9s]}",
        "x.yaml:4: load.rate: ",
        "does not rise within its window",
    ),
    "a curve that is too steep": (
        "1000/s",
        "{curve: double-eleven/paper, scale: 1000}",
        "x.yaml:4: load.rate: ",
        "write a lower scale",
    ),
    "a window past the curve": (
        "1000/s",
        "{curve: double-eleven/paper, window: [23h, 24h], scale: .inf}",
        "load.rate.scale: ",
        "inf is not a number",
    ),
    "a window that ends before it begins": (
        "1000/s",
        "{curve: double-eleven/paper, window: [9s, 8s]}",
        "load.rate.window: ",
        "before it has begun",
    ),
    "a window outside the curve": (
        "1000/s",
        "{curve: {knots: [[0s, 0 CNY], [9s, 9 CNY]]}, window: [0s, 10s]}",
        "load.rate.window[1]: ",
        "after the curve, which ends at 9s",
    ),
    "a duration past the window": (
        "1000/s",
        "{curve: double-eleven/paper, window: [0s, 4s]}",
        "x.yaml:2: duration: ",
        "5s is longer than the curve's window lasts, 4s",
    ),
    "a duration past the stages": (
        "1000/s",
        "{stages: [{duration: 4s, target: 5/s}]}",
        "x.yaml:2: duration: ",
        "5s is longer than the stages last, 4s",
    ),
    "a constant rate without a duration": ("duration: 5s\n", "", "x.yaml:1: duration: ", "is missing; a constant rate"),
    "a trace that is not there": ("1000/s", "{trace: gone.csv}", "x.yaml:4: load.rate.trace: ", "no file 'gone.csv'"),
    "bursts that leave nothing": (
        "accounts: 100",
        "arrivals: {mmpp: {burst: 10}}",
        "x.yaml:5: load.arrivals.mmpp.share: ",
        "at most 0.1",
    ),
    "an unknown process": ("accounts: 100", "arrivals: poison", "x.yaml:5: load.arrivals: ", "did you mean poisson?"),
    "a fraction of accounts": (
        "accounts: 100",
        "accounts: 1.5",
        "x.yaml:5: load.accounts: ",
        "1.5 is not a whole number",
    ),
    "accounts that are true": (
        "accounts: 100",
        "accounts: true",
        "x.yaml:5: load.accounts: ",
        "true is not a whole number",
    ),
    "one account": ("accounts: 100", "accounts: 1", "x.yaml:5: load.accounts: ", "the least is 2"),
    "a mix of nothing": ("accounts: 100", "mix: {payment: 0}", "x.yaml:5: load.mix: ", "every weight is 0"),
    "refunds of nothing": ("accounts: 100", "mix: {refund: 1}", "x.yaml:5: load.mix.refund: ", "no payments"),
    "an unknown kind": (
        "accounts: 100",
        "mix: {payments: 1}",
        "x.yaml:5: load.mix.payments: ",
        "did you mean payment?",
    ),
    "balances past 64 bits": (
        "accounts: 100",
        "accounts: 100\n  balance: 90000000000000000 CNY",
        "x.yaml:6: load.balance: ",
        "sum past 64 bits",
    ),
    "more shards than accounts": (
        "accounts: 100",
        "accounts: 3",
        "x.yaml:7: backend.embedded.shards: ",
        "4 shards are more than the 3 accounts",
    ),
    "no nodes": ("nodes: 2", "nodes: 0", "x.yaml:7: backend.embedded.nodes: ", "0 is too little; the least is 1"),
    "more nodes than shards": ("nodes: 2", "nodes: 5", "x.yaml:7: backend.embedded.shards: ", "without one"),
    "a queue of any size": ("nodes: 2", "queue: 5000", "x.yaml:7: backend.embedded.queue: ", "4096 and 8192"),
    "an unknown overflow": ("nodes: 2", "overflow: blok", "backend.embedded.overflow: ", "did you mean block?"),
    "snapshots all the time": (
        "nodes: 2",
        "snapshot_records: 99_999",
        "backend.embedded.snapshot_records: ",
        "the least is 100000",
    ),
    "restarts without end": ("nodes: 2", "restarts: 100_001", "backend.embedded.restarts: ", "the most is 100000"),
    "holds that expire at once": ("nodes: 2", "hold_expiry: 0s", "backend.embedded.hold_expiry: ", "at least 1ms"),
    "an unknown protocol": ("nodes: 2", "protocol: tc", "backend.embedded.protocol: ", "did you mean tcc?"),
    "a balance limit below what customers open with": (
        "nodes: 2",
        "balance_limit: 9999.99 CNY",
        "backend.embedded.balance_limit: ",
        "9999.99 CNY is less than the 10000 CNY",
    ),
    "a limit that nobody gives money back for": (
        "nodes: 2",
        "protocol: unsafe_dual_write, balance_limit: 20000 CNY",
        "backend.embedded.balance_limit: ",
        "write protocol: outbox or tcc",
    ),
    "a limit where shards move": (
        "nodes: 2",
        "nodes: 2, balance_limit: 20000 CNY, rebalance: auto",
        "backend.embedded.balance_limit: ",
        "leave balance_limit or rebalance out",
    ),
    "a limit that sub-accounts would multiply": (
        "nodes: 2",
        "nodes: 2, balance_limit: 20000 CNY, hot_account: {split: 4}",
        "backend.embedded.balance_limit: ",
        "leave balance_limit or hot_account out",
    ),
    "an unknown durability": ("nodes: 2", "durability: grup", "backend.embedded.durability: ", "did you mean group?"),
    "two backends": ("embedded:", "noop: {}\n  embedded:", "x.yaml:6: backend: ", "embedded and noop are named"),
    "an unknown backend": ("embedded:", "embeded:", "x.yaml:7: backend.embeded: ", "did you mean embedded?"),
    "a backend that is no mapping": (
        "embedded: {nodes: 2, shards: 4}",
        "noop: 5",
        "backend.noop: ",
        "5 is not a mapping",
    ),
    "no backend": ("\n  embedded: {nodes: 2, shards: 4}", " {}", "x.yaml:6: backend: ", "none is named"),
    "an unknown policy": (
        "name: tiny",
        "name: tiny\nbalancer: {policy: p2}",
        "x.yaml:2: balancer.policy: ",
        "did you mean p2c?",
    ),
    "a threshold that does not parse": (
        "count == 0",
        "fast please",
        "x.yaml:9: thresholds.dropped[0]: ",
        "is not a threshold",
    ),
    "a threshold on no metric": ("dropped:", "droped:", "x.yaml:9: thresholds.droped: ", "did you mean dropped?"),
    "a threshold that is a number": ("count == 0", "0", "x.yaml:9: thresholds.dropped: ", "0 is not a list"),
    "no name": ("name: tiny\n", "", "x.yaml:1: name: ", "is missing"),
    "a name that is a number": (
        "name: tiny",
        "name: 2019",
        "x.yaml:1: name: ",
        '2019 is not text; put it in quotes: "2019"',
    ),
    "an empty name": ("name: tiny", 'name: ""', "x.yaml:1: name: ", "is empty"),
    "a negative seed": ("name: tiny", "name: tiny\nseed: -1", "x.yaml:2: seed: ", "the least is 0"),
    "a currency of the street": (
        "name: tiny",
        "name: tiny\ncurrency: yuan",
        "x.yaml:2: currency: ",
        "three capital letters",
    ),
    "half a character": ("name: tiny", 'name: "\\ud800"', "x.yaml:1: name: ", "surrogate"),
    "an escape past Unicode": ("name: tiny", 'name: "\\UFFFFFFFF"', "x.yaml:1: ", "is not valid YAML"),
    "a load that is a list": ("rate: 1000/s\n  accounts: 100", "- 1", "x.yaml:3: load: ", "a list is not a mapping"),
    "an anchor": ("name: tiny", "name: &a tiny", "x.yaml:1: ", "anchors and aliases"),
    "a tag": ("name: tiny", "name: !!python/name:os.system tiny", "x.yaml:1: ", "tags"),
    "a tab": ("  rate: 1000/s", "\trate: 1000/s", "x.yaml:4: ", "indent with spaces"),
    "a bracket left open": ("{nodes: 2, shards: 4}", "{nodes: 2", "x.yaml:8: ", "is not valid YAML"),
    "two documents": ("backend:", "---\nbackend:", "x.yaml:6: ", "single document"),
    "a key that is a list": ("name: tiny", "name: tiny\n[a, b]: 5", "x.yaml:2: ", "a key is one word"),
    "a merge key": ("nodes: 2", "<<: {nodes: 2}", "x.yaml:7: backend.embedded.<<: ", "no such key"),
    "a control character": ("name: tiny", "name: ti\x07ny", "x.yaml:1: ", "not allowed in YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_its_place_and_its_remedy(tmp_path: Path, mistake: str) -> None:
    old, new, where, remedy = MISTAKES[mistake]
    text = _refusal(_write(tmp_path, _changed(old, new)))
    assert "\n" not in text
    assert text.startswith("x.yaml:")
    assert where in text
    assert remedy in text


def test_the_valid_scenario_that_the_mistakes_are_made_in_is_valid(tmp_path: Path) -> None:
    assert load(_write(tmp_path, VALID)).name == "tiny"


def test_several_mistakes_are_told_one_a_line_in_the_files_order(tmp_path: Path) -> None:
    text = VALID.replace("5s", "5").replace("accounts: 100", "acounts: 100").replace("nodes: 2", "nodes: 99")
    lines = _refusal(_write(tmp_path, text)).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["x.yaml:2", "x.yaml:5", "x.yaml:7"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(VALID)),
    st.integers(0, 12),
    st.text(max_size=6) | st.sampled_from(list("{}[]:,-&*!|>'\"%@`#?\n\t ")),
)
def test_whatever_is_done_to_a_file_it_loads_or_is_refused_with_lines(
    tmp_path: Path, start: int, length: int, inserted: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes((VALID[:start] + inserted + VALID[start + length :]).encode("utf-8", "surrogatepass"))
    try:
        load(path)
    except ScenarioError as error:
        assert all(line.startswith(f"{path}:") for line in str(error).split("\n"))  # noqa: PT017  both ways are right


def test_an_alias_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    levels = "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "x.yaml:1: anchors and aliases" in _refusal(_write(tmp_path, "a: &a [lol, lol]\n" + levels))


def test_deep_nesting_is_refused_and_not_recursed_into(tmp_path: Path) -> None:
    text = _refusal(_write(tmp_path, "name: " + "[" * 100_000))
    assert text == "x.yaml:1: is nested more than 32 levels deep; no scenario needs that"


def test_a_file_that_is_not_there_is_named_and_a_likely_one_offered(tmp_path: Path) -> None:
    (tmp_path / "peak.yaml").write_text(VALID)
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path / "peek.yaml")
    assert str(caught.value) == f"{tmp_path}/peek.yaml: there is no such file; did you mean {tmp_path}/peak.yaml?"


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_of_more_than_1_mib_is_refused(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in _refusal(_write(tmp_path, VALID + "#" * SIZE_LIMIT))


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: a\nseed: \xff\n")
    assert _refusal(path) == "x.yaml:2: is not UTF-8 text; save the file as UTF-8"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words\n"])
def test_what_is_no_mapping_is_no_scenario(tmp_path: Path, text: str) -> None:
    refusal = _refusal(_write(tmp_path, text))
    assert refusal.startswith("x.yaml:1: is ")
    assert "\n" not in refusal


def test_a_bad_row_of_a_trace_is_told_with_the_traces_own_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp,amount,payer,payee\n0,1.00,1,1\n1,free,2,2\n")
    refusal = _refusal(_write(tmp_path, _changed("1000/s", "{trace: t.csv}")))
    assert refusal.startswith("t.csv:3: ")
    assert "\n" not in refusal


def test_a_duration_past_the_end_of_the_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("timestamp\n0\n8\n")
    refusal = _refusal(_write(tmp_path, _changed("1000/s", "{trace: t.csv, speed: 2}")))
    assert refusal.startswith("x.yaml:2: duration: 5s is longer than the trace lasts at speed 2, 4s")


def test_a_scenario_in_another_currency_cannot_be_built_with_amounts_read_as_yuan() -> None:
    data = {"name": "a", "currency": "USD", "duration": "1s", "load": {"rate": "1/s", "balance": "5 USD"}}
    assert Scenario.from_data(data).load.balance == 500
    with pytest.raises(ValueError, match="is in USD"):
        Scenario.model_validate(data)


# ---- precedence ----


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    path = _write(tmp_path, _changed("name: tiny", "name: tiny\nseed: 2"))
    assert load(_write(tmp_path, VALID)).seed == 1
    path = _write(tmp_path, _changed("name: tiny", "name: tiny\nseed: 2"))
    assert load(path).seed == 2
    assert load(path, environ={"SIM_SEED": "3"}).seed == 3
    assert load(path, ["seed=4"], {"SIM_SEED": "3"}).seed == 4
    assert load(path, ["seed=4", "seed=5"], {"SIM_SEED": "3"}).seed == 5


def test_the_environment_nests_with_double_underscores_and_leaves_others_alone(tmp_path: Path) -> None:
    environ = {
        "SIM_LOAD__ACCOUNTS": "1_000",
        "SIM_DEBUG": "1",
        "HOME": "/",
        "SIMPLE": "x",
        "SIM_LOAD__FOLLOW_UP__AFTER": "2s",
    }
    scenario = load(_write(tmp_path, VALID), environ=environ)
    assert (scenario.load.accounts, scenario.load.follow_up.after) == (1_000, 2 * 10**9)


def test_an_unknown_variable_is_named_with_the_nearest_key(tmp_path: Path) -> None:
    refusal = _refusal(_write(tmp_path, VALID), environ={"SIM_LOAD__ACOUNTS": "5"})
    assert refusal == "SIM_LOAD__ACOUNTS: load.acounts: there is no such key; did you mean accounts?"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("load.acounts=5", "--set load.acounts=5: load.acounts: there is no such key; did you mean accounts?"),
        ("bogus.deeper.still=5", "--set bogus.deeper.still=5: bogus: there is no such key"),
        ("seed.x=5", "--set seed.x=5: seed: a mapping is not a whole number"),
        ("load.accounts=", "--set load.accounts=: load.accounts: '' is not a whole number"),
        ("load.rate=[1", "--set load.rate=[1: is not valid YAML"),
        ("load.rate=*a", "--set load.rate=*a: anchors and aliases"),
        ("load.mix={payment: 1, payment: 2}", "has a key twice"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_written(tmp_path: Path, override: str, message: str) -> None:
    refusal = _refusal(_write(tmp_path, VALID), override)
    assert message in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize("override", ["load.accounts", "=5", "load..accounts=5"])
def test_an_override_that_is_none_is_a_wrong_use_of_the_command_line(tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match=f"^--set {override}: write it as path=value"):
        load(_write(tmp_path, VALID), [override])


def test_a_mistake_in_the_file_keeps_its_line_beside_an_override(tmp_path: Path) -> None:
    refusal = _refusal(_write(tmp_path, _changed("nodes: 2", "nodes: 0")), "backend.embedded.shards=9")
    assert refusal.startswith("x.yaml:7: backend.embedded.nodes: ")


def test_naming_another_backend_replaces_the_one_before(tmp_path: Path) -> None:
    path = _write(tmp_path, VALID)
    assert load(path, ["backend.noop={}"]).backend.name == "noop"
    targets = "backend.http.targets=['http://127.0.0.1:8080']"
    assert load(path, ["backend.noop={}", targets]).backend.name == "http"
    back = load(path, ["backend.noop={}", "backend.embedded.nodes=3"]).backend
    assert back.embedded is not None
    assert (back.embedded.nodes, back.embedded.shards) == (3, 16)


def test_an_override_within_the_same_form_changes_one_field(tmp_path: Path) -> None:
    embedded = load(_write(tmp_path, VALID), ["backend.embedded.nodes=1"]).backend.embedded
    assert embedded is not None
    assert (embedded.nodes, embedded.shards) == (1, 4)


def test_a_rate_is_replaced_by_another_form_and_changed_within_its_own(tmp_path: Path) -> None:
    path = _write(tmp_path, _changed("1000/s", "{curve: double-eleven/paper, window: [0s, 10s]}"))
    assert load(path, ["load.rate=7/s"]).load.rate == 7.0
    half = load(path, ["load.rate.scale=0.5"]).load.rate
    assert isinstance(half, CurveRate)
    assert (half.scale, half.window) == (0.5, (0, 10**10))
    staged = load(path, ["load.rate.stages=[{duration: 9s, target: 5/s}]", "load.rate.stages.0.target=6/s"]).load.rate
    assert isinstance(staged, StagedRate)
    assert staged.stages[0].target == 6.0


def test_an_override_of_one_weight_leaves_the_default_mix_otherwise(tmp_path: Path) -> None:
    mix = load(_write(tmp_path, VALID), ["load.mix.refund=5"]).load.mix
    assert (mix.payment, mix.refund, mix.authorize) == (97, 5, 2)


def test_durability_and_arrivals_can_be_set_deep_below_a_word(tmp_path: Path) -> None:
    overrides = ["backend.embedded.durability.interval=5ms", "load.arrivals.mmpp.burst=2"]
    scenario = load(_write(tmp_path, VALID), overrides)
    assert scenario.backend.embedded is not None
    assert scenario.to_data()["backend"]["embedded"]["durability"] == {"interval": "5ms"}
    assert scenario.load.mmpp == Mmpp(burst=2.0)


def test_origins_tell_where_each_field_was_written(tmp_path: Path) -> None:
    path = _write(tmp_path, VALID)
    origins = load_with_origins(path, ["seed=4"], {"SIM_CLOCK": "virtual"}).origins
    assert (origins["seed"], origins["clock"]) == ("--set seed=4", "SIM_CLOCK")
    assert origins["backend.embedded.nodes"] == f"{path}:7"


# ---- dump ----

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = st.sampled_from(
    ["on", "1e3", "0o7", "0x1F", "1_0", "~", "null", "2019-11-11", "- a", "a: b", "&a", "*a", "!t", "#", "'", "%"]
)
DURATION = st.integers(1, 3_600 * 10**9).map(lambda ns: f"{ns}ns")
RATE = st.floats(1e-3, 5e7).map(lambda per_s: f"{per_s:.9f}/s")


@st.composite
def _rates(draw: st.DrawFn) -> Any:  # noqa: ANN401  YAML data
    form = draw(st.sampled_from(["constant", "stages", "named", "knots"]))
    if form == "constant":
        return draw(RATE)
    if form == "stages":
        stage = st.fixed_dictionaries({"duration": DURATION, "target": RATE})
        return {"start": draw(RATE), "stages": draw(st.lists(stage, min_size=1, max_size=4))}
    scale = draw(st.floats(1e-3, 1))
    if form == "named":
        return {"curve": draw(st.sampled_from(["double-eleven/paper", "double-eleven/2019"])), "scale": scale}
    steps = draw(st.lists(st.tuples(st.integers(10**9, 10**10), st.integers(1, 10**6)), min_size=1, max_size=5))
    knots, at_ns, value = [["0s", "0 CNY"]], 0, 0
    for step_ns, rise in steps:
        at_ns, value = at_ns + step_ns, value + rise
        knots.append([f"{at_ns}ns", f"{value // 100}.{value % 100:02d} CNY"])
    return {"curve": {"knots": knots}, "scale": scale}


FAULT = st.one_of(
    st.fixed_dictionaries({"at": st.just("0s"), "fault": st.just("power_loss")}),
    st.fixed_dictionaries(
        {
            "at": st.just("0s"),
            "for": DURATION,
            "fault": st.just("pause"),
            "target": st.sampled_from(["node[0]", "node[1]", "node[*]"]),
        },
    ),
    st.fixed_dictionaries(
        {
            "at": st.just("0s"),
            "fault": st.just("kill"),
            "target": st.sampled_from(["node[0]", "node[1]", "node[*]"]),
            "every": st.just("1ns"),
            "times": st.just(1),
        },
        optional={"spread": st.just("random")},
    ),
)


@st.composite
def _scenarios(draw: st.DrawFn) -> dict[str, Any]:
    rate = draw(_rates())
    load_data = {
        "rate": rate,
        "arrivals": draw(st.sampled_from(["poisson", "regular", "mmpp", {"mmpp": {"burst": 1.5, "share": 0.3}}])),
        "ticket": {"mean": f"{draw(st.integers(3, 10**6))} CNY", "sigma": draw(st.floats(0.01, 3))},
        "accounts": draw(st.integers(16, 10**6)),
        "mix": {"payment": draw(st.floats(0.1, 100)), "authorize": draw(st.floats(0, 5))},
    }
    data: dict[str, Any] = {
        "name": draw(TEXT.filter(bool) | WORDS),
        "description": draw(TEXT | WORDS),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "load": load_data,
        "backend": draw(
            st.sampled_from(
                [
                    {"noop": {}},
                    {"embedded": {"durability": {"interval": "7ms"}, "restarts": 0}},
                    {"http": {"targets": ["http://a:1"]}},
                ]
            )
        ),
        "thresholds": {"response_time": ["p(99) < 50ms", "max < 1s"], "ok": "rate > 99%"},
    }
    data |= {"duration": draw(DURATION)} if isinstance(rate, str) else {}
    if "embedded" in data["backend"]:
        data["faults"] = draw(st.lists(FAULT, max_size=3))
    return data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=_scenarios())
def test_a_dumped_scenario_loads_as_an_equal_one(tmp_path: Path, data: dict[str, Any]) -> None:
    scenario = Scenario.from_data(data)
    again = load(_write(tmp_path, dump_scenario(scenario)))
    assert again == scenario
    assert dump_scenario(again) == dump_scenario(scenario)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_reads_back_from_its_dump(path: Path, tmp_path: Path) -> None:
    scenario = load(path)
    assert load(_write(tmp_path, dump_scenario(scenario))) == scenario


# ---- schema and plan ----


def test_the_schema_describes_every_field_and_writes_defaults_with_their_units() -> None:
    schema = Scenario.schema_for_editors()
    for name, part in [("Scenario", schema), *schema["$defs"].items()]:
        for key, field in part.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, f"{name}.{key}"
    assert schema["$defs"]["Dispatcher"]["properties"]["patience"]["default"] == "5s"
    assert schema["$defs"]["Load"]["properties"]["balance"]["default"] == "10000 CNY"
    assert schema["$defs"]["Embedded"]["properties"]["hold_expiry"]["default"] == "10m"
    assert {"for", "every", "spread"} < set(schema["$defs"]["PlannedFault"]["properties"])
    assert "for_" not in schema["$defs"]["PlannedFault"]["properties"]
    assert schema["$defs"]["PlannedFault"]["properties"]["fault"]["enum"][:3] == ["kill", "power_loss", "pause"]
    assert schema["$defs"]["Load"]["properties"]["ticket"]["default"]["mean"] == "100 CNY"


def test_the_schemas_patterns_take_what_the_parsers_take() -> None:
    definitions = Scenario.schema_for_editors()["$defs"]
    duration = definitions["Stage"]["properties"]["duration"]["pattern"]
    assert re.search(duration, "1m30s")
    assert not re.search(duration, "10 sec")


def test_a_plan_adds_up(tmp_path: Path) -> None:
    planned = plan(load(_write(tmp_path, VALID)))
    assert planned.transactions_expected == pytest.approx(5_000)
    assert (planned.duration_s, planned.mean_per_s, planned.peak_per_s) == pytest.approx((5, 1_000, 1_000))
    assert planned.value_minor == 5_000 * 10_000
    assert planned.disk_bytes == 5_000 * (80 + 24)
    assert planned.memory_bytes == 100 * 16 + 4 * 131_072 * 136 + 2 * 65_536 * 96 + 4 * 150_000_000
    assert planned.run_s == pytest.approx(9, abs=0.01)


def test_a_plan_of_noop_has_no_journal_and_no_shards(tmp_path: Path) -> None:
    planned = plan(load(_write(tmp_path, VALID), ["backend.noop={}"]))
    assert (planned.disk_bytes, planned.memory_bytes) == (5_000 * 24, 300_000_000)


def test_the_plan_lists_thresholds_and_overridden_defaults_with_their_origin(tmp_path: Path) -> None:
    path = _write(tmp_path, VALID)
    loaded = load_with_origins(path, ["load.arrivals.mmpp.burst=2"])
    text = render_plan(loaded.scenario, plan(loaded.scenario), loaded.origins)
    assert "dropped         count == 0" in text
    assert f"load.accounts = 100  (default 10000000; {path}:5)" in text
    assert "load.arrivals.mmpp.burst = 2.0  (default poisson; --set load.arrivals.mmpp.burst=2)" in text
    assert "seed =" not in text


def test_a_default_written_out_is_not_listed_as_overridden(tmp_path: Path) -> None:
    scenario = load(_write(tmp_path, VALID), ["seed=1", "backend.noop={}"])
    assert [path for path, _, _ in overridden_defaults(scenario)] == ["backend", "load.accounts"]


def test_yaml_that_is_dumped_has_neither_aliases_nor_tags() -> None:
    text = dump_scenario(load(SHIPPED[0]))
    assert not [event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, yaml.AliasEvent)]
    assert "!!" not in text
