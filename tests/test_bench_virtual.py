"""`sim bench virtual`: that it measures what it says. How fast is no test's business."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from simulator.bench import virtual as bench
from simulator.engine.virtual.model import compile_scenario
from simulator.engine.virtual.simulation import Engine, engine_for

if TYPE_CHECKING:
    from pathlib import Path


def test_the_figures_are_of_what_they_are_called(tmp_path: Path) -> None:
    told: list[str] = []
    results = bench.measure(bench.Settings(3_000, 300, 1), told.append, tmp_path)
    names = [figure.name for figure in results.figures]
    assert names[:3] == ["M/M/1", "two choices, 100 nodes", "full model, 100 nodes"]
    assert set(results.cost_by_nodes) == set(bench.NODES)
    assert set(results.baselines_per_s) <= {"simpy", "ciw"}
    assert set(results.figures[0].baselines) == set(results.baselines_per_s)
    data = json.loads(json.dumps(results.as_json(), allow_nan=False))
    assert all(figure["per_s"] > 0 for figure in data["figures"])
    text = bench.render(results)
    assert all(name in text for name in names)
    assert len(told) == bench.Settings(3_000, 300, 1).steps()


def test_two_choices_are_of_the_simplest_kind_and_the_full_model_has_clients_that_act() -> None:
    assert engine_for(compile_scenario(bench.fleet(100, 1_000))) is Engine.DIRECT
    full = bench.fleet(100, 1_000, full=True)
    assert engine_for(compile_scenario(full)) is Engine.FAST
    assert full.client.timeout
    assert full.client.retries


def test_the_baselines_serve_the_same_queue() -> None:
    for name, baseline in bench.BASELINES.items():
        pytest.importorskip(name)
        assert baseline(200) > 0
