"""The report: its sentence, what it reads and refuses, and the page as a file; test_report_page.py has it in a browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fake_run
import pytest

from simulator.errors import SimError
from simulator.report import answerers, folder, headline, platform_tables, render, wording

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20
BAD_NAME = "<script>alert(1)</script>"


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


def test_what_a_threshold_on_a_share_saw_is_told_in_percent() -> None:
    assert wording.observed({"metric": "ok", "expression": "rate > 99.99%", "observed": 0.99951}) == "99.951 %"
    assert wording.observed({"metric": "dropped", "expression": "count == 0", "observed": 3}) == "3"


def test_a_span_of_hours_is_told_to_the_nearest_minute() -> None:
    assert wording.duration(86_399.99) == "24h00m"
    assert wording.duration(3_599) == "59m59s"
    assert wording.duration(3_629) == "1h00m"


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


def test_a_run_of_which_nothing_ended_ok_says_how_it_ended(summary: dict[str, Any]) -> None:
    summary["verdict"] = "invalid"
    summary["validity"] = {"verdict": "generator-limited", "reasons": ["late"]}
    summary["counts"] |= {"sent": 107, "ok": 0, "rejected": 0, "failed": 0, "unknown": 107}
    summary["reasons"] = {"unknown": {"reset": 100, "timeout": 7}}
    expected = (
        "INVALID: of 107 sent none ended ok: 107 unknown (reset 100, timeout 7); the generator was the bottleneck: late"
    )
    assert wording.sentence(summary) == expected


def test_a_run_behind_one_balancer_tells_who_answered_and_no_evenness_of_its_one_target(
    summary: dict[str, Any],
) -> None:
    summary["nodes"] = summary["nodes"][:1]
    summary["answered_by"] = {
        "nodes": [{"node": "a", "answered": 10, "share": 1.0}], "nobody": 2, "imbalance_max_over_mean": 1.25, "jain": 0.9,
        "noise_floor": 0.01,
        "faults": [{"fault": "slow", "node": "a", "at_s": 5.0, "share": 0.04, "detection_s": 0.0, "readmission_s": 0.2,
                    "answered_by_nobody": 0}],
    }  # fmt: skip
    assert ("busiest node over the average (1 is even)", "1.250") in answerers.facts(summary)
    sick = answerers.faults(summary)
    assert sick is not None
    assert sick.rows == [("a slow", "5s", "4.0%", "<0.1s", "0.2s", "0")]
    assert platform_tables.balancer(summary)[0] == ("targets", "1, and so nothing to pick from")
    del summary["answered_by"]
    assert answerers.facts(summary) == []
    assert platform_tables.balancer(summary)[0][0] == "policy"


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


def test_where_holds_were_answered_ok_the_tile_says_that_they_settle_nothing(summary: dict[str, Any]) -> None:
    def note() -> str:
        return next(tile.note for tile in headline.tiles(summary) if tile.label == "Value settled")

    summary["by_kind"] = {"payment": {"counts": {"ok": 7}}, "authorize": {"counts": {"ok": 0}}}
    assert note().endswith(" offered")
    summary["by_kind"]["authorize"]["counts"]["ok"] = 1
    assert note().endswith(" offered; holds and voids settle nothing")


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
