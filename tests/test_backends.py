from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from backend_contract import AT_LAST_S, QUEUE, BackendContract, payments, through

from simulator.backend.backend import NoopBackend
from simulator.backend.embedded import EmbeddedBackend
from simulator.shard.journal import closing_path
from simulator.shard.layout import Durability, Shape
from simulator.shard.pool import Pool
from simulator.warm import warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.backend.backend import Backend

SHAPE = Shape(nodes=2, shards=4, customers=100, merchants=20, opening_minor=1_000_000, remember=8_192)


def pool_of(folder: Path, durability: Durability) -> Pool:
    return Pool(SHAPE, folder, durability=durability, interval_ns=10_000_000, queue=QUEUE, run=1)


@pytest.fixture(scope="module")
def _compiled() -> None:
    """Compiled before any fork, so that no node compiles for itself."""
    warm(None)


class TestNoop(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return NoopBackend(nodes=2, shards=4, queue=QUEUE)


@pytest.mark.usefixtures("_compiled")
class TestEmbedded(BackendContract):
    @pytest.fixture(params=[Durability.OS, Durability.GROUP], ids=["os", "group"])
    def backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
        pool = pool_of(tmp_path, request.param)
        pool.start()
        try:
            yield EmbeddedBackend(SHAPE, pool.wiring, pool.board)
            assert pool.failures() == []
        finally:
            pool.kill()
            pool.wiring.close()


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize("durability", Durability)
def test_a_stopped_platform_has_balanced_books(tmp_path: Path, durability: Durability) -> None:
    pool = pool_of(tmp_path, durability)
    pool.start()
    try:
        assert len(through(EmbeddedBackend(SHAPE, pool.wiring, pool.board), payments(1, 1_000))) == 1_000
        assert pool.stop(AT_LAST_S)
    finally:
        pool.kill()
        pool.wiring.close()
    sheets = [json.loads(closing_path(tmp_path, node).read_text("utf-8")) for node in range(SHAPE.nodes)]
    shards = {shard["shard"]: shard for sheet in sheets for shard in sheet["shards"]}
    assert sorted(shards) == list(range(SHAPE.shards))
    for shard in shards.values():
        there = [shards[peer]["transit_in_minor"][shard["shard"]] for peer in range(SHAPE.shards)]
        assert shard["transit_out_minor"] == there
    assert sum(sum(shard["transit_out_minor"]) for shard in shards.values()) > 0
    total = sum(shard["available_minor"] + shard["reserved_minor"] for shard in shards.values())
    assert total == SHAPE.customers * SHAPE.opening_minor
