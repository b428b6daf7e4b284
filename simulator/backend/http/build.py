"""From a scenario to targets: addresses that are resolved once and judged, certificates, secrets, compiled requests.

A run may only load machines it is allowed to. Loopback and Unix sockets are always allowed; any other host only if the command
line names it, never by the scenario alone; link-local addresses, where clouds keep their metadata, never. The address found here
is the one that is used throughout, so a name that changes its mind cannot redirect the load. Redirects and proxies are
nothing this client knows.
"""

from __future__ import annotations

import ipaddress
import resource
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from simulator.backend.http.backend import HttpBackend, Options, Target
from simulator.backend.http.judge import Judge
from simulator.backend.http.template import Template, Terms, compile_template
from simulator.errors import ScenarioError, UsageError
from simulator.scenario.client import NO_CLIENT_BEHAVIOUR
from simulator.scenario.http import SECRET
from simulator.scenario.units import minor_digits
from simulator.transaction import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from simulator.measure.answerers import Answerers
    from simulator.scenario.client import Client
    from simulator.scenario.http import Http, Tls

_HTTP, _HTTPS = 80, 443


class _Place(NamedTuple):
    host: str
    port: int
    address: str


def build_http(
    http: Http,
    *,
    currency: str,
    run: str,
    allowed: Collection[str],
    environ: Mapping[str, str],
    now_ns: Callable[[], int],
    answerers: Answerers | None = None,
    targets: Sequence[str] = (),
    shards: int = 0,
    client: Client = NO_CLIENT_BEHAVIOUR,
) -> HttpBackend:
    """The backend that a scenario describes; nothing is sent yet.

    Args:
        http: the scenario's part. Its connections are those of all its generators; see `HttpBackend.part`.
        currency: of the amounts.
        run: what sets this run's idempotency keys apart from any other's.
        allowed: `host:port` of targets beyond loopback that the command line allows.
        environ: where secrets are.
        now_ns: the run's clock.
        answerers: counts who answered.
        targets: instead of the scenario's: a fleet's.
        shards: of that fleet's ledger; 0: it is somebody else's, and says nothing of it.
        client: how long clients wait, where the scenario says it there.

    Raises:
        UsageError: for a target that is not allowed.
        ScenarioError: for one that cannot be resolved, a secret that is not set, a certificate file that cannot be read.
    """
    unset = sorted(name for name in http.secrets if name not in environ)
    if unset:
        what = "is" if len(unset) == 1 else "are"
        raise ScenarioError(f"backend.http.headers: ${', $'.join(unset)} {what} not set in the environment")
    terms = Terms(f"{run}-", currency, minor_digits(currency))
    resolved = [_target(http, url, allowed, environ, terms) for url in targets or http.targets]
    by_status = {status: Status[meaning.upper()] for status, meaning in http.response.by_status.items()}
    values = {value: Status[meaning.upper()] for value, meaning in http.response.values.items()}
    judge = Judge(by_status, tuple((http.response.field or "").split(".")) if http.response.field else (), values)
    options = Options(
        connections=max(1, http.connections // len(resolved)),
        keep_alive=http.keep_alive,
        connect_ns=http.connect_timeout,
        timeout_ns=client.timeout or http.timeout,
        judge=judge,
        identify=(http.identify_header or "").encode(),
        deadline_ns=client.deadline or 0,
        shards=max(shards, 1),
        receipts=shards > 0,
    )
    return HttpBackend(resolved, options, now_ns, answerers)


def _target(http: Http, url: str, allowed: Collection[str], environ: Mapping[str, str], terms: Terms) -> Target:
    if url.startswith("http://unix:"):
        path = url.removeprefix("http://unix:")
        return Target(url, "localhost", path, 0, None, None, _templates(http, "localhost", environ, terms))
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (_HTTPS if secure else _HTTP)
    place = _resolve(parts.hostname or "", port, allowed)
    written = f"[{place.host}]" if ":" in place.host else place.host
    default = port == (_HTTPS if secure else _HTTP)
    host = written if default else f"{written}:{port}"
    tls = _tls(http.tls) if secure else None
    return Target(
        url, host, place.address, port, tls, place.host if secure else None, _templates(http, host, environ, terms)
    )


def _resolve(host: str, port: int, allowed: Collection[str]) -> _Place:
    """The one address that is used for a host, if load may be sent there at all."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(f"backend.http.targets: {host} cannot be resolved: {reason}") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    judged = [ipaddress.ip_address(address) for address in addresses]
    judged = [getattr(address, "ipv4_mapped", None) or address for address in judged]
    for address in judged:
        if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
            named = host if host == str(address) else f"{host} is {address}"
            raise UsageError(f"{named}: link-local, metadata and multicast addresses are never loaded")
    if not all(address.is_loopback for address in judged) and f"{host}:{port}" not in allowed:
        raise UsageError(
            f"{host}:{port} is not on this machine; if you may load it, say so on the command line: "
            f"--allow-target {host}:{port}"
        )
    return _Place(host, port, next((a for a in addresses if _listens(a, port)), addresses[0]))


def _listens(address: str, port: int) -> bool:
    """A name may stand for several addresses, of which a server often serves only one (localhost: ::1 and 127.0.0.1)."""
    try:
        socket.create_connection((address, port), 1.0).close()
    except OSError:
        return False
    return True


# Where clouds keep credentials, outside the link-local range: an IPv6 one and two of single providers.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))


def _tls(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise ScenarioError(f"backend.http.tls.ca: {tls.ca} cannot be read as certificates: {reason}") from None
    context.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _templates(http: Http, host: str, environ: Mapping[str, str], terms: Terms) -> dict[Kind, Template]:
    made: dict[Kind, Template] = {}
    for kind in Kind:
        method, path, headers, body = http.request_of(kind.name.lower())
        open_headers = {name: SECRET.sub(lambda found: environ[found.group(1)], text) for name, text in headers.items()}
        if body is not None and not any(name.lower() == "content-type" for name in headers):
            open_headers["Content-Type"] = "application/json"
        if not http.keep_alive:
            open_headers["Connection"] = "close"
        try:
            made[kind] = compile_template(kind, method, path, open_headers, body, terms, host)
        except ValueError as error:
            raise ScenarioError(f"backend.http.headers: {error}") from None
    return made


def descriptors_needed(http: Http) -> int:
    """File descriptors that one generator needs."""
    return -(-http.connections // http.generators) + http.target_count + 64  # each target's are dealt out by themselves


def check_descriptors(http: Http) -> None:
    """Raises ScenarioError if this process may not open enough files; raises the soft limit to the hard one first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = descriptors_needed(http)
    if soft < needed and soft != resource.RLIM_INFINITY:
        wanted = needed if hard == resource.RLIM_INFINITY else min(max(needed, soft), hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ScenarioError(
            f"backend.http.connections: {http.connections} need {needed} open files, but this process may have {soft}; "
            f"raise it with `ulimit -n {needed}`, or ask for fewer connections"
        )
