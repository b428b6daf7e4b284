"""What a run drives: the seam (`backend`), and the implementations that ship."""

from __future__ import annotations
