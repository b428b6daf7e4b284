"""Several generators beside one: the same schedule over HTTP against a built-in sink, each number of processes in turn.

    python benchmarks/bench_generators.py [rate/s] [seconds] [generators …]

Prints what was sent, the p99 of the lag, and CPU time a transaction over all generators, with its ratio to one generator's in
the same run. A generator that sends less sends less at a time, and a turn costs the same whatever it carries, so below its
ceiling the ratio is well above 1; near the ceiling what is left is the price of each making the whole stream. The sink takes a
core of its own, so n generators show what they can only with n + 1 cores to spare. Run it on a quiet machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from simulator.bench.sink import Sink

SCENARIO = """\
name: generators
duration: {seconds}s
load: {{rate: {rate}/s, accounts: 100_000, merchants: {{count: 1_000}}}}
backend: {{http: {{targets: ["{url}"], connections: 128, generators: {generators}}}}}
"""


def measured(url: str, rate: int, seconds: int, generators: int) -> dict[str, float]:
    """One run, in processes of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-generators-") as name:
        path, out = Path(name) / "s.yaml", Path(name) / "run"
        path.write_text(SCENARIO.format(seconds=seconds, rate=rate, url=url, generators=generators), "utf-8")
        command = [sys.executable, "-m", "simulator.cli", "run", str(path), "--out", str(out), "--quiet"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # it ends in 120: a sink keeps no books
        summary = json.loads((out / "summary.json").read_text("utf-8"))
    sent = summary["counts"]["sent"]
    return {
        "sent": sent / max(summary["counts"]["offered"], 1),
        "lag": summary["schedule_lag_ms"]["p99"] or 0.0,
        "cpu": summary["resources"]["engine_cpu_s"] / max(sent, 1) * 1e6,
    }


def main() -> None:
    """One row for each number of generators."""
    numbers = [int(text.replace("_", "")) for text in sys.argv[1:]]
    rate, seconds = (numbers + [20_000, 5][len(numbers) :])[:2]
    first = 0.0
    print(f"{rate:,}/s for {seconds} s  sent    lag p99  CPU a transaction  to one's")
    with Sink() as sink:
        for generators in numbers[2:] or [1, 2, 4]:
            found = measured(sink.url, rate, seconds, generators)
            first = first or found["cpu"]
            print(
                f"{generators:>2} generators  {found['sent']:>10.2%}  {found['lag']:>8.2f} ms  {found['cpu']:>14.1f} us"
                f"  {found['cpu'] / first:>7.2f}"
            )


if __name__ == "__main__":
    main()
