"""What queueing theory says, what the virtual engine does, and whether the two agree within their confidence."""

from __future__ import annotations
