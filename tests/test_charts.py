"""Charts: that they stay small and lose no peak, that money and time are right in them, and that what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fake_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.report import folder
from simulator.report.asked import asked_in
from simulator.report.charts import charts_of, latency, load, money, spread
from simulator.report.charts.axis import TimeAxis, logarithmic, percentile
from simulator.report.charts.downsample import BINS_MAX, POINTS_MAX, edges, kept, numbers, pooled
from simulator.report.charts.marks import Band, Moment, drawn, marks_of
from simulator.report.charts.series import TimeSeries
from simulator.report.hlog import Intervals, curve_of

if TYPE_CHECKING:
    from simulator.report.charts.chart import Chart
    from simulator.report.folder import Columns

values_of_a_line = st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(float("nan"))), min_size=1, max_size=400)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.write(tmp_path / "run", seconds=12)


def by_key(charts: list[Chart]) -> dict[str, Chart]:
    return {chart.key: chart for chart in charts}


# Few points.


@settings(deadline=None)
@given(values_of_a_line, st.integers(2, 50))
def test_thinning_keeps_order_and_every_extreme(values: list[float], limit: int) -> None:
    y = np.array(values)
    some = kept(y, limit)
    assert len(some) <= max(limit, 2)
    assert (np.diff(some) > 0).all()
    if not np.isnan(y).all():
        assert np.nanmax(y[some]) == np.nanmax(y)
        assert np.nanmin(y[some]) == np.nanmin(y)


def test_thinning_keeps_a_peak_and_a_dip_of_one_window() -> None:
    y = np.full(100_000, 100.0)
    y[31_234], y[77_777] = 9_999, 0
    some = kept(y)
    assert len(some) <= POINTS_MAX
    assert {31_234, 77_777} <= set(some.tolist())


def test_thinning_keeps_a_gap() -> None:
    y = np.r_[np.ones(5_000), np.full(5_000, np.nan)]
    some = kept(y)
    assert np.isnan(y[some]).any()
    assert some[-1] > 9_000


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 60))
def test_groups_cover_every_row_once(rows: int, groups: int) -> None:
    bounds = edges(rows, groups)
    assert bounds[0] == 0
    assert bounds[-1] == rows
    assert len(bounds) - 1 == min(groups, rows)
    assert (np.diff(bounds) > 0).all()


def test_pooling_keeps_peaks_and_sums_counts() -> None:
    matrix = np.array([[1.0, 9.0, np.nan, np.nan, 2.0, 3.0]])
    assert pooled(matrix, [0, 2, 4, 6], np.nanmax).tolist()[0][0] == 9
    assert np.isnan(pooled(matrix, [0, 2, 4, 6], np.nanmax)[0, 1])
    assert pooled(matrix, [0, 2, 4, 6], np.nansum)[0, 2] == 5


def test_numbers_are_short_and_gaps_are_null() -> None:
    found = numbers(np.array([1.0, 0.123456789, np.nan, 2e15]))
    assert json.dumps(found) == "[1, 0.1234568, null, 2000000000000000]"


def test_a_long_run_with_many_nodes_and_shards_stays_small(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", seconds=4)
    seconds, nodes, shards = 5_000, 20, 64
    names = ["second", "offered", *(f"node{n}_sent" for n in range(nodes)), *(f"shard{s}_ok" for s in range(shards))]
    rows = [",".join(map(str, [second, nodes, *[1] * nodes, *[3] * shards])) for second in range(seconds)]
    (run / "timeseries.csv").write_text("\n".join([",".join(names), *rows]) + "\n", encoding="utf-8")
    charts = by_key(charts_of(folder.read(run)))
    for chart in charts.values():
        for trace in chart.data:
            points = BINS_MAX + 1 if trace["type"] == "heatmap" else POINTS_MAX
            assert len(trace["x"]) <= points, chart.key
    shares = charts["shares"]
    assert len(shares.data) == 12
    assert shares.data[-1]["name"] == "the other 9 nodes"
    assert sum(y for trace in shares.data for y in trace["y"] if y) == seconds * nodes
    assert sum(len(json.dumps(chart.figure())) for chart in charts.values()) < 2**20


def test_who_answered_is_drawn_by_name_and_what_nobody_asked_for_is_not() -> None:
    columns: Columns = {"second": [0, 1, 2], "answerer0_answered": [10, 0, 10], "answerer1_answered": [10, 20, 10]}
    series = TimeSeries.of(columns)
    chart = spread.answerers(series, TimeAxis.over(series), ["red", "blue"])
    assert [trace["name"] for trace in chart.data] == ["red", "blue"]
    assert [trace["y"] for trace in chart.data] == [[10, 0, 10], [10, 20, 10]]
    assert chart.numbers is not None
    assert chart.numbers.rows[0][:4] == ("red", "33.3%", "0.0%", "50.0%")
    assert spread.answerers(series, TimeAxis.over(series), []).empty


# Time.


def test_a_long_run_has_hours_and_minutes_and_a_short_one_seconds() -> None:
    assert TimeAxis(60).span() == [0, 60]
    assert not TimeAxis(60).clock
    assert TimeAxis(86_400).clock
    assert TimeAxis(86_400).layout()["type"] == "date"


def test_counts_of_windows_of_any_length_are_drawn_as_rates() -> None:
    series = TimeSeries.of({"second": [0, 0.1, 0.2], "window_s": [0.1, 0.1, 60.0], "offered": [10, 20, 600]})
    assert series.per_second("offered").tolist() == pytest.approx([100, 200, 10])
    assert series.end_s == pytest.approx(60.2)


def test_the_last_moment_is_left_out_and_a_stalled_end_is_not() -> None:
    columns: Columns = {"second": [0, 1, 2], "offered": [100, 100, 0], "completed": [100, 99, 1]}
    assert TimeSeries.of(columns).without_the_last_moment().rows == 2
    columns["offered"] = [100, 100, 100]  # asked, and not answered: that is what the chart is for
    assert TimeSeries.of(columns).without_the_last_moment().rows == 3


def test_axes_have_plain_numbers() -> None:
    assert logarithmic("ms", 0.5, 60)["ticktext"][:5] == ["0.1", "0.2", "0.5", "1", "2"]
    assert [percentile(x) for x in (1, 2, 10, 100, 1_000, 1e5)] == ["0%", "50%", "90%", "99%", "99.9%", "99.999%"]


# What lies over all charts.


def test_a_fault_is_a_band_until_it_is_over() -> None:
    bands, moments = marks_of([
        {"t_s": 1.0, "event": "fault", "fault": "kill", "node": 1},
        {"t_s": 2.0, "event": "fault", "fault": "pause", "node": 0},
        {"t_s": 2.5, "event": "fault_over", "fault": "pause", "node": 0},
        {"t_s": 3.0, "event": "node_died", "node": 1},
        {"t_s": 4.0, "event": "node_ready", "node": 1},
        {"t_s": 5.0, "event": "fault", "fault": "slow", "nodes": 3},
    ])  # fmt: skip
    assert bands == [Band("kill node 1", 1.0, 4.0), Band("pause node 0", 2.0, 2.5), Band("slow 3 nodes", 5.0, None)]
    assert moments == [Moment("node died", 3.0)]
    shapes = drawn(bands, moments, TimeAxis(60))["shapes"]
    assert [shape["x1"] for shape in shapes] == [4.0, 2.5, 60.0, 3.0]


def test_another_nodes_return_ends_no_band() -> None:
    bands, _ = marks_of([
        {"t_s": 1.0, "event": "fault", "fault": "power_loss", "node": 0},
        {"t_s": 1.0, "event": "fault", "fault": "power_loss", "node": 1},
        {"t_s": 2.0, "event": "node_ready", "node": 1},
    ])  # fmt: skip
    assert [(band.label, band.stop_s) for band in bands] == [("power loss node 0", None), ("power loss node 1", 2.0)]


def test_what_comes_every_second_marks_nothing_and_marks_are_bounded() -> None:
    assert marks_of([{"t_s": 1.0, "event": "dead_letters"}, {"event": "no time"}]) == ([], [])
    many = [{"t_s": float(at), "event": "ejected", "node": at} for at in range(1_000)]
    assert len(marks_of(many)[1]) == 40


def test_knots_of_a_named_curve_lie_on_the_target_within_its_window() -> None:
    asked = asked_in("load:\n  rate: {curve: double-eleven/paper, window: [30s, 2000s]}\n")
    assert asked.knots_s == (30.0, 1_770.0)
    own = asked_in("load:\n  rate: {curve: {knots: [[0s, 0 CNY], [2s, 100 CNY], [9s, 200 CNY]]}}\n")
    assert own.knots_s == (0.0, 2.0, 9.0)
    series = TimeSeries.of({"second": list(range(10)), "target": [10 * at for at in range(10)], "offered": [1] * 10})
    knots = load.rates(series, TimeAxis(10), own.knots_s).data[-1]
    assert (knots["x"], knots["y"]) == ([0, 2, 9], [0, 20, 90])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "load: 3", "load: {rate: {curve: {knots: [3, [x]]}}}", "!!python/none"]
)
def test_what_a_scenario_does_not_say_is_not_known(text: str) -> None:
    assert asked_in(text) == asked_in("")


# Times.


def intervals(counted: dict[tuple[int, int], int], windows: int = 10, length_s: float = 1.0) -> Intervals:
    """Intervals with so many values (ns) in each window."""
    at, values = (np.array([key[part] for key in counted], np.int64) for part in (0, 1))
    lengths = np.full(windows, length_s)
    return Intervals(
        np.arange(windows, dtype=np.float64) * length_s, lengths, at, values, np.array(list(counted.values()), np.int64)
    )


@settings(deadline=None)
@given(
    st.dictionaries(st.tuples(st.integers(0, 999), st.integers(0, 10**12)), st.integers(1, 10**9), min_size=1),
    st.floats(0.1, 60.0),
)
def test_every_transaction_is_in_one_cell_of_the_heat_map(counted: dict[tuple[int, int], int], length_s: float) -> None:
    z, edges_s, bounds = latency.binned(intervals(counted, 1_000, length_s))
    assert z.shape == (len(bounds) - 1, len(edges_s) - 1)
    assert len(edges_s) - 1 <= BINS_MAX
    assert np.nansum(z * np.diff(edges_s)) == pytest.approx(sum(counted.values()))


def test_a_slow_second_stands_in_its_own_column_and_row() -> None:
    z, edges_s, bounds = latency.binned(intervals({(0, 1_000_000): 900, (3, 500_000_000): 1}))
    row, column = np.argwhere(z == 1.0)[0]
    assert edges_s[column] == 3
    assert bounds[row] <= 500 <= bounds[row + 1]


def test_the_quantile_function_ends_at_the_maximum_and_never_falls() -> None:
    curve = curve_of(np.array([1_000_000, 2_000_000, 9_000_000, 10_000_000]), np.array([98, 1, 1, 0]))
    assert curve[-1] == (100.0, 9.0)
    assert curve[0][1] == 1.0
    assert [y for _, y in curve] == sorted(y for _, y in curve)


def test_theory_and_a_baseline_are_laid_over_the_percentiles(run: Path) -> None:
    summary = fake_run.summary(run) | {"theory": {"name": "M/M/4, 90% busy", "curve": [[2, 1.0], [10, 3.5], [1, None]]}}
    fake_run.write_json(run / "summary.json", summary)
    chart = by_key(charts_of(folder.read(run)))["percentiles"]
    theory = next(trace for trace in chart.data if trace["name"] == "theory: M/M/4, 90% busy")
    assert (theory["x"], theory["y"]) == ([2, 10], [1, 3.5])
    assert "theory: M/M/4" in chart.reading


# Spread and money.


def test_a_hot_shard_is_told_first() -> None:
    columns: dict[str, list[Any]] = {"second": [0, 1], "shard0_ok": [10, 10], "shard1_ok": [5, 90], "shard2_ok": [0, 0]}
    chart = spread.shard_rates(TimeSeries.of(columns), TimeAxis(2))
    assert chart.numbers is not None
    assert chart.numbers.rows[0] == ("shard 1", "90/s", "1.0 s")
    assert chart.data[0]["z"][1] == [5, 90]


def test_of_thousands_of_shards_the_busiest_of_each_group_is_drawn() -> None:
    columns: dict[str, list[Any]] = {"second": [0], "shard0to63_max_ok": [7], "shard64to127_max_ok": [9]}
    chart = spread.shard_rates(TimeSeries.of(columns), TimeAxis(1))
    assert chart.title.endswith("of each group its busiest")
    assert chart.data[0]["y"] == [31.5, 95.5]


def test_money_adds_up_to_the_value_settled(run: Path) -> None:
    read = folder.read(run)
    chart = by_key(charts_of(read))["value"]
    settled = next(trace for trace in chart.data if trace["name"] == "settled")
    assert settled["y"][-1] == pytest.approx(read.summary["value"]["settled_minor"] / 100, rel=1e-6)
    assert settled["x"][-1] == 12  # what is settled by the end of a second stands at its end


def test_what_is_in_doubt_at_the_end_is_what_ended_unknown() -> None:
    columns: dict[str, list[Any]] = {
        "second": [0, 1, 2], "sent": [10, 10, 0], "ok": [4, 12, 1], "rejected": [1, 0, 0], "failed": [0, 0, 0],
    }  # fmt: skip
    chart = money.in_doubt(TimeSeries.of(columns), TimeAxis(3))
    assert chart.data[0]["y"] == [5, 3, 2]


# What is missing.


def test_an_older_folder_has_the_charts_it_can_have_and_says_why_not_the_others(run: Path) -> None:
    charts = by_key(charts_of(folder.read(run)))
    assert not any(
        charts[key].empty for key in ("rate", "response", "heat", "percentiles", "shares", "shard-heat", "value")
    )
    for key in ("queues", "commits", "shard-queues", "held"):
        assert charts[key].empty
        assert charts[key].missing


def test_nothing_at_all_makes_no_chart_and_no_error() -> None:
    empty = folder.RunFolder(
        Path(), {}, {}, {}, {}, {}, [], ""
    )  # fmt: skip
    assert all(chart.empty for chart in charts_of(empty))


def test_each_chart_has_its_unit_how_to_read_it_and_its_figures(run: Path) -> None:
    for chart in charts_of(folder.read(run)):
        assert chart.unit
        assert chart.reading.endswith(".")
        if not chart.empty:
            assert chart.numbers is not None
            assert chart.numbers.rows
            assert chart.layout["yaxis"]["title"]["text"] == chart.unit
            assert chart.layout["xaxis"]["title"]["text"]
