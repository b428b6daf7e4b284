"""What a CI job gets of a run: JUnit's XML, Markdown, annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.report import workflow
from simulator.report.job_files import write_markdown
from simulator.report.junit import junit
from simulator.report.markdown import ROWS_MOST, escaped, markdown
from simulator.report.wording import sentence

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fake_run.summary(fake_run.write(tmp_path_factory.mktemp("job") / "run", seconds=5))


def failed(summary: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401  any field
    crossed = {**summary["thresholds"][0], "observed": 73.0, "passed": False}
    return {**summary, "verdict": "fail", "thresholds": [crossed, *summary["thresholds"][1:]], **more}


def counted(text: str) -> tuple[int, int, int]:
    root = ET.fromstring(text)  # noqa: S314  our own
    found = tuple(int(root.get(key, "-1")) for key in ("tests", "failures", "errors"))
    assert found == tuple(len(root.findall(f".//{path}")) for path in ("testcase", "failure", "error"))
    return found  # type: ignore[return-value] # three of them


def test_each_threshold_is_a_case_and_so_is_what_every_run_must_meet(passed: dict[str, Any]) -> None:
    assert counted(junit([("results/run", passed)])) == (6, 0, 0)


def test_a_crossed_threshold_is_a_failure_with_what_was_seen(passed: dict[str, Any]) -> None:
    text = junit([("results/run", failed(passed)), ("results/other", passed)])
    assert counted(text) == (12, 1, 0)
    assert '<failure message="observed 73 ms" />' in text


@pytest.mark.parametrize(
    ("wrong", "failures", "errors"),
    [
        ({"validity": {"verdict": "generator-limited", "reasons": ["slow"]}, "verdict": "invalid"}, 0, 1),
        ({"audit": {"verdict": "anomalies", "anomalies": {"lost": 2}}, "verdict": "fail"}, 1, 0),
        ({"audit": {"verdict": "unknown", "anomalies": {}}, "verdict": "fail"}, 0, 1),
        ({"failure": "node 1 stopped", "verdict": "fail"}, 0, 1),
        ({"interrupted": True}, 0, 1),
    ],
)
def test_what_is_wrong_with_a_run_is_told_apart(
    passed: dict[str, Any], wrong: dict[str, Any], failures: int, errors: int
) -> None:
    assert counted(junit([("run", {**passed, **wrong})])) == (6, failures, errors)


def test_what_was_not_compared_is_skipped(passed: dict[str, Any]) -> None:
    item = {**passed["thresholds"][0], "baseline": None, "note": "not compared with a baseline"}
    text = junit([("run", {**passed, "thresholds": [item]})])
    assert "<skipped message=" in text
    assert counted(text) == (4, 0, 0)


@given(st.text())
def test_any_name_makes_a_document_that_can_be_read(name: str) -> None:
    summary: dict[str, Any] = {
        "scenario": name,
        "verdict": "fail",
        "thresholds": [{"metric": name, "expression": name}],
    }
    counted(junit([(name, summary)]))


@given(st.text())
def test_no_name_becomes_markup(name: str) -> None:
    text = escaped(name)
    for special in "<>[]`|*@":
        assert text.replace(f"\\{special}", "").count(special) == 0
    assert "\n" not in text


def test_markdown_opens_with_the_verdict_and_shows_the_crossed_thresholds_first(passed: dict[str, Any]) -> None:
    text = markdown([("results/run", failed(passed))])
    assert text.startswith("### ❌ FAIL")
    rows = [line for line in text.splitlines() if (line.startswith("| ") and "✗" in line) or "✓" in line]
    assert "✗" in rows[0]
    assert escaped(sentence(failed(passed))) in text


def test_markdown_of_many_thresholds_and_runs_is_bounded(passed: dict[str, Any]) -> None:
    many = {**passed, "thresholds": passed["thresholds"] * 40}
    text = markdown([("run", many)])
    assert text.count("✓") == ROWS_MOST
    assert "and 70 more thresholds" in text
    assert len(markdown([(f"run{at}", passed) for at in range(256)])) < 2**20  # what a job's page takes


def test_a_job_page_is_added_to_and_any_other_file_replaced(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    for path in (page, other):
        path.write_text("before\n")
        write_markdown(path, "after\n", {"GITHUB_STEP_SUMMARY": str(page)})
    assert page.read_text() == "before\nafter\n"
    assert other.read_text() == "after\n"


def test_annotations_are_one_line_each_whatever_a_name_says() -> None:
    line = workflow.annotation("error", "a,b: c\n", "50% of\r\nit")
    assert line == "::error title=a%2Cb%3A c%0A::50%25 of%0D%0Ait"


def test_a_run_that_passed_has_no_annotations_and_one_that_failed_names_what_was_crossed(
    passed: dict[str, Any],
) -> None:
    assert workflow.of_runs([passed]) == []
    lines = workflow.of_runs([failed(passed)])
    assert len(lines) == 2
    assert lines[1].endswith("response time p(99) < 50ms: 73 ms")
    assert len(workflow.of_runs([failed(passed)] * 20)) == workflow.MOST


@pytest.mark.parametrize(
    ("environ", "wanted"), [({}, False), ({"GITHUB_ACTIONS": ""}, False), ({"GITHUB_ACTIONS": "true"}, True)]
)
def test_annotations_are_for_workflows(*, environ: dict[str, str], wanted: bool) -> None:
    assert workflow.wanted(environ) is wanted
