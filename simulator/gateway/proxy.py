"""nginx or HAProxy before a fleet: the real program, in the foreground, with a configuration that is written for the run.

It runs as one process that dies with us, whatever kills us: nginx without its master (whose workers would outlive a killed
one), HAProxy with one thread and no daemon. It listens on loopback, at a port that is held for it, and writes nowhere but into
the run's folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from typing import TYPE_CHECKING

from simulator import process
from simulator.errors import BackendError, ScenarioError
from simulator.gateway.server import Listen, reserved
from simulator.scenario.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from simulator.scenario.gateway_fleet import Proxy

_START_S = 10.0
_LOOK_S = 0.01
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")  # beside $PATH, which may lack sbin
_NGINX_POLICY = {"round_robin": "", "least_connections": "least_conn;", "random": "random two least_conn;"}
_HAPROXY_POLICY = {"round_robin": "roundrobin", "least_connections": "leastconn", "random": "random(2)"}


def program_of(proxy: Proxy) -> str:
    """Where the program is. Raises ScenarioError if it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_PLACES))
    found = shutil.which(proxy.program, path=path)
    if found is None:
        raise ScenarioError(
            f"backend.http.fleet.proxy: {proxy.program} is not installed; on Debian or Ubuntu: apt-get install {proxy.program}"
        )
    return found


def nginx_config(proxy: Proxy, listen: Listen, gateways: Sequence[Listen], folder: Path, connections: int) -> str:
    """A server that hands on to the gateways. A request that was sent is never sent to another one: it may have been booked."""
    seconds = -(-proxy.retry_after // NS_PER_S)  # nginx counts these in whole seconds
    servers = "\n".join(f"    server {g.host}:{g.port} max_fails=1 fail_timeout={seconds}s;" for g in gateways)
    temporary = "\n".join(
        f"  {name}_temp_path {folder}/{name}_temp;" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections {2 * connections + 256}; }}
http {{
  access_log off;
  server_tokens off;
{temporary}
  keepalive_requests 100000000;
  upstream fleet {{
    {_NGINX_POLICY[proxy.policy]}
{servers}
    keepalive {connections};
    keepalive_requests 100000000;
  }}
  server {{
    listen {listen.host}:{listen.port} reuseport backlog=4096;
    location / {{
      proxy_pass http://fleet;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_connect_timeout 1s;
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""


def haproxy_config(proxy: Proxy, listen: Listen, gateways: Sequence[Listen], connections: int) -> str:
    """A frontend that hands on to the gateways, whose health it asks for. Only a connection that failed is tried elsewhere."""
    every = max(proxy.retry_after // NS_PER_MS, 1)
    servers = "\n".join(
        f"    server gateway-{number} {g.host}:{g.port} check inter {every}ms fall 2 rise 1"
        for number, g in enumerate(gateways)
    )
    return f"""\
global
    maxconn {connections + 256}
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 1h
    timeout server 60s
    option redispatch 1
    retries 2
    retry-on conn-failure
frontend spike
    bind {listen.host}:{listen.port}
    default_backend fleet
backend fleet
    balance {_HAPROXY_POLICY[proxy.policy]}
    http-reuse always
    option httpchk GET /healthz
{servers}
"""


def _exec(command: list[str], log: str) -> None:
    """Becomes the program; that it dies with its parent survives this."""
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.execv(command[0], command)  # noqa: S606  a program that was looked up, with our own arguments


class ProxyProcess:
    """The program before a fleet.

    Args:
        proxy: what the scenario says.
        gateways: where they listen.
        folder: for its configuration and what it says; it must exist.
        connections: how many clients it must bear.

    Raises:
        ScenarioError: if it is not installed.
        BackendError: if no port can be had.
    """

    def __init__(self, proxy: Proxy, gateways: Sequence[Listen], folder: Path, connections: int) -> None:
        self._name = proxy.program
        program = program_of(proxy)
        try:
            self._holder = reserved(Listen("127.0.0.1", 0))
        except OSError as error:
            raise BackendError(f"no port can be had for {proxy.program}: {error.strerror}") from error
        self._listen = Listen("127.0.0.1", self._holder.getsockname()[1])
        folder = folder.resolve()
        self._log = folder / f"{proxy.program}.log"
        config = folder / f"{proxy.program}.conf"
        if proxy.program == "nginx":
            config.write_text(nginx_config(proxy, self._listen, gateways, folder, connections), "utf-8")
            self._command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
        else:
            config.write_text(haproxy_config(proxy, self._listen, gateways, connections), "utf-8")
            self._command = [program, "-db", "-q", "-f", str(config)]
        self._folder = folder
        self._child: ForkProcess | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._listen.host}:{self._listen.port}"

    @property
    def pids(self) -> list[int]:
        """Its process."""
        return [self._child.pid or 0] if self._child is not None else []

    @property
    def failure(self) -> str | None:
        """Why it ended, if it did."""
        if self._child is None or self._child.is_alive():
            return None
        return f"{self._name} ended by itself: {self._last_words()}"

    def start(self) -> None:
        """Starts it and returns when it listens. Raises BackendError, with what it said, if it does not."""
        self._child = process.start(self._name, _exec, self._command, str(self._log))
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(self._listen, _LOOK_S).close()
            except OSError:
                if self._child.is_alive() and time.monotonic() < deadline:
                    time.sleep(_LOOK_S)
                    continue
                said = self._last_words()
                self.kill()
                raise BackendError(f"{self._name} could not be started: {said}") from None
            return

    def _last_words(self) -> str:
        for path in (self._log, self._folder / "error.log"):
            try:
                lines = path.read_text("utf-8", "replace").strip().splitlines()
            except OSError:
                continue
            if lines:
                return lines[-1][:300]
        return "it said nothing"

    def kill(self) -> None:
        """Ends it, and gives its port back."""
        if self._child is not None:
            process.kill(self._child)
        for leftover in self._folder.glob("*_temp"):
            shutil.rmtree(leftover, ignore_errors=True)
        (self._folder / "nginx.pid").unlink(missing_ok=True)
        self._holder.close()
