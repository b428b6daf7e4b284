"""The ceilings of the embedded platform beside naive baselines: `sim bench shards`, with its options."""

from __future__ import annotations

import sys

from simulator.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "shards", *sys.argv[1:]]))
