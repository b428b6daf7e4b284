"""`sim verify`: picks the cases, runs them with a progress bar, prints, and ends with an exit code."""

from __future__ import annotations

import json
import sys
import time

from simulator.bench.table import progress
from simulator.errors import Exit, UsageError
from simulator.verify import table
from simulator.verify.cases import CASES
from simulator.verify.judge import CONFIDENCE, REPLICATIONS, verify

_QUICK = 0.1


def verify_engine(seed: int, *, quick: bool, only: str | None, as_json: bool) -> Exit:
    """Verifies and shows; 0 if every check passes, else 1. Raises UsageError if no case is meant."""
    cases = [case for case in CASES if only is None or only.lower() in case.name.lower()]
    if not cases:
        names = ", ".join(case.name for case in CASES)
        raise UsageError(f"no case has {only!r} in its name; there are {names}")
    began = time.monotonic()
    with progress(len(cases) * REPLICATIONS) as step:
        verdicts = verify(cases, seed=seed, scale=_QUICK if quick else 1.0, done=step)
    seconds = time.monotonic() - began
    if as_json:
        found = table.as_json(verdicts, seed=seed, replications=REPLICATIONS, confidence=CONFIDENCE, seconds=seconds)
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        table.show(verdicts, replications=REPLICATIONS, confidence=CONFIDENCE, seconds=seconds)
    return Exit.OK if all(verdict.passed for verdict in verdicts) else Exit.ERROR
