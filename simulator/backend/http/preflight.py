"""One request to each target before the run: does it listen, is its certificate good, does it speak HTTP?

`OPTIONS *` asks a server about itself (RFC 9110, 9.3.7) and changes nothing; any answer that is HTTP will do.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from simulator.errors import BackendError

if TYPE_CHECKING:
    from simulator.backend.http.backend import Target

_REQUEST = b"OPTIONS * HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_ENOUGH = 8  # bytes that show whether this is HTTP


def preflight(target: Target, timeout_s: float) -> None:
    """Raises BackendError with one line that says what is wrong with a target."""
    try:
        with _connect(target, timeout_s) as peer:
            peer.sendall(_REQUEST % target.host.encode("ascii", "replace"))
            answer = b""
            while len(answer) < _ENOUGH and (more := peer.recv(1_024)):
                answer += more
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
        raise BackendError(
            f"{target.name}: its certificate is not good: {why}; an authority of your own goes into backend.http.tls.ca"
        ) from None
    except ssl.SSLError as error:
        raise BackendError(f"{target.name}: TLS could not be set up ({error.reason}); is it plain http?") from None
    except TimeoutError:
        raise BackendError(f"{target.name} did not answer within {timeout_s:g} s") from None
    except ConnectionResetError:
        spoken = "plain http" if target.tls is not None else "https"
        raise BackendError(f"{target.name} ended the connection unanswered; does it speak {spoken}?") from None
    except OSError as error:
        raise BackendError(f"{target.name} cannot be reached: {error.strerror or error}") from None
    if not answer.startswith(b"HTTP/1."):
        said = ascii(answer[:24].decode("latin-1")) if answer else "nothing"
        raise BackendError(f"{target.name} does not speak HTTP/1: it said {said}")


def _connect(target: Target, timeout_s: float) -> socket.socket:
    if not target.port:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(timeout_s)
        try:
            peer.connect(target.address)
        except OSError:
            peer.close()
            raise
        return peer
    peer = socket.create_connection((target.address, target.port), timeout_s)
    if target.tls is None:
        return peer
    try:
        return target.tls.wrap_socket(peer, server_hostname=target.server_name)
    except OSError:
        peer.close()
        raise
