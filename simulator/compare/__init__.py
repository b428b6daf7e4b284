"""Compares runs: `samples` reads them, `blocks` resamples time, `effects` measures a difference, `verdict` judges all together.

`sides` says what may be compared and what differs, `gate` holds a run against its baseline, `command` is `sim compare`.
"""
