"""From a run's `folder` to its readers: `wording` (its verdict in a sentence), `terminal`, `html` and `figures`."""

from simulator.report.html import render

__all__ = ["render"]
