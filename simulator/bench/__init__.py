"""What this machine can do: each ceiling measured beside a naive baseline in the same run.

`shards` measures the embedded platform: `premade` makes its transactions, `saturation` and `light_load` drive one `rig` (a
platform with its journals in a temporary folder) for one cell of the table, `naive` and `redis_streams` are what it is held
against, `table` shows the result.
"""

from __future__ import annotations
