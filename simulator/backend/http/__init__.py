"""A payment gateway elsewhere, over HTTP/1.1: request templates, connections, and the backend over them."""

from __future__ import annotations
