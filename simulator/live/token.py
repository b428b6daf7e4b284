"""Who may see the page: whoever has the address that the run printed, and nobody else on this machine or in its browser."""

from __future__ import annotations

import hmac
import secrets

_BYTES = 24  # 192 bits: not guessed in the life of a run


def new_token() -> str:
    """A fresh secret, in characters that an address may have."""
    return secrets.token_urlsafe(_BYTES)


def matches(given: str, token: str) -> bool:
    """Whether the given one is the token, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
