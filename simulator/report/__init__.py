"""From a run's `folder` to its readers: `wording` (verdicts in words), `terminal`, `html` with `charts`; `sweep` of many runs."""

from simulator.report.sweep import render

__all__ = ["render"]
