"""The auditor: pure checks over a run's history and journals, with three verdicts: clean, anomalies, unknown."""

from __future__ import annotations
