"""What makes time pass in a run: the wall clock's loop."""

from __future__ import annotations
