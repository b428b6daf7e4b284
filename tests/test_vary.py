"""`--vary`: what makes a grid, and what is refused before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ScenarioError, UsageError
from simulator.scenario.vary import MOST_VARIANTS, Axis, expand, labels, parse_axes

if TYPE_CHECKING:
    from pathlib import Path

SCENARIO = "name: a\nduration: 1s\nload: {rate: 100/s, accounts: 1000}\n"


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(SCENARIO, "utf-8")
    return path


def test_the_grid_has_every_combination_and_the_last_axis_changes_fastest(scenario: Path) -> None:
    axes = parse_axes(["balancer.policy=random,p2c", "backend.embedded.nodes=1,2,4"])
    variants = expand(scenario, axes, [], {})
    assert [v.name for v in variants] == [
        f"policy={policy}, nodes={nodes}" for policy in ("random", "p2c") for nodes in (1, 2, 4)
    ]
    assert [v.number for v in variants] == [1, 2, 3, 4, 5, 6]
    assert variants[5].settings == (("balancer.policy", "p2c"), ("backend.embedded.nodes", "4"))
    found = variants[5].scenario
    assert (found.balancer.policy, found.backend.embedded and found.backend.embedded.nodes) == ("p2c", 4)
    assert len({v.folder for v in variants}) == 6


def test_a_varied_value_comes_after_what_is_set_and_what_the_environment_says(scenario: Path) -> None:
    (axis,) = parse_axes(["load.rate=1/s,2/s"])
    variants = expand(scenario, [axis], ["load.rate=9/s"], {"SIM_LOAD__RATE": "8/s", "SIM_SEED": "5"})
    assert [v.scenario.load.rate for v in variants] == [1.0, 2.0]
    assert {v.scenario.seed for v in variants} == {5}


def test_commas_within_brackets_and_quotes_part_nothing() -> None:
    (axis,) = parse_axes(["backend={embedded: {nodes: 1, shards: 4}},{noop: {}}"])
    assert axis.values == ("{embedded: {nodes: 1, shards: 4}}", "{noop: {}}")
    assert parse_axes(["name='a,b',c"])[0].values == ("'a,b'", "c")


words = st.text("abcxyz0123456789", min_size=1, max_size=5)


@given(st.lists(words, min_size=1, max_size=8, unique=True))
def test_what_is_written_with_commas_between_comes_apart_as_it_was(values: list[str]) -> None:
    assert parse_axes([f"a.b={','.join(values)}"]) == (Axis("a.b", tuple(values)),)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (["balancer.policy"], "write it as path=a,b,c"),
        (["=a,b"], "write it as path=a,b,c"),
        (["a..b=1"], "write it as path=a,b,c"),
        (["seed=1,,2"], "a value is empty"),
        (["seed="], "a value is empty"),
        (["seed=1,2,1"], "'1' stands there twice"),
        (["seed=1", "seed=2"], "seed is varied already"),
        (["seed=" + ",".join(map(str, range(100))), "name=a,b,c"], "100 × 3 make 300 variants"),
    ],
)
def test_what_is_no_grid_is_a_wrong_command_line(written: list[str], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_axes(written)
    assert told in str(raised.value)
    assert str(MOST_VARIANTS) in str(raised.value) or "make" not in told


def test_wrong_values_are_all_named_at_once_and_each_once(scenario: Path) -> None:
    axes = parse_axes(["balancer.policy=random,p3c", "seed=1,-2,3"])
    with pytest.raises(ScenarioError) as raised:
        expand(scenario, axes, [], {})
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert any("--vary balancer.policy=p3c" in line and "p3c" in line for line in lines)
    assert any("--vary seed=-2" in line for line in lines)


def test_a_field_that_there_is_not_is_told_with_its_neighbours(scenario: Path) -> None:
    with pytest.raises(ScenarioError, match="did you mean"):
        expand(scenario, parse_axes(["balancer.polcy=random"]), [], {})


def test_axes_with_the_same_last_word_are_called_by_their_paths() -> None:
    axes = parse_axes(["a.nodes=1", "b.nodes=2", "c.policy=x"])
    assert labels(axes) == ["a.nodes", "b.nodes", "policy"]
