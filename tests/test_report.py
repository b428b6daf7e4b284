"""The report: its sentence, its charts' data, what it refuses, and the page as a browser shows it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import fake_run
import pytest
from playwright.sync_api import sync_playwright

from simulator.errors import SimError
from simulator.report import folder, render, wording
from simulator.report.figures import figures, thin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Dialog, Page

MIB = 2**20
BAD_NAME = "<script>alert(1)</script>"
CHROMIUM = shutil.which("chromium")
CHARTS = {"rate", "response", "percentiles", "in-flight", "shares", "shards", "value"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.write(tmp_path / "run", seconds=12)


@pytest.fixture
def summary(run: Path) -> dict[str, Any]:
    return fake_run.summary(run)


# The sentence.


def test_a_pass_says_what_was_held(summary: dict[str, Any]) -> None:
    summary["rates"] = {"offered_per_s": 87_500, "completed_per_s": 87_500.4, "peak_offered_per_s": 91_234}
    summary["counts"]["offered"] = 87_500 * 60
    summary["response_time_ms"]["p99"] = 8.1
    expected = "PASS: held 87,329/s (<0.1% refused) for 1m00s (peak 91,234/s) at p99 8.1 ms; every yuan accounted for"
    assert wording.sentence(summary) == expected


def test_anomalies_are_named_and_counted(summary: dict[str, Any]) -> None:
    summary["verdict"] = "fail"
    summary["audit"] = {"verdict": "anomalies", "anomalies": {"lost": 1, "torn": 2, "doubled": 0}}
    assert wording.sentence(summary) == "FAIL: audit found 3 anomalies (lost 1, torn 2)"


def test_a_crossed_threshold_is_told_with_what_was_seen(summary: dict[str, Any]) -> None:
    summary["verdict"] = "fail"
    summary["thresholds"][0] |= {"observed": 73.0, "passed": False}
    assert wording.sentence(summary) == "FAIL: response time p(99) < 50ms was crossed: 73 ms"
    summary["thresholds"][1] |= {"observed": 4, "passed": False}
    assert wording.sentence(summary).endswith("73 ms (and 1 more threshold)")


def test_an_invalid_run_says_why(summary: dict[str, Any]) -> None:
    summary["verdict"] = "invalid"
    summary["validity"] = {"verdict": "generator-limited", "reasons": ["12 dropped", "lag p99 80 ms", "more"]}
    expected = "INVALID: the generator was the bottleneck: 12 dropped; lag p99 80 ms (and 1 more)"
    assert wording.sentence(summary) == expected


def test_the_gravest_cause_comes_first(summary: dict[str, Any]) -> None:
    summary["verdict"] = "fail"
    summary["thresholds"][0]["passed"] = False
    summary["validity"]["verdict"] = "inconclusive"
    summary["audit"] = {"verdict": "unknown", "anomalies": {}}
    text = wording.sentence(summary)
    assert text.index("the audit could not tell") < text.index("inconclusive") < text.index("was crossed")


def test_an_interrupted_run_says_so(summary: dict[str, Any]) -> None:
    summary["interrupted"] = True
    assert wording.sentence(summary).startswith("PASS (interrupted after 12s): held")


@pytest.mark.parametrize(
    ("minor", "exact", "short"),
    [
        (0, "0.00 CNY", "0.00 CNY"),
        (-5, "-0.05 CNY", "-0.05 CNY"),
        (123_456, "1,234.56 CNY", "1,234.56 CNY"),
        (52_519_999_999, "525,199,999.99 CNY", "525.1 million CNY"),
        (9_007_199_254_740_993, "90,071,992,547,409.93 CNY", "90.0 trillion CNY"),
    ],
)
def test_money_is_written_to_the_fen_and_rounded_down_in_headlines(minor: int, exact: str, short: str) -> None:
    assert wording.money(minor) == exact
    assert wording.money_short(minor) == short


def test_a_small_share_never_reads_as_none() -> None:
    assert [wording.share(part) for part in (0, 0.00001, 0.0005, 1)] == ["0.0%", "<0.1%", "0.1%", "100.0%"]


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        (0, "0 ms"),
        (0.0004, "<0.001 ms"),
        (8.123, "8.12 ms"),
        (999.7, "1,000 ms"),
        (12_345.6, "12,346 ms"),
        (None, "no data"),
    ],
)
def test_times_are_in_milliseconds_without_exponents(milliseconds: float | None, expected: str) -> None:
    assert wording.ms(milliseconds) == expected


# The folder.


def test_what_is_no_runs_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SimError, match="no such folder"):
        render(tmp_path / "nowhere")
    with pytest.raises(SimError, match=r"not a run's folder: summary\.json is missing"):
        render(tmp_path)


def test_a_half_written_folder_says_what_is_missing(run: Path, summary: dict[str, Any]) -> None:
    text = (run / "summary.json").read_text(encoding="utf-8")
    (run / "summary.json").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(SimError, match="cannot be read as JSON"):
        render(run)
    del summary["counts"]
    fake_run.write_json(run / "summary.json", summary | {"thresholds": None})
    with pytest.raises(SimError, match="is incomplete: counts, thresholds missing"):
        render(run)
    (run / "summary.json").unlink()
    with pytest.raises(SimError, match=r"the run did not finish: summary\.json is missing") as caught:
        render(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_summary_of_another_schema_is_refused(run: Path, summary: dict[str, Any]) -> None:
    fake_run.write_json(run / "summary.json", summary | {"schema": 2})
    with pytest.raises(SimError, match="has schema 2; this version reads schema 1"):
        render(run)


def test_a_damaged_optional_file_is_noted_and_the_rest_still_read(run: Path) -> None:
    (run / "latency.hlog").write_text("Tag=response_time,0.0,1.0,1.0,nonsense\n", encoding="utf-8")
    (run / "audit.json").write_text("{", encoding="utf-8")
    (run / "environment.json").write_text("[]", encoding="utf-8")
    with (run / "events.jsonl").open("a", encoding="utf-8") as events:
        events.write('{"t_s": 1')
    with (run / "timeseries.csv").open("a", encoding="utf-8") as series:
        series.write("12,1")
    found = folder.read(run)
    assert len(found.notes) == 5
    assert len(found.events) == 4
    assert len(found.series["second"]) == 12
    assert found.audit["verdict"] == "clean"  # the summary's own
    assert render(run).exists()


def test_an_empty_cell_is_no_data_and_money_stays_an_integer(run: Path) -> None:
    text = "second,offered_minor,response_p50_ms\n0,9007199254740993,\n1,nan,1.5\n"
    (run / "timeseries.csv").write_text(text, encoding="utf-8")
    expected = {"second": [0, 1], "offered_minor": [9007199254740993, None], "response_p50_ms": [None, 1.5]}
    assert folder.read(run).series == expected


def test_intervals_of_the_latency_log_are_merged_by_tag(run: Path) -> None:
    latency = folder.read(run).latency
    assert set(latency) == {"response_time", "service_time", "schedule_lag"}
    inverse, slowest_ms = latency["response_time"][-1]
    assert inverse == 12 * fake_run.SAMPLES_PER_S
    assert slowest_ms == pytest.approx(fake_run.summary(run)["response_time_ms"]["max"], rel=0.001)
    assert sorted(y for _, y in latency["response_time"]) == [y for _, y in latency["response_time"]]


# The charts' data.


def test_thinning_keeps_the_highest_and_the_lowest() -> None:
    y: list[int | float | None] = [100] * 100_000
    y[31_234], y[77_777] = 9_999, 0
    xs, ys = thin([float(second) for second in range(100_000)], y)
    assert len(xs) == len(ys) <= 2_000
    assert ys[xs.index(31_234.0)] == 9_999
    assert ys[xs.index(77_777.0)] == 0
    assert xs == sorted(xs)


def test_thinning_keeps_a_gap() -> None:
    xs, ys = thin([float(second) for second in range(10_000)], [1] * 5_000 + [None] * 5_000)
    assert None in ys
    assert xs[-1] > 9_000


def test_a_long_run_with_many_nodes_stays_small(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", seconds=4)
    seconds, nodes = 5_000, 20
    names = ["second", "offered", *(f"node{node}_sent" for node in range(nodes))]
    rows = [",".join(map(str, [second, nodes, *[1] * nodes])) for second in range(seconds)]
    (run / "timeseries.csv").write_text("\n".join([",".join(names), *rows]) + "\n", encoding="utf-8")
    drawn = {figure.key: figure for figure in figures(folder.read(run))}
    assert all(len(series.x) == len(series.y) <= 2_000 for figure in drawn.values() for series in figure.series)
    assert len(drawn["shares"].series) == 12
    assert drawn["shares"].series[-1].label == "the other 9 nodes"
    assert sum(y for series in drawn["shares"].series for y in series.y if y) == seconds * nodes


# The page.


def test_rendering_twice_gives_the_same_bytes(run: Path) -> None:
    first = render(run).read_bytes()
    assert render(run).read_bytes() == first
    assert len(first) < 8 * MIB
    assert not list(run.glob("*.part"))


def test_no_name_can_end_the_embedded_data(run: Path, summary: dict[str, Any]) -> None:
    (run / "events.jsonl").write_text(json.dumps({"t_s": 1, "event": "</script>" + BAD_NAME}), encoding="utf-8")
    fake_run.write_json(run / "summary.json", summary | {"name": BAD_NAME})
    page = render(run).read_text(encoding="utf-8")
    assert BAD_NAME not in page
    assert page.count("</script>") == 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: no `chromium` on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test if it errs, speaks, asks or loads anything but the one file it shows."""
    context = browser.new_context()
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))

    def refuse(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    page.on("request", lambda request: wrong.append(request.url) if not request.url.endswith("/report.html") else None)
    yield page
    context.close()
    assert not wrong


def shown(page: Page, report: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-charts=drawn]", timeout=20_000)


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws_every_chart_and_fits_its_window(
    page: Page, run: Path, width: int, scheme: str, summary: dict[str, Any]
) -> None:
    fake_run.write_json(run / "summary.json", summary | {"name": BAD_NAME, "scenario": BAD_NAME})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    shown(page, render(run), width)
    for chart in CHARTS:
        assert page.locator(f"#chart-{chart} svg.main-svg").count() > 0, chart
        assert page.locator(f"#chart-{chart} :is(path.js-line, .bars .point)").count() > 0, chart
    assert page.locator("h1").inner_text() == BAD_NAME
    assert page.title() == f"PASS: {BAD_NAME}"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_zoom_into_one_chart_is_a_zoom_into_all(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    page.evaluate("Plotly.relayout('chart-rate', {'xaxis.range': [3, 7]})")
    follows = "(key) => { const [from, to] = document.getElementById('chart-' + key).layout.xaxis.range; "
    follows += "return from === 3 && to === 7; }"
    page.wait_for_function(f"['response', 'in-flight', 'shares', 'value'].every({follows})")


def test_the_scale_can_be_switched_and_the_page_printed(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    kind = "document.getElementById('chart-response').layout.yaxis.type"
    assert page.evaluate(kind) == "log"
    page.get_by_role("button", name="Logarithmic scale").first.click()
    page.wait_for_function(f"{kind} === 'linear'")
    assert page.pdf()[:4] == b"%PDF"


def test_a_run_with_nothing_but_its_summary_says_no_data(page: Page, run: Path, summary: dict[str, Any]) -> None:
    for file in run.iterdir():
        file.unlink()
    kept = ("scenario", "verdict", "validity", "counts", "rates", "response_time_ms", "audit", "thresholds")
    fake_run.write_json(run / "summary.json", {key: summary[key] for key in kept} | {"thresholds": [], "audit": {}})
    shown(page, render(run), 390)
    assert page.locator(".no-data").count() > len(CHARTS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_run_without_traffic_has_a_page_too(page: Page, run: Path, summary: dict[str, Any]) -> None:
    nothing = dict.fromkeys(summary["counts"], 0)
    summary |= {"counts": nothing, "response_time_ms": {}, "rates": {}, "nodes": [], "shards": [], "by_kind": {}}
    fake_run.write_json(run / "summary.json", summary)
    header = (run / "timeseries.csv").read_text(encoding="utf-8").splitlines()[0]
    empty = ",".join("0" if name in {"second", "offered"} else "" for name in header.split(","))
    (run / "timeseries.csv").write_text(f"{header}\n{empty}\n", encoding="utf-8")
    shown(page, render(run), 1440)
    assert "no data" in page.locator("main").inner_text()
