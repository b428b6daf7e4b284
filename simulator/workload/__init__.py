"""Who pays whom how much: parties (`popularity`), amounts (`ticket`), kinds (`life_cycle`), joined in `generator`.

`source` joins a workload with arrivals into the transactions of a run; `build` makes one from a scenario. The package
itself imports nothing, so that its parts cost only who uses them.
"""
