"""The page in a real browser: it draws every chart, asks nobody for anything, links its axes, sorts, prints, and can be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fake_run
import pytest
from browser import chromium, note_wrongs

from simulator.report import render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Dialog, Page

BAD_NAME = "<script>alert(1)</script>"
LINKED = {
    "rate", "response", "heat", "in-flight", "queues", "commits", "shares", "shard-heat", "shard-queues", "value",
    "flow", "held", "doubt",
}  # fmt: skip
CHARTS = LINKED | {"percentiles", "shards"}
# Contrast as WCAG 2 defines it, of two colours that the browser has resolved.
CONTRAST = """(pairs) => {
  const style = getComputedStyle(document.documentElement);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (name) => {
    canvas.fillStyle = style.getPropertyValue("--" + name).trim();
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return pairs.map(([front, back]) => {
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  });
}"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.write(tmp_path / "run", seconds=12, platform=True)


@pytest.fixture
def summary(run: Path) -> dict[str, Any]:
    return fake_run.summary(run)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test if it errs, speaks, asks or loads anything but the one file it shows."""
    context = browser.new_context(timezone_id="Asia/Shanghai")  # no reader lives at Greenwich
    page = context.new_page()
    wrong: list[str] = []
    note_wrongs(page, wrong, lambda asked: asked.endswith("/report.html"))

    def refuse(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    yield page
    context.close()
    assert not wrong


def shown(page: Page, report: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-charts=drawn]", timeout=30_000)


def ranges(page: Page) -> dict[str, list[float]]:
    """What each chart over time shows."""
    script = """() => Object.fromEntries([...document.querySelectorAll(".chart")]
      .map((chart) => [chart.id.slice(6), chart.layout.xaxis.range.map((x) =>
        typeof x === "number" ? x : Date.parse(x.replace(" ", "T") + "Z") / 1000)]))"""
    found: dict[str, list[float]] = page.evaluate(script)
    return {key: shows for key, shows in found.items() if key in LINKED}


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws_every_chart_and_fits_its_window(
    page: Page, run: Path, width: int, scheme: str, summary: dict[str, Any]
) -> None:
    fake_run.write_json(run / "summary.json", summary | {"name": BAD_NAME, "scenario": BAD_NAME})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    shown(page, render(run), width)
    for chart in CHARTS:
        drawn = page.locator(f"#chart-{chart} :is(path.js-line, .bars .point, .heatmaplayer image)")
        assert drawn.count() > 0, chart
    assert page.locator("h1").inner_text() == BAD_NAME
    assert page.title() == f"PASS: {BAD_NAME}"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_screen_has_verdict_figures_and_thresholds(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    for what in (".verdict", ".tiles .tile:last-child", "#thresholds ~ .scroll tbody tr:last-child"):
        box = page.locator(what).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900, what


def test_names_from_outside_are_shown_and_never_run(page: Page, run: Path, summary: dict[str, Any]) -> None:
    hostile = f"</script>{BAD_NAME}<img src=x onerror=alert(2)>"
    events = [
        {"t_s": 1.0, "event": hostile}, {"t_s": 2.0, "event": "fault", "fault": hostile, "node": hostile},
        {"t_s": 3.0, "event": "node_ready", "node": hostile, "note": hostile},
    ]  # fmt: skip
    (run / "events.jsonl").write_text("\n".join(json.dumps(event) for event in events), encoding="utf-8")
    (run / "scenario.yaml").write_text(f"name: {json.dumps(hostile)}\n", encoding="utf-8")
    limit = {"what": hostile, "at_s": 1.0, "detail": hostile}
    theory = {"name": hostile, "curve": [[2, 1.0], [10, 2.0]]}
    value = summary["value"] | {"currency": hostile}
    changed = {
        "name": hostile,
        "scenario": hostile,
        "description": hostile,
        "first_limit": limit,
        "theory": theory,
        "value": value,
    }
    fake_run.write_json(run / "summary.json", summary | changed)
    shown(page, render(run), 1440)
    assert page.locator("h1").inner_text() == hostile
    assert page.locator("img").count() == 0
    assert page.locator("#chart-rate").get_by_text("onerror").count() > 0  # the label of the event, as text
    assert page.locator("#chart-percentiles").get_by_text("onerror").count() > 0


def test_a_zoom_into_one_chart_is_a_zoom_into_all_and_can_be_undone(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    plot = page.locator("#chart-in-flight .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=4)
    page.mouse.up()
    page.wait_for_function("document.getElementById('chart-rate').layout.xaxis.range[0] > 1")
    zoomed = ranges(page)
    assert zoomed.keys() == LINKED
    assert all(shows == pytest.approx(zoomed["rate"]) for shows in zoomed.values())
    assert zoomed["rate"] == pytest.approx([3, 9], abs=0.2)
    assert float(page.locator("#range-from").input_value()) == pytest.approx(zoomed["rate"][0], abs=0.001)
    page.get_by_role("button", name="Whole run").click()
    page.wait_for_function("document.getElementById('chart-value').layout.xaxis.range[0] === 0")
    assert all(shows == [0, 12] for shows in ranges(page).values())


INSTANTS = """() => Object.fromEntries([...document.querySelectorAll(".chart")]
  .map((chart) => [chart.id.slice(6), chart.querySelector(":scope > .instant:not([hidden])")])
  .filter(([, line]) => line).map(([key, line]) => [key, line.getBoundingClientRect().x]))"""


# A wait of its own: playwright's would have its text evaluated again and again, which the page's policy forbids.
UNTIL = """(wanted) => new Promise((done) => {
  const look = () => {
    const marked = document.querySelectorAll(".chart > .instant:not([hidden])").length;
    if (marked === wanted) done(); else requestAnimationFrame(look);
  };
  look();
})"""


def test_what_is_pointed_at_in_one_chart_is_marked_on_all_others(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    plot = page.locator("#chart-in-flight .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] * 4.5 / 12  # the middle of the fifth second
    page.mouse.move(x, box["y"] + box["height"] / 2, steps=3)
    page.evaluate(UNTIL, len(LINKED) - 1)
    marked = page.evaluate(INSTANTS)
    assert marked.keys() == LINKED - {"in-flight"}  # where the tooltip stands already
    assert list(marked.values()) == pytest.approx([x] * len(marked), abs=2)
    page.mouse.move(5, 5, steps=3)
    page.evaluate(UNTIL, 0)


def test_arrow_keys_go_through_a_chart_and_say_what_stands_there(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    page.locator("#chart-rate").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    said = page.locator("#range-said")
    assert said.inner_text().startswith("2.5 s; target curve ")
    page.evaluate(UNTIL, len(LINKED) - 1)
    page.keyboard.press("End")
    assert said.inner_text().startswith("11.5 s; ")
    page.keyboard.press("ArrowRight")
    assert said.inner_text().startswith("11.5 s; ")
    page.locator("#chart-heat").focus()  # the first one is left, and forgets where it was
    page.keyboard.press("Home")
    page.evaluate(UNTIL, len(LINKED))
    page.keyboard.press("Escape")
    page.evaluate(UNTIL, 0)


def test_goodput_has_a_chart_of_its_own_only_where_it_is_not_what_was_completed(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    assert page.locator("#chart-overload").count() == 0
    assert "so it is the goodput too" in page.locator("#reading-rate").inner_text()
    head, *rows = (run / "timeseries.csv").read_text(encoding="utf-8").splitlines()
    at = head.split(",").index("ok")
    cells = [row.split(",") for row in rows]
    cells[5][at] = str(int(cells[5][at]) // 2)
    (run / "timeseries.csv").write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n", encoding="utf-8")
    shown(page, render(run), 1440)
    assert page.locator("#chart-overload .scatterlayer path.js-line").count() == 2
    assert "goodput" not in page.locator("#reading-rate").inner_text()


def test_the_time_shown_can_be_typed(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    page.get_by_label("from", exact=True).fill("0:02")
    page.get_by_label("to", exact=True).fill("5.5")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('chart-value').layout.xaxis.range[1] === 5.5")
    assert all(shows == [2, 5.5] for shows in ranges(page).values())
    page.get_by_label("to", exact=True).fill("1")
    page.keyboard.press("Enter")
    assert page.get_by_label("to", exact=True).get_attribute("aria-invalid") == "true"
    assert ranges(page)["rate"] == [2, 5.5]


def test_a_long_runs_axes_are_clocks_and_are_linked_too(page: Page, run: Path) -> None:
    for name in ("timeseries.csv", "platform.csv"):  # each second a minute
        head, *rows = (run / name).read_text(encoding="utf-8").splitlines()
        cells = [row.partition(",") for row in rows]
        wide = [f"{60 * float(second)},60.0,{rest}" for second, _, rest in cells]
        text = "\n".join(
            [head.replace("second,", "second,window_s,", 1).replace("window_s,window_s", "window_s,old"), *wide]
        )
        (run / name).write_text(text + "\n", encoding="utf-8")
    shown(page, render(run), 1440)
    page.get_by_label("from", exact=True).fill("1:40")
    page.get_by_label("to", exact=True).fill("0:05:00")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('chart-value').layout.xaxis.range[0] === '1970-01-01 00:01:40.000'")
    page.evaluate("Plotly.relayout('chart-rate', {'xaxis.range': ['1970-01-01 00:02:00', '1970-01-01 00:03:20.5']})")
    page.wait_for_function("document.getElementById('range-to').value === '0:03:20.500'")
    assert page.locator("#range-from").input_value() == "0:02:00"
    assert all(shows == [120, 200.5] for shows in ranges(page).values())
    ticks = page.locator("#chart-rate .xtick text").all_text_contents()
    assert ticks[0] == "00:02:00"  # and not eight hours later


def test_tables_sort_by_click_and_by_key_by_number_and_by_word(page: Page, tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", seconds=4, nodes=12)
    shown(page, render(run), 1440)
    first = page.locator("#nodes tbody th")
    heads = page.locator("#nodes thead th")
    assert heads.nth(0).get_attribute("aria-sort") is None
    page.get_by_role("button", name="in flight max").click()
    assert first.all_inner_texts() == [str(node) for node in range(11, -1, -1)]
    assert heads.nth(4).get_attribute("aria-sort") == "descending"
    heads.nth(0).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert first.all_inner_texts() == [str(node) for node in range(12)]  # 2 before 10
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"
    assert heads.nth(4).get_attribute("aria-sort") is None
    page.keyboard.press("Space")
    assert first.all_inner_texts()[0] == "11"


def test_figures_sort_by_what_they_mean(page: Page, run: Path) -> None:
    upwards = [
        ["<0.001 ms", "8.12 ms", "1,000 ms", "no data"],
        ["9.5s", "45s", "2m05s", "1h00m"],
        ["3 KiB", "900.0 MiB", "1.5 GiB"],
        ["-5.00 CNY", "999.99 CNY", "2.0 million CNY"],
        ["<0.1%", "9.9%", "10.0%", ""],
    ]
    report = render(run)
    tables = ""
    for at, cells in enumerate(upwards):
        rows = "".join(f"<tr><td class='n'>{cell.replace('<', '&lt;')}</td></tr>" for cell in cells[1::2] + cells[::2])
        tables += f'<table class="sortable" id="t{at}"><thead><tr><th class="n">x</th></tr></thead><tbody>{rows}</tbody></table>'
    report.write_text(report.read_text(encoding="utf-8").replace("</main>", tables), encoding="utf-8")
    shown(page, report, 1440)
    for at, cells in enumerate(upwards):
        page.locator(f"#t{at} button").click()
        page.locator(f"#t{at} button").click()
        assert page.locator(f"#t{at} tbody td").all_inner_texts() == cells


def test_theme_and_scale_can_be_chosen_and_charts_follow(page: Page, run: Path) -> None:
    page.emulate_media(color_scheme="dark")
    shown(page, render(run), 1440)
    background = "getComputedStyle(document.querySelector('#chart-rate .main-svg')).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 28)"
    page.get_by_role("button", name="Theme: auto").click()
    page.wait_for_function(f"{background} === 'rgb(255, 255, 255)'")
    assert page.get_by_role("button", name="Theme: light").count() == 1
    kind = "document.getElementById('chart-response').layout.yaxis.type"
    button = page.locator("button.scale[data-for=response]")
    assert page.evaluate(kind) == "log"
    button.click()
    page.wait_for_function(f"{kind} === 'linear'")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    page.wait_for_function(f"{kind} === 'log'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_enough_to_be_read(page: Page, run: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    shown(page, render(run), 1440)
    words = [
        (front, back) for front in ("text", "muted", "good", "bad", "warn", "blue", "red") for back in ("page", "panel")
    ]
    words += [(tone, f"{tone}-panel") for tone in ("good", "bad", "warn")]
    ratios = page.evaluate(CONTRAST, [list(pair) for pair in words])
    assert {pair: ratio for pair, ratio in zip(words, ratios, strict=True) if ratio < 4.5} == {}  # WCAG AA, text
    lines = [(line, "page") for line in ("blue", "orange", "green", "purple", "grey", "red")]
    ratios = page.evaluate(CONTRAST, [list(pair) for pair in lines])
    assert {pair: ratio for pair, ratio in zip(lines, ratios, strict=True) if ratio < 3} == {}  # WCAG AA, graphics


def test_who_cannot_see_the_charts_finds_landmarks_labels_and_the_figures(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    assert page.locator("main, nav, header, form[aria-label]").count() == 4
    assert page.locator("html[lang=en]").count() == 1
    for chart in CHARTS:
        place = page.locator(f"#chart-{chart}")
        assert place.get_attribute("role") == "group"  # an image has no buttons in it
        assert (place.get_attribute("tabindex") == "0") == (chart in LINKED)
        assert place.get_attribute("aria-label", timeout=1_000)
        described = place.get_attribute("aria-describedby")
        assert page.locator(f"#{described}").count() == 1
        assert page.locator(f"#numbers-{chart} tbody tr").count() > 0, chart
    unnamed = """() => [...document.querySelectorAll("main section")]
      .filter((part) => !document.getElementById(part.getAttribute("aria-labelledby"))?.textContent.trim()).length"""
    assert page.evaluate(unnamed) == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the figures"


def test_the_page_prints_light_with_no_chart_cut_and_comes_back(page: Page, run: Path) -> None:
    page.emulate_media(color_scheme="dark")
    shown(page, render(run), 1440)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    widest = "Math.max(...[...document.querySelectorAll('.chart .main-svg')].map((svg) => svg.getBoundingClientRect().width))"
    assert page.evaluate(widest) <= 700
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.figure')).breakInside") == "avoid"
    assert page.evaluate("getComputedStyle(document.querySelector('.range')).display") == "none"
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("document.querySelector('#chart-rate .main-svg').getBoundingClientRect().width > 900")
    assert page.pdf()[:4] == b"%PDF"


def test_newer_data_can_be_shown_and_what_is_zoomed_stays_so(page: Page, run: Path) -> None:
    shown(page, render(run), 1440)
    page.evaluate("charts.zoom([2, 6])")
    newer = """() => {
      const data = JSON.parse(document.getElementById("run-data").textContent);
      data.span = [0, 13];
      const line = data.charts.find((chart) => chart.key === "in-flight").data[0];
      line.x.push(12);
      line.y.push(777);
      return charts.show(data).then(() => document.getElementById("chart-in-flight").data[0].y.at(-1));
    }"""
    assert page.evaluate(newer) == 777
    assert all(shows == [2, 6] for shows in ranges(page).values())
    page.get_by_role("button", name="Whole run").click()
    page.wait_for_function("document.getElementById('chart-value').layout.xaxis.range[1] === 13")


def test_a_run_with_nothing_but_its_summary_says_no_data(page: Page, run: Path, summary: dict[str, Any]) -> None:
    for file in run.iterdir():
        file.unlink()
    kept = ("scenario", "verdict", "validity", "counts", "rates", "response_time_ms", "audit", "thresholds")
    fake_run.write_json(run / "summary.json", {key: summary[key] for key in kept} | {"thresholds": [], "audit": {}})
    shown(page, render(run), 390)
    assert page.locator(".no-data").count() > len(CHARTS)
    assert page.locator("#range").is_hidden()
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
