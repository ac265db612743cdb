"""What every Disk promises, the real one and the one of the simulation."""

from collections.abc import Callable

from agent.core.record import Exit, Record
from agent.ports import Disk
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support.aio import bounded
from tests.support.fake_leader import task

Disks = Callable[[], Disk]
RECORD = Record(state=states.RUNNING, address="10.0.0.2", exit=Exit(code=1, finished_at=2), restart_times=(3,))


@bounded(10)
async def test_a_new_disk_is_empty(disks: Disks) -> None:
    """No assignment, no records."""
    memory = await disks().load()
    assert memory.assignment == dpb.SavedAssignment()
    assert memory.records == {}


@bounded(10)
async def test_the_next_agent_finds_what_was_written(disks: Disks) -> None:
    """The last assignment and the last record of each task."""
    disk = disks()
    saved = dpb.SavedAssignment(tasks=[task("web-1-a")], network=dpb.NodeNetwork(subnet="10.0.0.0/24"))
    await disk.save_assignment(dpb.SavedAssignment())
    await disk.save_assignment(saved)
    await disk.save_record("web-1-a", Record())
    await disk.save_record("web-1-a", RECORD)
    memory = await disks().load()
    assert memory.assignment == saved
    assert memory.records == {"web-1-a": RECORD}


@bounded(10)
async def test_the_last_address_is_remembered(disks: Disks) -> None:
    """A shorter one after a longer one, too."""
    assert (await disks().load()).last_addresses == ()
    for addresses in (("10.112.100.200", "fd00:112::1:2"), ("10.112.1.2",)):
        await disks().save_last_addresses(addresses)
        assert (await disks().load()).last_addresses == addresses


@bounded(10)
async def test_records_of_any_length(disks: Disks) -> None:
    """A longer one and a shorter one after it, and back."""
    disk = disks()
    for count in (0, 10, 1000, 0, 300, 2):
        written = Record(restart_times=tuple(range(1_700_000_000_000, 1_700_000_000_000 + count)))
        await disk.save_record("web-1-a", written)
        assert (await disks().load()).records == {"web-1-a": written}


@bounded(10)
async def test_what_is_forgotten_is_gone(disks: Disks) -> None:
    """Forgetting twice is no error."""
    disk = disks()
    await disk.save_record("web-1-a", RECORD)
    await disk.save_record("web-2-b", RECORD)
    await disk.forget("web-1-a")
    await disk.forget("web-1-a")
    assert set((await disks().load()).records) == {"web-2-b"}


@bounded(10)
async def test_what_is_saved_is_a_copy(disks: Disks) -> None:
    """Changing the message afterwards changes nothing on the disk."""
    disk = disks()
    saved = dpb.SavedAssignment(tasks=[task("web-1-a")])
    await disk.save_assignment(saved)
    saved.tasks[0].service = "other"
    assert (await disks().load()).assignment.tasks[0].service == "web"
