"""What `sim verify` shows: one line for each quantity, then the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.verify.judge import Verdict


_WIDTH = 120  # of the table where there is no terminal to fit


def show(verdicts: Sequence[Verdict], *, replications: int, confidence: float, seconds: float) -> None:
    """Prints the table and the verdict."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)  # a log has no width, and no figure may be cut off there
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("case", no_wrap=True)
    table.add_column("quantity", no_wrap=True)
    for title in ("theory", "engine", "±"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=False)
    for case in dict.fromkeys(verdict.case for verdict in verdicts):
        of_case = [verdict for verdict in verdicts if verdict.case == case]
        kept = [verdict for verdict in of_case if verdict.exact and verdict.passed]
        shown = [verdict for verdict in of_case if verdict not in kept]
        for number, verdict in enumerate(shown):
            table.add_row(
                "" if number else case,
                verdict.quantity,
                _figure(verdict.expected),
                _figure(verdict.found.mean),
                "exact" if verdict.exact else _figure(verdict.found.half_width, 2),
                _word(verdict),
            )
        if kept:
            what = f"in = out, L = λT: {len(kept)} balances"
            table.add_row("" if shown else case, Text(what, "dim"), "", "", Text("exact", "dim"), Text("ok", "green"))
    console.print(table, width=max(console.width, _WIDTH))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    console.print(Text(closing(verdicts), "bold red" if failed else "bold green"))
    console.print(
        Text(
            f"{replications} replications of each case; all intervals hold together with {confidence:.1%} confidence; "
            f"{seconds:.0f} s",
            "dim",
        )
    )


def _word(verdict: Verdict) -> Text:
    return Text("ok", "green") if verdict.passed else Text(f"FAILS: {verdict.why}", "bold red")


def closing(verdicts: Sequence[Verdict]) -> str:
    """The verdict in a sentence."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if not failed:
        return f"The engine agrees with theory in all {len(verdicts)} checks."
    names = ", ".join(dict.fromkeys(verdict.case for verdict in failed))
    return f"The engine disagrees with theory in {len(failed)} of {len(verdicts)} checks: {names}."


def as_json(
    verdicts: Sequence[Verdict], *, seed: int, replications: int, confidence: float, seconds: float
) -> dict[str, Any]:
    """Everything as data."""
    return {
        "schema": 1,
        "passed": all(verdict.passed for verdict in verdicts),
        "seed": seed,
        "replications": replications,
        "confidence": confidence,
        "seconds": round(seconds, 3),
        "checks": [verdict.to_dict() for verdict in verdicts],
    }


def _figure(value: float, digits: int = 6) -> str:
    """Significant digits, without an exponent where people would not write one."""
    if value and not 1e-4 <= abs(value) < 1e7:  # noqa: PLR2004  where plain figures become unreadable
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text
