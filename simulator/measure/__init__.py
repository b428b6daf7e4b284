"""What the client saw: mergeable histograms, counts per second, and whether the measurement may be believed."""

from __future__ import annotations
