"""The sharded queue workers: bounded rings, node processes that own shards, and a journal for each node.

Path of a transaction: `ring` (dispatcher → node) → `worker` (`simulator.ledger` books it) → `journal` (group commit) →
`ring` (node → dispatcher). `pool` starts, watches and stops the node processes; `layout` has the records they share.
"""

from __future__ import annotations
