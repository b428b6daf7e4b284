"""What breaks during a run, when and where: `schedule` turns a scenario's faults into single strikes.

It decides and does nothing: whoever runs the nodes carries the strikes out. The package itself imports nothing.
"""
