"""When transactions are due: a rate over time (`rate`, `curves`, `trace`) and the times drawn from it (`process`).

`build_rate` and `build_arrivals` turn a scenario into these. They load on first use, because the scenario model reads
the names in `curves` and must not pay for the kernels' imports (`sim --help` answers in under 0.3 s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.arrivals.build import build_arrivals, build_rate

__all__ = ["build_arrivals", "build_rate"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from simulator.arrivals import build  # noqa: PLC0415  see the module docstring

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
