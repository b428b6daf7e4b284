"""Runs scenarios, and alone knows all the others: `once` makes one run, `wall` and `virtual` what a clock makes of it.

`folder` makes its folder, `interrupts` hears Ctrl-C, `audit` checks a finished run's books again.
"""

from simulator.run.audit import audit_run
from simulator.run.once import run_scenario

__all__ = ["audit_run", "run_scenario"]
