"""The `sim` command: parses, calls, and ends with an exit code. No logic, and no import before a verb needs it."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from simulator import __version__
from simulator.errors import Exit, SimError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = typer.Typer(
    name="sim",
    help="Replays payment spikes against a payment backend: how fast, how even, and is every yuan still there?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich would take longer than showing it
    pretty_exceptions_enable=False,
)

benches = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
saved = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(benches, name="bench", help="Measure what this machine can do, beside a naive baseline.")
app.add_typer(saved, name="baseline", help="Keep runs under a name, to hold later ones against.")

P = ParamSpec("P")


class ClockName(StrEnum):
    """The scenario's clocks, as a flag takes them."""

    WALL = "wall"
    VIRTUAL = "virtual"


class FormName(StrEnum):
    """How `sim report` says a run."""

    HTML = "html"
    JSON = "json"
    MD = "md"
    CSV = "csv"
    PARQUET = "parquet"


class DurabilityName(StrEnum):
    """What `sim serve` promises, as a flag takes it."""

    MEMORY = "memory"
    OS = "os"
    GROUP = "group"


ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file, such as scenarios/peak.yaml.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, below results/.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field, e.g. load.accounts=1000. May be repeated."),
]
Clock = Annotated[ClockName | None, typer.Option(help="Override the scenario's clock.")]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, max=2**63 - 1, help="Override the scenario's seed.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line (`sys.argv` by default) and returns the exit code."""
    try:
        app(args=argv, prog_name="sim")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else Exit.ERROR
    return Exit.OK


def _verb(work: Callable[P, int], group: typer.Typer = app) -> Callable[P, None]:
    """Registers a verb, and turns what it returns or raises into the exit code."""

    @group.command(work.__name__.rstrip("_"))
    @functools.wraps(work)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(_ended(functools.partial(work, *args, **kwargs)))

    return command


def _bench(work: Callable[P, int]) -> Callable[P, None]:
    """As `_verb`, below `sim bench`."""
    return _verb(work, benches)


def _baseline(work: Callable[P, int]) -> Callable[P, None]:
    """As `_verb`, below `sim baseline`."""
    return _verb(work, saved)


def _ended(work: Callable[[], int]) -> int:
    try:
        return int(work())
    except SimError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        raise  # whoever read our output has read enough, as in `sim schema | head`; typer ends quietly
    except Exception as error:  # noqa: BLE001  the last resort: a user never sees a traceback unasked
        if os.environ.get("SIM_DEBUG"):
            traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        _complain(f"unexpected error: {text}; set SIM_DEBUG=1 for the traceback")
        return Exit.ERROR


def _complain(text: str) -> None:
    for line in text.splitlines() or [""]:
        typer.echo(f"sim: {line}", err=True)


def _overrides(settings: list[str] | None, clock: ClockName | None, seed: int | None) -> list[str]:
    """The flags as what they are short for; a flag says it last."""
    flags = {"clock": clock, "seed": seed}
    return [*(settings or []), *(f"{name}={value}" for name, value in flags.items() if value is not None)]


@_verb
def run(
    scenario: ScenarioFile,
    settings: Set = None,
    clock: Clock = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder, which must not exist yet.")] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="PATH=A,B,C",
            help="Run one variant for each value, e.g. balancer.policy=random,p2c; repeated: every combination.",
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            "--repeat", metavar="N", help="Run it N times, with a seed of its own each, to tell noise from change."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What thresholds on a baseline are held against: a name, or a run's folder."),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit's XML there.")] = None,
    summary_md: Annotated[
        Path | None, typer.Option("--summary-md", metavar="FILE", help="Write a short summary in Markdown there.")
    ] = None,
    *,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict only.")] = False,
    allow_target: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="A target beyond this machine that you may load. May be repeated."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Show the run while it goes on: a page on this machine, with charts and a stop button."
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=65_535, help="The page's; without it any that is free.")
    ] = None,
) -> int:
    """Run a scenario; its results go to a folder below results/."""
    _check_live(live=live, port=port, several=bool(vary) or repeat is not None)
    overrides, allowed = _overrides(settings, clock, seed), frozenset(allow_target or ())
    if vary and (repeat is not None or baseline):
        raise UsageError(
            "--vary does not go with --repeat or --baseline; write --vary seed=1,2,3 to repeat every variant"
        )
    from simulator.scenario.loader import load  # noqa: PLC0415  heavy

    if vary or repeat is not None:
        from simulator.scenario.vary import expand, parse_axes, repetitions  # noqa: PLC0415  heavy

        axes = (
            repetitions(load(scenario, overrides, os.environ).seed, repeat)
            if repeat is not None
            else parse_axes(vary or [])
        )
        variants = expand(scenario, axes, overrides, os.environ)
        from simulator.run.outcome import Wanted  # noqa: PLC0415  heavier
        from simulator.run.sweep import run_sweep  # noqa: PLC0415  heavier

        wanted = Wanted(junit, summary_md, baseline)
        noun = "repeat" if repeat else "sweep"
        return run_sweep(axes, variants, out=out, quiet=quiet, allowed=allowed, wanted=wanted, noun=noun)
    loaded = load(scenario, overrides, os.environ)
    from simulator.run import Wanted, run_scenario  # noqa: PLC0415  heavier: a mistake in the scenario is told without it

    return run_scenario(
        loaded,
        out=out,
        quiet=quiet,
        allowed=allowed,
        wanted=Wanted(junit, summary_md, baseline),
        live_port=(port or 0) if live else None,
    )


def _check_live(*, live: bool, port: int | None, several: bool) -> None:
    if port is not None and not live:
        raise UsageError("--port is the live page's; add --live")
    if live and several:
        raise UsageError("--live shows one run, and --vary and --repeat make several; leave one of them out")


@_verb
def check(scenario: ScenarioFile, settings: Set = None, clock: Clock = None, seed: Seed = None) -> int:
    """Validate a scenario and show what it will take, without running it."""
    from simulator.scenario.loader import load_with_origins  # noqa: PLC0415  heavy
    from simulator.scenario.plan import plan, render_plan  # noqa: PLC0415  heavy

    loaded = load_with_origins(scenario, _overrides(settings, clock, seed), os.environ)
    typer.echo(render_plan(loaded.scenario, plan(loaded.scenario), loaded.origins))
    return Exit.OK


@_verb
def report(
    run: RunFolder,
    baseline: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Lay another run's response times over the percentile plot.")
    ] = None,
    form: Annotated[
        FormName,
        typer.Option("--format", help="html: render the page again; parquet: a file in RUN; others are printed."),
    ] = FormName.HTML,
    otlp: Annotated[
        str | None, typer.Option("--otlp", metavar="URL", help="Also send its metrics to an OpenTelemetry collector.")
    ] = None,
) -> int:
    """Render the report of a run, or of a sweep, again; or say the run in another form."""
    if form is FormName.HTML:
        from simulator.report import render  # noqa: PLC0415  heavy

        typer.echo(str(render(run, baseline)))
    else:
        from simulator.exports.command import export  # noqa: PLC0415  heavy

        export(run, form, typer.echo)
    if otlp is not None:
        from simulator.exports.command import send_by_otlp  # noqa: PLC0415  heavy

        send_by_otlp(run, otlp, lambda text: typer.echo(text, err=True))
    return Exit.OK


@_verb
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... BASELINE", help="Folders, of a run or of repeated ones; the last may be a name."
        ),
    ],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page there.")] = None,
    summary_md: Annotated[
        Path | None, typer.Option("--summary-md", metavar="FILE", help="Also write Markdown there, for a CI job.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare runs whose figures are not to be believed.")] = False,
) -> int:
    """Compare runs with a baseline: better, worse, or no evidence; ends with 121 if one is worse."""
    if len(runs) < 2:  # noqa: PLR2004  a run and a baseline
        raise UsageError("a comparison takes two: sim compare RUN BASELINE")
    from simulator.compare.command import compare_runs  # noqa: PLC0415  heavy

    return compare_runs(runs[:-1], runs[-1], html=html, markdown=summary_md, as_json=as_json, force=force)


@_baseline
def save(
    run: RunFolder,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Left out: the scenario's name.")] = None,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Save over the one of that name.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also a run whose figures are not to be believed.")] = False,
) -> int:
    """Keep a run, or repeated runs, as a baseline in baselines/."""
    from simulator.compare.command import save_baseline  # noqa: PLC0415  heavy

    return save_baseline(run, name, replace=replace, force=force)


@_baseline
def list_() -> int:
    """List the baselines."""
    from simulator.compare.command import list_baselines  # noqa: PLC0415  heavy

    return list_baselines()


@_baseline
def show(name: Annotated[str, typer.Argument(metavar="NAME")]) -> int:
    """Show the runs of a baseline with their headline figures."""
    from simulator.compare.command import show_baseline  # noqa: PLC0415  heavy

    return show_baseline(name)


@_verb
def history(
    scenario: Annotated[
        str | None,
        typer.Argument(metavar="[SCENARIO]", help="Only runs of this one: its name or its file.", show_default=False),
    ] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where runs are.")] = Path("results"),
    most: Annotated[int, typer.Option("-n", metavar="N", min=1, max=10_000, help="The newest N.")] = 30,
    *,
    html: Annotated[
        bool, typer.Option("--html", help="Write the scenario's trend page into DIR, and print where.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """List the runs so far: when, what, verdict, rate, p99, audit."""
    from simulator.archive.command import show_history  # noqa: PLC0415  heavy

    return show_history(results, scenario, most=most, html=html, as_json=as_json)


@_verb
def prune(
    keep: Annotated[
        int, typer.Option(metavar="N", min=0, max=100_000, help="Of each scenario the newest N stay.")
    ] = 10,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where runs are.")] = Path("results"),
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> int:
    """Remove old runs; never what is not a run's folder, and never a baseline."""
    from simulator.archive.command import prune_results  # noqa: PLC0415  heavy

    return prune_results(results, keep, dry_run=dry_run)


@_verb
def audit(run: RunFolder) -> int:
    """Check a run's books again, from the journals."""
    from simulator.run import audit_run  # noqa: PLC0415  heavy

    return audit_run(run)


@_verb
def verify(
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**62, help="Of the first replication.")] = 1,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the customers: intervals three times as wide.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only cases whose name has this in it, e.g. M/M/1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Run the virtual engine against queueing theory; ends with 1 if any check fails."""
    from simulator.verify.command import verify_engine  # noqa: PLC0415  heavy

    return verify_engine(seed, quick=quick, only=only, as_json=as_json)


@_verb
def serve(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The first gateway's; 0: any that is free.")] = 8080,
    host: Annotated[str, typer.Option(help="Where it listens; beyond this machine only with --expose.")] = "127.0.0.1",
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", help="Its name in X-Node; several are NAME-0, NAME-1 …")
    ] = "gateway",
    gateways: Annotated[int, typer.Option(metavar="N", min=1, max=16, help="Processes, on a port each.")] = 1,
    accounts: Annotated[int, typer.Option(metavar="N", min=1, max=100_000_000, help="Customers.")] = 100_000,
    merchants: Annotated[int, typer.Option(metavar="N", min=0, max=10_000_000, help="Numbered behind them.")] = 1_000,
    balance: Annotated[str, typer.Option(metavar="MONEY", help="Each customer's at the start.")] = "1000000 CNY",
    nodes: Annotated[int, typer.Option(metavar="N", min=1, max=16, help="Processes of the ledger.")] = 1,
    shards: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="Of the ledger.")] = 16,
    durability: Annotated[DurabilityName, typer.Option(help="What an answer promises.")] = DurabilityName.GROUP,
    remember: Annotated[
        int, typer.Option(metavar="N", min=1_024, max=4_194_304, help="Ids each shard remembers; a power of two.")
    ] = 131_072,
    in_flight: Annotated[
        int, typer.Option(metavar="N", min=1, max=65_536, help="Requests at once in each gateway; beyond: 429.")
    ] = 8_192,
    rate: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1_000_000, help="Requests a second of each; beyond: 429.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.05, max=60.0, help="Beyond, an answer is in doubt.")
    ] = 5.0,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Journals stay here, and are taken up again; else they go at the end."),
    ] = None,
    *,
    expose: Annotated[
        bool, typer.Option("--expose", help="Let other machines in; it asks nobody who they are.")
    ] = False,
) -> int:
    """Serve the reference payment gateway: HTTP in front of the built-in platform."""
    from simulator.run.serve import run_gateway  # noqa: PLC0415  heavy

    return run_gateway(
        host=host, port=port, name=node, gateways=gateways, balance=balance, accounts=accounts, merchants=merchants,
        nodes=nodes, shards=shards, durability=durability.value, remember=remember, in_flight=in_flight, rate_per_s=rate,
        timeout_s=timeout, folder=folder, expose=expose,
    )  # fmt: skip


@_verb
def doctor(
    scenario: Annotated[
        Path | None,
        typer.Argument(metavar="[SCENARIO]", help="Say also what would limit this one here.", show_default=False),
    ] = None,
    settings: Set = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A look of a few seconds, not an examination.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Measure what this machine can generate, and what would limit a scenario on it; about 20 s, on loopback only."""
    from simulator.scenario.loader import load  # noqa: PLC0415  heavy

    loaded = None if scenario is None else load(scenario, _overrides(settings, None, None), os.environ)
    from simulator.doctor.command import see_doctor  # noqa: PLC0415  heavier: a mistake in the scenario is told without it

    return see_doctor(loaded, quick=quick, as_json=as_json)


@_verb
def schema() -> int:
    """Print the JSON Schema of scenario files, for editors."""
    import json  # noqa: PLC0415  one verb's

    from simulator.scenario.model import Scenario  # noqa: PLC0415  heavy

    typer.echo(json.dumps(Scenario.schema_for_editors(), indent=2, ensure_ascii=False))
    return Exit.OK


@_bench
def shards(
    seconds: Annotated[
        float | None, typer.Option(metavar="N", min=0.05, max=60.0, help="Measure each cell this long (2; quick: 0.4).")
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="R", min=1, max=99, help="Measure R times and take medians.")] = 1,
    *,
    curve: Annotated[
        bool,
        typer.Option("--curve", help="Also the cost of a transaction by shards and accounts (half a minute more)."),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a measurement: short cells.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> int:
    """Measure the embedded platform: each durability, transfers within a shard and as they come.

    Journals go to a temporary folder below the current one: durability means that disk. A cell writes at most 2 GB.
    """
    from simulator.bench import shards as bench  # noqa: PLC0415  heavy
    from simulator.bench.table import progress, show  # noqa: PLC0415  heavy

    asked = bench.settings(seconds, rounds, quick=quick, curve=curve)
    with progress(asked.steps()) as step:
        results = bench.measure(asked, step)
    if as_json:
        import json  # noqa: PLC0415  one verb's

        typer.echo(json.dumps(results.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(results)
    return Exit.OK


@_bench
def virtual(
    rounds: Annotated[
        int | None, typer.Option(metavar="R", min=1, max=99, help="Measure R times and take medians (3; quick: 1).")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a measurement: short runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Measure the virtual clock on one core: two choices, the full model, cost over nodes, ratio to SimPy and Ciw."""
    from simulator.bench import virtual as bench  # noqa: PLC0415  heavy
    from simulator.bench.table import progress  # noqa: PLC0415  heavy

    asked = bench.settings(quick=quick, rounds=rounds)
    with progress(asked.steps()) as step:
        results = bench.measure(asked, step, Path.cwd())
    if as_json:
        import json  # noqa: PLC0415  one verb's

        typer.echo(json.dumps(results.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(bench.render(results))
    return Exit.OK


def _print_version(asked: bool) -> None:  # noqa: FBT001  typer's callback signature
    if asked:
        typer.echo(f"sim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
