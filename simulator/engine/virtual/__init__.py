"""The virtual clock's engine: a discrete-event simulation of the scenario's platform, transaction by transaction.

In the order of the path: `model` turns a scenario into arrays, `service` draws how long things take, `records` lays out what
is in flight, `calendar` keeps what is to happen in order, `client` is what a client decides (retries, budgets), `general` is
the engine with every feature, `fast` the one for platforms that nothing strikes, `direct` the one for the simplest of these,
`ahead` and `agenda` what the two share, `tally` what is counted on the way, `simulation` runs them block by block, and `stations`
is the direct face to queues for whoever checks the theory.
"""
