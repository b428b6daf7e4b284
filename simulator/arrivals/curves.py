"""Named load curves and yearly peaks of Double Eleven, each with its source and with what it is not.

A curve is a set of knots of *cumulative value*: how much had been paid up to an instant of the day. The rate between
the knots is `simulator.arrivals.rate.Rate.from_knots`'s business; a count is the value over the mean ticket.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FEN_PER_YUAN = 100
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Cumulative value over one day, as knots.

    Attributes:
        name: what a scenario calls it.
        knots_s: seconds since midnight, strictly increasing, the first one 0.
        knots_value: cumulative value in fen at each knot, non-decreasing, the first one 0.
        source: where the figures are from.
        note: how far they can be believed, and what they must not be mistaken for.
        currency: of `knots_value`.
    """

    name: str
    knots_s: tuple[float, ...]
    knots_value: tuple[int, ...]
    source: str
    note: str
    currency: str = "CNY"

    @property
    def duration_s(self) -> float:
        """Seconds from the first knot to the last one."""
        return self.knots_s[-1] - self.knots_s[0]


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest rates published for one year's Double Eleven; `None`: no figure that we know of.

    Where sources disagree, `payments_per_s` is the lower and `payments_per_s_high` the higher figure; else the two are
    equal.
    """

    orders_per_s: int | None
    payments_per_s: int | None
    payments_per_s_high: int | None
    note: str


def _yuan(*values: int) -> tuple[int, ...]:
    return tuple(value * FEN_PER_YUAN for value in values)


_PAPER = Curve(
    name="double-eleven/paper",
    knots_s=(0.0, 60.0, 1_800.0, DAY_S),
    knots_value=_yuan(0, 525_000_000, 10_000_000_000, 50_000_000_000),
    source="Yun Hao, 'Internet financial innovation and financial risk prevention', its paragraph on software risk",
    note=(
        "As the paper cites it: 525 million yuan in the first 60 s, more than 10 billion after about half an hour, "
        "more than 50 billion in the day. The paper dates these figures 2019; the public record of 2019 is about five "
        "times higher (double-eleven/2019), and these are about the scale of 2014. 'More than' is read as 'exactly'."
    ),
)

_2019 = Curve(
    name="double-eleven/2019",
    knots_s=(0.0, 96.0, 769.0, DAY_S),
    knots_value=_yuan(0, 10_000_000_000, 50_000_000_000, 268_400_000_000),
    source="Public record of 11 November 2019, as the press reported it",
    note=(
        "10 billion yuan in 96 s, 50 billion in 12 min 49 s, 268.4 billion in the day. These are public figures and "
        "not the paper's (double-eleven/paper), which gives others for the same year."
    ),
)

CURVES: Mapping[str, Curve] = MappingProxyType({curve.name: curve for curve in (_PAPER, _2019)})

# A peak is one second's worth. The curves' knots are minutes apart and average such seconds away.
PEAKS: Mapping[int, Peak] = MappingProxyType(
    {
        2009: Peak(400, 200, 200, ""),
        2013: Peak(None, 13_000, 13_000, "790 k payments in the peak minute"),
        2014: Peak(80_000, 38_500, 47_500, "sources disagree on the payments: 38.5 k to 47.5 k"),
        2015: Peak(140_000, 85_900, 85_900, ""),
        2016: Peak(175_000, 120_000, 120_000, ""),
        2017: Peak(
            325_000,
            256_000,
            256_000,
            "5 min 22 s after midnight; 42 M database requests/s; 1.27 orders and 164 database requests a payment",
        ),
        2018: Peak(491_000, None, None, ""),
        2019: Peak(544_000, None, None, "61 M database requests/s"),
        2020: Peak(583_000, None, None, "26 s after midnight"),
    }
)
