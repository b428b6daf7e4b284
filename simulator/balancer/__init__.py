"""Which node a transaction enters, and how evenly that turned out."""

from __future__ import annotations
