"""`sim serve` from the command line: compiled kernels, signals, then the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.errors import UsageError
from simulator.gateway.serve import Serving, check, serve
from simulator.run.interrupts import Interrupts
from simulator.scenario.units import check_currency, parse_money
from simulator.warm import warm

if TYPE_CHECKING:
    from simulator.errors import Exit

_LEAST_QUEUE = 1_024  # slots of a ring


def run_gateway(*, balance: str, in_flight: int, **options: Any) -> Exit:  # noqa: ANN401  the rest of Serving
    """Serves until Ctrl-C, SIGTERM or SIGHUP; a second one ends everything at once. `balance` is as `100 CNY`."""
    currency = balance.rpartition(" ")[2]
    try:
        balance_minor = parse_money(balance, check_currency(currency))
    except ValueError as error:
        raise UsageError(f"--balance: {error}") from None
    queue = max(_LEAST_QUEUE, 1 << (in_flight - 1).bit_length())
    serving = Serving(
        balance_minor=balance_minor, currency=currency, in_flight=in_flight, queue=queue, **options
    )  # fmt: skip
    check(serving)
    with Interrupts() as interrupts:
        warm(None)
        return serve(serving, lambda: interrupts.count > 0)
