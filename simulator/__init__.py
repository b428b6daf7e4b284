"""The transaction load simulator.

A *scenario* describes *arrivals* (when) and a *workload* (who pays whom how much); the *dispatcher* releases each
*transaction* at its intended time by the *clock*, the *balancer* picks the node it enters, the *backend* carries it to the
*shard* that owns the payer, where the *ledger* books it and the journal makes it durable, while *faults* break what they
are told to; *measure* records what the client saw, *audit* proves from the journals that no money went missing, and the
*report* says it all in one verdict.
"""

from __future__ import annotations

__version__ = "0.1.0"
