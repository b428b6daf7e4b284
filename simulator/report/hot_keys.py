"""Hot keys beside cold ones, and how evenly shards are loaded: this part of `summary.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.balancer.behaviour import spread
from simulator.measure.histogram import Histogram
from simulator.measure.recorder import RESPONSE
from simulator.report.times import times_ms
from simulator.transaction import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.audit.credit_lag import CreditLag
    from simulator.measure.recorder import Tallies
    from simulator.workload.hot_keys import Popular


def shard_imbalance(loads: NDArray[Any]) -> float | None:
    """The busiest shard's load over the mean; None where there is none."""
    found = spread(loads)
    return round(found.imbalance_max_over_mean, 6) if found else None


def hot_and_cold(tallies: Tallies, popular: Popular, lag: CreditLag | None) -> dict[str, Any]:
    """`hot_keys` and `cold_keys`. Cold is the whole less hot, count by count, so that both together are the whole exactly."""
    whole, hot = tallies.by_kind.sum(axis=0), tallies.hot_by_status
    offered = int(whole[Status.PENDING])
    of_hot = int(hot[Status.PENDING])
    response = Histogram(tallies.totals[RESPONSE] - tallies.hot_response)
    shards = len(tallies.shard_credited)

    def part(count: int) -> float | None:
        return round(count / offered, 6) if offered else None

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return {
        "hot_keys": {
            "accounts": popular.hot.accounts,
            "first_account": popular.hot.first,
            "split": popular.ways,
            "split_accounts": popular.split if popular.ways > 1 else 0,
            "offered": of_hot,
            "share": part(of_hot),
            "payments_share_expected": rounded(popular.share),
            "largest_account_share_expected": rounded(popular.largest_account_share),
            "credited_max_over_mean": shard_imbalance(tallies.shard_credited),
            "credited_max_over_mean_expected": rounded(popular.expected_imbalance(shards)),
            "response_time_ms": times_ms(Histogram(tallies.hot_response)),
            "credit_lag_ms": times_ms(lag.hot) if lag else None,
        },
        "cold_keys": {
            "offered": offered - of_hot,
            "share": part(offered - of_hot),
            "response_time_ms": times_ms(response),
            "credit_lag_ms": times_ms(lag.cold) if lag else None,
        },
    }


def shard_details(tallies: Tallies, applied: list[int], lag: CreditLag | None) -> list[dict[str, Any]]:
    """What each shard did beyond its log: payments credited, share of all records, credit lag."""
    records = sum(applied)
    return [
        {
            "share": round(applied[shard] / records, 6) if records else None,
            "credited": int(tallies.shard_credited[shard]),
            "credit_lag_ms": times_ms(lag.shards[shard]) if lag else None,
        }
        for shard in range(len(applied))
    ]
