"""The virtual clock on one core beside SimPy and Ciw: `sim bench virtual`, with its options."""

from __future__ import annotations

import sys

from simulator.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "virtual", *sys.argv[1:]]))
