"""What an instance is told reaches whoever goes by it."""

from pathlib import Path

from controlplane import arguments, main
from controlplane.core.scheduler import Strategy
from controlplane.store.etcd import EtcdStore
from tests.support import aio


@aio.bounded(10)
async def test_how_nodes_are_chosen_is_the_same_for_the_leader_and_for_who_foretells(tmp_path: Path) -> None:
    """`apply --dry-run` and `why` are answered by any instance."""
    needed = [f"--listen=unix:{tmp_path}/cp", f"--advertise=unix:{tmp_path}/cp", f"--state={tmp_path}"]
    store = EtcdStore(("127.0.0.1:1",))
    try:
        for said, strategy, moves in (
            ([], Strategy.SPREAD, 6),
            (["--placement=binpack", "--rebalance-moves-per-minute=0"], Strategy.BINPACK, 0),
        ):
            options = arguments.parse(["--name=cp1", *needed, *said])
            world = main._world(options)
            assert (world.strategy, world.rebalance_moves_per_minute) == (strategy, moves)
            assert main._edge(options, None, (), store).strategy is strategy
    finally:
        await store.close()
