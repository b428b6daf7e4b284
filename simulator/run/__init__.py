"""Runs scenarios, and alone knows all the others: `once` makes one run, `wall` and `virtual` what a clock makes of it.

`folder` makes its folder, `interrupts` hears Ctrl-C, `abort` thresholds that stop it, `outcome` is what is made of it once it has
ended; `audit` checks a finished run's books again.
"""

from simulator.run.audit import audit_run
from simulator.run.once import run_scenario
from simulator.run.outcome import Wanted

__all__ = ["Wanted", "audit_run", "run_scenario"]
