"""JUnit's XML, as CI systems read it: a suite for each run, a case for each thing that it had to meet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from simulator.report import wording
from simulator.report.wording import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.report.wording import Summary

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(runs: Sequence[tuple[str, Summary]]) -> str:
    """The document.

    A threshold or an audit that is not met is a failure, and so is a load that the trip stopped; figures that are not to be
    believed, or a platform that stopped, are an error; an interrupted run's cases are what could be judged. Money that the target
    keeps the books of was not audited: that case is skipped.

    Args:
        runs: what to call each (the run's folder), and its summary.
    """
    root = ET.Element("testsuites", name="sim")
    for name, summary in runs:
        _suite(root, name, summary)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, name: str, summary: Summary) -> None:
    scenario = _clean(summary.get("scenario", ""))
    suite = ET.SubElement(root, "testsuite", name=scenario, timestamp=_clean(summary.get("started_at", "")))
    suite.set("time", f"{number(summary.get('wall_s')) or 0.0:.3f}")
    properties = ET.SubElement(suite, "properties")
    for key, value in (("folder", name), ("seed", summary.get("seed")), ("verdict", summary.get("verdict"))):
        ET.SubElement(properties, "property", name=key, value=_clean(value))
    _thresholds(suite, scenario, summary)
    _rest(suite, scenario, summary)
    for key, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        suite.set(key, str(len(suite.findall(tag))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    ET.SubElement(suite, "system-out").text = _clean(wording.sentence(summary))


def _thresholds(suite: ET.Element, scenario: str, summary: Summary) -> None:
    for item in summary.get("thresholds", []):
        case = ET.SubElement(suite, "testcase", classname=scenario)
        case.set("name", _clean(f"{item.get('metric', '')} {item.get('expression', '')}"))
        seen = wording.observed(item)
        if not item.get("passed"):
            _outcome(case, "failure", f"observed {seen}")
        elif "baseline" in item and item["baseline"] is None:
            _outcome(case, "skipped", seen)


def _rest(suite: ET.Element, scenario: str, summary: Summary) -> None:
    """What every run must meet, whatever its scenario asks for."""
    validity, audit = summary.get("validity", {}), summary.get("audit", {})
    case = ET.SubElement(suite, "testcase", classname=scenario, name="validity")
    if validity.get("verdict") != "valid":
        _outcome(case, "error", f"{validity.get('verdict')}: {'; '.join(map(str, validity.get('reasons', [])))}")
    case = ET.SubElement(suite, "testcase", classname=scenario, name="audit")
    if audit.get("verdict") == "anomalies":
        found = ", ".join(f"{name} {count}" for name, count in audit.get("anomalies", {}).items() if count)
        _outcome(case, "failure", f"anomalies: {found}")
    elif audit.get("books") == "undeclared":
        _outcome(case, "error", wording.audit_cause(summary))
    elif audit.get("verdict") != "clean" and wording.not_audited(audit) and not audit.get("doubts"):
        _outcome(case, "skipped", wording.not_audited(audit))
    elif audit.get("verdict") != "clean":
        _outcome(case, "error", "the audit could not tell")
    case = ET.SubElement(suite, "testcase", classname=scenario, name="platform")
    if summary.get("failure"):
        _outcome(case, "error", f"the platform stopped: {summary['failure']}")
    elif summary.get("interrupted"):
        _outcome(case, "error", "the run was interrupted")
    elif summary.get("tripped"):
        _outcome(case, "failure", str(summary.get("stop_reason", "the error-rate trip stopped the load")))


def _outcome(case: ET.Element, kind: str, message: str) -> None:
    ET.SubElement(case, kind, message=_clean(message))


def _clean(value: object) -> str:
    """Text without the characters that XML cannot hold, not even escaped."""
    return _NOT_XML.sub("�", str(value))
