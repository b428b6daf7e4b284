from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import simulator

PACKAGE = Path(simulator.__file__).parent

# From the foundations to the ends of the pipeline. A module imports from its own package and from what stands before it;
# the longest name that fits it says where it stands. Three modules stand apart from their packages: pure descriptions
# (curves, record layouts, the histogram's layout) that others build on.
ORDER = [
    "simulator",
    "simulator.errors",
    "simulator.kernel_cache",
    "simulator.kernel",
    "simulator.elementary",
    "simulator.seeds",
    "simulator.transaction",
    "simulator.clock",
    "simulator.process",
    "simulator.arrivals.curves",
    "simulator.scenario",
    "simulator.arrivals",
    "simulator.workload",
    "simulator.balancer",
    "simulator.measure.histogram",
    "simulator.shard.layout",
    "simulator.measure",
    "simulator.ledger",
    "simulator.shard",
    "simulator.backend",
    "simulator.fault",
    "simulator.gateway",
    "simulator.in_flight",
    "simulator.retries",
    "simulator.dispatcher",
    "simulator.engine",
    "simulator.audit",
    "simulator.report",
    "simulator.compare",
    "simulator.archive",
    "simulator.exports",
    "simulator.live",
    "simulator.warm",
    "simulator.bench",
    "simulator.verify",
    "simulator.doctor",
    "simulator.run",
    "simulator.cli",
]

# Imports against the order, all inside a function: what a scenario names (a curve, a trace) is looked at while it is read.
UPWARDS = {
    ("simulator.scenario.loader", "simulator.arrivals"),
    ("simulator.scenario.loader", "simulator.arrivals.trace"),
    ("simulator.scenario.plan", "simulator.arrivals"),
    ("simulator.scenario.plan", "simulator.workload.hot_keys"),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imported(module: str, node: ast.AST) -> set[str]:
    """What one statement imports, as full names; of our own package always modules."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    base = node.module or ""
    if node.level:
        package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([node.module] if node.module else [])])
    return {full if (full := f"{base}.{alias.name}") in MODULES else base for alias in node.names}


@cache
def imports(module: str) -> frozenset[str]:
    """Everything that a module imports anywhere: at its top, in functions, for type checking."""
    return frozenset(name for node in ast.walk(tree(module)) for name in imported(module, node))


def at_the_top(module: str) -> set[str]:
    """What it imports outside functions."""
    inner = {
        id(node)
        for function in ast.walk(tree(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    return {name for node in ast.walk(tree(module)) if id(node) not in inner for name in imported(module, node)}


def place(module: str) -> int:
    """Where a module stands; the package itself has no place for others, so a new one must be given one."""
    fitting = [entry for entry in ORDER if module == entry or (entry != "simulator" and module.startswith(f"{entry}."))]
    assert fitting, f"{module}: say in ORDER where it stands"
    return ORDER.index(max(fitting, key=len))


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def ours(names: frozenset[str] | set[str]) -> set[str]:
    return {name for name in names if name == "simulator" or name.startswith("simulator.")}


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def importers_of(*targets: str) -> set[str]:
    return {module for module in MODULES if any(within(name, *targets) for name in imports(module))}


def test_the_tests_see_the_whole_package() -> None:
    # Were the parsing wrong, every rule below would hold of nothing.
    assert len(MODULES) > 40
    assert "simulator.shard.layout" in imports("simulator.shard.ring")
    assert "simulator.process" in imports("simulator.shard.pool")
    assert "numpy" in imports("simulator.transaction")
    assert "simulator.arrivals.trace" in imports("simulator.scenario.loader") - at_the_top("simulator.scenario.loader")


def test_imports_point_down_the_pipeline() -> None:
    upwards = {
        (module, target)
        for module in MODULES
        for target in ours(imports(module))
        if place(target) > place(module) and package_of(target) != package_of(module)
    }
    assert upwards == UPWARDS
    assert not {(module, target) for module, target in UPWARDS if target in at_the_top(module)}


def test_no_two_modules_import_each_other_at_their_tops() -> None:
    below = {module: ours(at_the_top(module)) - {module, "simulator"} for module in MODULES}
    while below:
        free = {module for module, targets in below.items() if not targets & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {module: targets for module, targets in below.items() if module not in free}


def test_every_place_in_the_order_is_taken() -> None:
    assert {ORDER[place(module)] for module in MODULES} == set(ORDER)


def test_only_the_ends_import_what_assembles_a_run() -> None:
    ends = importers_of("simulator.run", "simulator.cli")
    assert not {module for module in ends if not within(module, "simulator.run", "simulator.cli")}


def test_a_run_is_put_together_from_parts_that_point_one_way() -> None:
    # What a clock makes of a scenario knows neither the other clock nor who asked.
    below = [
        "folder", "interrupts", "live", "audit", "memory", "abort", "theory", "balance", "virtual_balance", "gateways",
        "generators", "trip", "wall", "virtual", "outcome", "once",
        "sweep", "serve",
    ]  # fmt: skip
    named = [f"simulator.run.{name}" for name in below]
    assert {module for module in MODULES if module.startswith("simulator.run.")} == set(named)
    for at, module in enumerate(named):
        assert not imports(module) & set(named[at:]), module
    assert not imports("simulator.run.wall") & {"simulator.run.virtual"}


def test_only_a_run_compiles_ahead() -> None:
    assert not {module for module in importers_of("simulator.warm") if not within(
        module, "simulator.run", "simulator.cli", "simulator.bench", "simulator.doctor"
    )}  # fmt: skip


def test_the_ledger_knows_no_process_and_no_file() -> None:
    machinery = ("worker", "pool", "journal", "ring")
    clients = importers_of(*(f"simulator.shard.{name}" for name in machinery), "os", "io", "pathlib", "multiprocessing")
    assert not {module for module in clients if within(module, "simulator.ledger")}


@pytest.mark.parametrize("pure", ["measure", "balancer", "ledger", "workload", "arrivals"])
def test_what_decides_or_counts_knows_nothing_of_runs_and_reports(pure: str) -> None:
    ends = importers_of(*(f"simulator.{name}" for name in ("report", "audit", "engine", "dispatcher", "run")))
    assert not {module for module in ends if within(module, f"simulator.{pure}")}


def test_a_scenario_is_read_without_the_platform() -> None:
    platform = importers_of(*(f"simulator.{name}" for name in ("shard", "ledger", "backend", "engine", "run")))
    assert not {module for module in platform if within(module, "simulator.scenario")}


def test_the_auditor_trusts_no_kernel_that_books() -> None:
    kernels = ("post", "replay", "window", "exchange", "tcc", "credit", "output")
    bookers = importers_of(*(f"simulator.ledger.{name}" for name in kernels))
    assert not {module for module in bookers if within(module, "simulator.audit")}


def test_nobody_imports_locust() -> None:
    # It patches the standard library when it is imported; only an adapter in a process of its own may do that.
    assert importers_of("locust", "gevent") == set()


def test_no_module_is_named_after_nothing_in_particular() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "core", "misc"}
    assert not {module for module in MODULES if vague & set(module.split("."))}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert len((ast.get_docstring(tree(module)) or "").split()) >= 4


def test_every_folder_of_sources_is_a_package() -> None:
    folders = {path.parent for path in MODULES.values()}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_the_package_holds_no_tests() -> None:
    named = {
        f"{module}.{node.name}"
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if node.name.startswith(("test_", "Test"))
    }
    assert named == set()
    assert importers_of("pytest", "hypothesis", "unittest") == set()
